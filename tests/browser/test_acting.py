"""Acting on calls in a real browser: with and without scripts, by those who may and those who may not."""

import re

import pytest
from celery import _state
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from django_app.admin import tasks, values
from django_app.admin.offers import OFFERS
from django_app.models import ActionLog, Call
from tests.browser.conftest import follow
from tests.django_app import acting

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "/admin/lrp_celery/call/"


@pytest.fixture(autouse=True)
def _app():
    """The server has threads of its own, for which only the default app counts."""
    before = _state.default_app
    _state.set_default_app(acting.app)
    acting.app.set_current()
    tasks.forget()
    values.forget()
    acting.sent()
    yield
    _state.set_default_app(before)
    if before is not None:
        before.set_current()


def person(*rights):
    made = get_user_model().objects.create_user("vera", is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return made


def page_of(call_id):
    return f"{LIST}{quote(call_id)}/change/"


@pytest.mark.parametrize("scripts", [True, False])
def test_what_failed_in_the_last_hour_why_and_once_more_takes_three_clicks(look, scripts):
    failed = [acting.ended() for _ in range(3)]
    fine = acting.ended("succeeded")
    acting.sent()

    def use(page):
        follow(page, page.get_by_role("link", name=re.compile("failed in the last hour")))
        assert page.locator(".lrp-causes li").all_inner_texts() == ["3 \N{MULTIPLICATION SIGN} report ValueError"]
        follow(page, page.get_by_role("button", name="Run again…"))
        assert "3 calls" in page.inner_text(".lrp-confirm .lrp-card h2")
        follow(page, page.get_by_role("button", name="Run again: 3 calls"))
        assert "Run again, 3 calls: called again." in page.inner_text(".messagelist")
        return page.locator("#result_list tbody tr").count()

    # None of them is left to be looked at.
    assert look(use, java_script_enabled=scripts) == 0
    assert sorted(Call.objects.exclude(rerun_of=None).values_list("rerun_of", flat=True)) == sorted(failed)
    assert not Call.objects.filter(rerun_of=fine).exists()
    assert len(acting.sent()) == 3


def test_only_what_is_ticked_is_acted_on(look):
    first, second = acting.ended(), acting.ended()

    def use(page):
        page.locator(f'input[name="_selected_action"][value="{first}"]').check()
        assert page.locator("tr.selected").count() == 1
        follow(page, page.get_by_role("button", name="Remove…"))
        follow(page, page.get_by_role("button", name="Remove: 1 call"))

    look(use)
    assert Call.objects.get(pk=first).removed_at is not None
    assert Call.objects.get(pk=second).removed_at is None


def test_one_tick_ticks_the_whole_page(look):
    for _ in range(3):
        acting.ended()

    def use(page):
        page.locator("#action-toggle").check()
        return page.locator("tr.selected").count()

    assert look(use) == 3


@pytest.mark.parametrize("scripts", [True, False])
def test_from_its_page_a_call_is_aborted_with_a_reason_by_keyboard(look, scripts):
    waits = acting.waiting()

    def use(page):
        page.get_by_role("button", name="Abort…").focus()
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.fill("#lrp-reason", "wrong month")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        return page.inner_text(".lrp-header h1")

    assert "aborted" in look(use, page_of(waits), java_script_enabled=scripts)
    assert ActionLog.objects.get().reason == "wrong month"


def test_whoever_asks_may_still_turn_back(look):
    waits = acting.waiting()

    def use(page):
        follow(page, page.get_by_role("button", name="Abort…"))
        follow(page, page.get_by_text("No, take me back"))
        return page.inner_text(".lrp-header h1")

    assert "submitted" in look(use, page_of(waits))
    assert not ActionLog.objects.exists()


def test_whoever_may_only_view_finds_nothing_to_press(look):
    failed, vera = acting.ended(), person("view_call")

    def use(page):
        return page.locator("[name=action]").count() + page.locator("[name=_selected_action][type=checkbox]").count()

    assert look(use, user=vera) == 0
    assert look(use, page_of(failed), user=vera) == 0

    def press(page):
        for button in page.locator(".lrp-buttons button").all():
            assert button.get_attribute("aria-disabled") == "true"
            button.click(force=True)
        return page.url

    assert look(press, page_of(failed), user=vera).endswith(page_of(failed))


@pytest.mark.parametrize("name", OFFERS)
def test_whoever_has_a_single_right_finds_its_button_alone(look, name):
    acting.ended()
    vera = person("view_call", OFFERS[name].permission)

    def use(page):
        return page.locator("button[name=action]").all_inner_texts()

    assert look(use, user=vera) == [f"{OFFERS[name].label}…"]


#: By action: whether it is for open calls.
FOR_OPEN = {name: name in {"abort_calls", "abort_trees", "resend_calls"} for name in OFFERS}


@pytest.mark.parametrize("place", ["list", "page"])
@pytest.mark.parametrize("who", ["superuser", "a single right"])
@pytest.mark.parametrize("name", OFFERS)
def test_each_action_is_done_from_list_and_page_by_whoever_may(look, name, who, place):
    call = acting.waiting() if FOR_OPEN[name] else acting.ended()
    label = str(OFFERS[name].label)
    vera = person("view_call", OFFERS[name].permission) if who == "a single right" else None

    def use(page):
        if place == "list":
            page.locator(f'input[name="_selected_action"][value="{call}"]').check()
        follow(page, page.get_by_role("button", name=f"{label}…", exact=True))
        follow(page, page.locator(".lrp-act button[type=submit]"))
        return page.inner_text(".messagelist")

    assert label in look(use, page_of(call) if place == "page" else LIST, user=vera)
    done = ActionLog.objects.get(call_id=call)
    assert done.by == ("vera" if vera else "ada")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_that_asks_fits_and_is_clean_in_both_themes(look, scheme):
    failed = [acting.ended() for _ in range(2)]

    def use(page):
        follow(page, page.get_by_role("button", name="Mark as handled…"))
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    assert look(use, page_of(failed[0]), color_scheme=scheme, viewport={"width": 360, "height": 800}) <= 0


def test_the_record_is_a_clean_page_too(look):
    from lrp_celery import calls

    calls.handle(acting.ended(), by="ada", reason="the mirror was down")

    def use(page):
        return page.inner_text("#result_list tbody")

    assert "the mirror was down" in look(use, "/admin/lrp_celery/actionlog/")
