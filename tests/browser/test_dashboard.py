"""The dashboard in a real browser, under a strict content security policy."""

import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.utils import timezone

from django_app.admin import tasks, values
from django_app.models import Call
from tests.browser.conftest import follow
from tests.browser.refreshing import mark, with_a_clock
from tests.browser.story import Story
from tests.browser.test_admin import CONTRAST, CONTRASTS

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGE = "/admin/lrp_celery/hourlyrollup/"
COLOURED = (
    ".lrp-tile dt, .lrp-tile dd, .lrp-legend li, .lrp-now, .lrp-overs a, .lrp-card th, .lrp-card td, .lrp-card h2 small"
)


@pytest.fixture
def told():
    tasks.forget()
    values.forget()
    return Story(timezone.now()).tell(hours=5).dashboard(days=2, pace=10)


@pytest.fixture
def viewer():
    """Somebody who may view calls and nothing else."""
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    return person


def person(who, viewer):
    return viewer if who == "view only" else None


@pytest.mark.parametrize("who", ["superuser", "view only"])
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_from_the_index_to_what_fails_and_to_one_of_these_calls(look, told, viewer, who, scripts):
    def use(page):
        follow(page, page.get_by_role("link", name="Dashboard").last)
        assert page.locator(".lrp-chart").count() == 2
        number = page.locator("#lrp-failures .lrp-now a").first
        expected = int(number.inner_text())
        follow(page, number)
        assert page.locator("#result_list tbody tr").count() == expected
        follow(page, page.locator("#result_list .lrp-task").first)
        return page.inner_text(".lrp-sentence")

    found = look(use, "/admin/", user=person(who, viewer), java_script_enabled=scripts)
    assert re.match("Failed|Gave up|Lost|Was stopped", found)


def test_a_column_leads_to_its_hour_and_the_table_says_the_same(look, told):
    def use(page):
        assert not page.locator("#lrp-trends-table table").is_visible()
        page.locator("#lrp-trends-table summary").click()
        row = page.locator("#lrp-trends-table tbody tr").nth(1)
        name, link = row.locator("a").inner_text(), row.locator("a").get_attribute("href")
        column = page.locator(".lrp-chart").first.locator("a").nth(-2)
        assert column.get_attribute("href") == link
        assert column.locator("title").text_content().startswith(name)
        with page.expect_navigation():
            column.locator(".lrp-slot").click()
        return page.url

    assert "enqueued=" in look(use, PAGE)


def test_a_week_is_one_click_away(look, told):
    def use(page):
        follow(page, page.get_by_role("link", name="7 days", exact=True))
        assert page.locator(".lrp-overs a[aria-current]").inner_text() == "7 days"
        return page.locator(".lrp-picture h2").first.inner_text()

    assert look(use, PAGE) == "Calls per 3 hours"


def test_the_page_keeps_itself_up_to_date_and_what_is_unfolded_stays_so(look, told):
    def use(page):
        turn, asked = with_a_clock(page)
        page.locator("#lrp-trends-table summary").click()
        page.evaluate("document.activeElement.blur()")
        mark(page)
        turn(10_000)
        assert asked == []
        turn(6_000)
        page.wait_for_selector("#lrp-trends:not([data-old])")
        assert page.locator("[data-lrp-refresh][data-old]").count() == 0
        assert page.locator("#lrp-trends-table table").is_visible()
        turn(16_000)
        return len(asked)

    assert look(use, PAGE) == 2


def test_what_somebody_is_using_is_left_alone(look, told):
    def use(page):
        turn, _asked = with_a_clock(page)
        page.locator("#lrp-failures a").first.focus()
        mark(page)
        turn(16_000)
        page.wait_for_selector("#lrp-tiles:not([data-old])")
        return page.locator("#lrp-failures").get_attribute("data-old")

    assert look(use, PAGE) == "yes"


def test_refreshing_can_be_paused(look, told):
    def use(page):
        turn, asked = with_a_clock(page)
        page.get_by_role("button", name="Pause").click()
        button = page.get_by_role("button", name="Go on")
        assert button.get_attribute("aria-pressed") == "true"
        turn(60_000)
        assert asked == []
        with page.expect_request(re.compile("hourlyrollup")):
            button.click()

    look(use, PAGE)


def test_the_page_rests_while_nobody_looks(look, told):
    def use(page):
        turn, asked = with_a_clock(page)
        page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
        turn(60_000)
        assert asked == []
        with page.expect_request(re.compile("hourlyrollup")):
            page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")

    look(use, PAGE)


def test_whoever_is_logged_out_meanwhile_keeps_what_he_has_and_is_told(look, told):
    def use(page):
        turn, _asked = with_a_clock(page)
        page.context.clear_cookies()
        mark(page)
        turn(16_000)
        page.wait_for_selector("#lrp-at[data-lrp-stale]")
        assert page.locator("[data-lrp-refresh]:not([data-old])").count() == 0
        return page.inner_text("#lrp-at")

    assert look(use, PAGE).endswith(", cannot be refreshed")


def test_without_scripts_nothing_promises_to_refresh(look, told):
    assert look(lambda page: page.locator(".lrp-pause").is_visible(), PAGE, java_script_enabled=False) is False
    assert look(lambda page: page.locator(".lrp-pause").is_visible(), PAGE) is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_coloured_can_be_read(look, told, scheme):
    def use(page):
        return page.evaluate(CONTRASTS, COLOURED)

    seen = look(use, PAGE, color_scheme=scheme)
    assert len(seen) > 50
    for words, ratio in seen:
        assert ratio >= CONTRAST, (scheme, words, ratio)


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("over", ["24h", "7d"])
def test_the_page_is_never_wider_than_the_window(look, told, width, over):
    def use(page):
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    assert look(use, f"{PAGE}?over={over}", viewport={"width": width, "height": 800}) <= 0


def test_the_keyboard_reaches_what_matters_without_passing_through_every_column(look, told):
    def use(page):
        page.locator(".lrp-pause").focus()
        stops = []
        for _ in range(12):
            page.keyboard.press("Tab")
            stops.append(page.evaluate("document.activeElement.closest('section, details')?.id"))
        return stops

    stops = look(use, PAGE)
    assert stops[0] == "lrp-tiles"
    assert "lrp-failures" in stops
    assert stops.count("lrp-trends") <= 1


def test_a_page_of_a_site_without_calls_says_what_is_missing(look, db):
    assert not Call.objects.exists()

    def use(page):
        return page.inner_text("#content-main")

    assert "Nothing that has ended is counted yet." in look(use, PAGE)
