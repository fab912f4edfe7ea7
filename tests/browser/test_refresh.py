"""The list and the page of a call keep themselves up to date, and nothing that somebody does is lost by it."""

import pytest
from django.utils import timezone

from django_app.admin import tasks
from django_app.admin.calls import CallAdmin
from django_app.models import Call
from tests.browser.refreshing import mark, meanwhile, with_a_clock
from tests.browser.story import Story
from tests.browser.test_admin import LIST, detail

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SECOND = 1_000
NEVER = 60 * SECOND


@pytest.fixture
def told():
    tasks.forget()
    return Story(timezone.now()).tell()


def settle(call):
    now = timezone.now()
    change(call, status="succeeded", run_outcome="succeeded", terminal_at=now, updated_at=now)


def change(call, **values):
    meanwhile(lambda: Call.objects.filter(pk=call.pk).update(**values))


def a_running_one():
    return Call.objects.filter(status="started").order_by("-enqueued_at").first()


def row_of(page, call):
    return page.locator(f"#result_list tr:has(input[value='{call.pk}'])")


def in_a_round(page, turn, seconds=16):
    mark(page)
    turn(seconds * SECOND)
    page.wait_for_selector("#lrp-at:not([data-old])")


def test_the_list_shows_what_became_of_its_calls_and_which_are_new(look, told):
    running = a_running_one()

    def use(page):
        turn, _asked = with_a_clock(page)
        assert row_of(page, running).locator(".lrp-badge").inner_text() == "started"
        succeeded = page.locator(".lrp-bar-part a", has_text="succeeded").inner_text()
        new = meanwhile(lambda: told.call("draw_chart", "submitted", age=0))
        settle(running)
        in_a_round(page, turn)
        assert row_of(page, running).locator(".lrp-badge").inner_text() == "succeeded"
        assert page.locator("#result_list input.action-select").first.get_attribute("value") == str(new.pk)
        assert page.locator(".lrp-bar-part a", has_text="succeeded").inner_text() != succeeded

    look(use)


def test_a_list_in_which_calls_are_ticked_stays_until_none_is(look, told):
    running = a_running_one()

    def use(page):
        turn, _asked = with_a_clock(page)
        row_of(page, running).locator("input").check()
        settle(running)
        page.evaluate("document.activeElement.blur()")
        in_a_round(page, turn)
        assert page.locator("#lrp-calls").get_attribute("data-old") == "yes"
        assert row_of(page, running).locator(".lrp-badge").inner_text() == "started"
        row_of(page, running).locator("input").uncheck()
        page.evaluate("document.activeElement.blur()")
        in_a_round(page, turn)
        return row_of(page, running).locator(".lrp-badge").inner_text()

    assert look(use) == "succeeded"


def test_djangos_own_ticking_works_on_a_list_that_was_refreshed(look, told):
    def use(page):
        turn, _asked = with_a_clock(page)
        meanwhile(lambda: told.call("draw_chart", "submitted", age=0))
        in_a_round(page, turn)
        page.locator("#action-toggle").check()
        ticked = page.locator("#result_list input.action-select:checked").count()
        return ticked, page.locator("#result_list tbody tr").count(), page.locator(".action-counter").inner_text()

    ticked, rows, counted = look(use)
    assert ticked == rows == 50
    assert counted.startswith("50 of 50")


def test_the_page_of_a_call_follows_it_to_its_end_and_asks_no_more(look, told):
    running = a_running_one()

    def use(page):
        turn, asked = with_a_clock(page)
        assert page.locator(".lrp-header .lrp-badge").inner_text() == "started"
        in_a_round(page, turn, 6)
        assert page.locator(".lrp-pause").count() == 1
        settle(running)
        turn(6 * SECOND)
        page.wait_for_selector(".lrp-at", state="detached")
        assert page.locator(".lrp-header .lrp-badge").inner_text() == "succeeded"
        before = len(asked)
        turn(NEVER)
        return len(asked) - before

    assert look(use, detail(running)) == 0


def test_the_page_of_a_call_that_has_ended_never_asks(look, told):
    def use(page):
        turn, asked = with_a_clock(page)
        assert page.locator(".lrp-pause").count() == 0
        turn(NEVER)
        return asked

    assert look(use, detail(told.calls["parked"])) == []


def test_a_traceback_that_is_unfolded_stays_so_when_a_new_attempt_comes(look, told):
    call = told.calls["parked"]
    change(call, status="retrying", terminal_at=None)

    def use(page):
        turn, _asked = with_a_clock(page)
        summary = page.locator(".lrp-more summary").first
        number = summary.inner_text()
        summary.click()
        page.evaluate("document.activeElement.blur()")
        change(call, status="started", attempt=call.attempt + 1, runs=call.runs + 1, run="another", run_outcome=None)
        in_a_round(page, turn, 6)
        assert page.locator(".lrp-header .lrp-badge").inner_text() == "started"
        return number, page.locator(".lrp-more details[open] > summary").all_inner_texts()

    number, unfolded = look(use, detail(call))
    assert unfolded == [number]


def test_whoever_wants_no_refreshing_says_so_in_the_class(look, told, monkeypatch):
    monkeypatch.setattr(CallAdmin, "refresh_every", None)
    monkeypatch.setattr(CallAdmin, "refresh_call_every", None)

    def use(page):
        return page.locator(".lrp-pause, script[src*=refresh]").count()

    assert [look(use, path) for path in (LIST, detail(a_running_one()))] == [0, 0]
