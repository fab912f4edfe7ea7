"""The admin's pages in a real browser, under a strict content security policy."""

import re

import pytest
from django.utils import timezone

from django_app.admin import tasks
from tests.browser.conftest import follow
from tests.browser.story import Story

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "/admin/lrp_celery/call/"
CONTRAST = 4.5


@pytest.fixture
def told():
    tasks.forget()
    return Story(timezone.now()).tell()


def detail(call):
    from django.contrib.admin.utils import quote

    return f"{LIST}{quote(call.pk)}/change/"


def tree(call):
    return detail(call).replace("/change/", "/tree/")


def test_from_the_login_to_what_happened(look, told):
    def use(page):
        page.fill("#id_username", "ada")
        page.fill("#id_password", "ada")
        follow(page, page.locator("input[type=submit]"))
        follow(page, page.locator(".lrp-bar-part a", has_text="parked"))
        assert page.locator("#result_list tbody tr").count() == page.locator("#result_list .lrp-parked").count() > 0
        follow(page, page.locator("#result_list .lrp-task").first)
        return page.inner_text(".lrp-sentence")

    assert look(use, logged_in=False).startswith("Gave up on attempt 3, after 2 retries")


def test_filters_narrow_the_list_and_can_be_cleared(look, told):
    def use(page):
        page.locator(".lrp-menu summary").first.click()
        follow(page, page.locator(".lrp-menu").first.get_by_text("places.tasks.draw_chart", exact=True))
        assert set(page.locator("#result_list .lrp-task").all_inner_texts()) == {"draw_chart"}
        follow(page, page.locator(".lrp-bar-part a", has_text=re.compile("^failed [0-9]")))
        assert page.locator("#result_list tbody tr").count() == 1
        follow(page, page.get_by_text("Clear all filters"))
        return page.locator("#result_list tbody tr").count()

    assert look(use) == 50


def test_search_finds_a_call_by_the_beginning_of_its_id(look, told):
    call = told.calls["failed"]

    def use(page):
        page.fill("#searchbar", call.pk[:20])
        follow(page, page.locator("#changelist-search input[type=submit]"))
        assert page.locator("#result_list tbody tr").count() >= 1
        page.fill("#searchbar", call.pk)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        follow(page, page.locator("#result_list .field-shown_id a"))
        return page.inner_text(".lrp-names code")

    assert look(use) == call.pk


def test_tracebacks_unfold_and_relatives_are_linked(look, told):
    def use(page):
        brief, whole = (page.locator(".lrp-more pre").nth(place) for place in (0, 1))
        assert not brief.is_visible()
        page.locator(".lrp-more summary").first.click()
        assert "MirrorBusy" in brief.inner_text()
        assert not whole.is_visible()
        page.get_by_text("With the frames of libraries").first.click()
        assert "celery/app/autoretry.py" in whole.inner_text()

    look(use, detail(told.calls["parked"]))

    def climb(page):
        follow(page, page.locator(".lrp-relative a", has_text="write_continent").first)
        follow(page, page.locator(".lrp-relative a", has_text="print_atlas").first)
        follow(page, page.get_by_text("The whole tree"))
        assert page.locator(".lrp-chosen a").inner_text() == "print_atlas"
        return page.locator(".lrp-gantt .lrp-ran").count()

    assert look(climb, detail(told.calls["atlas"])) == 7


def test_pages_work_without_javascript(look, told):
    def use(page):
        follow(page, page.locator("#result_list .lrp-task").first)
        return page.locator(".lrp-timeline rect").count()

    assert look(use, java_script_enabled=False) >= 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_coloured_can_be_read(look, told, scheme):
    def use(page):
        return page.evaluate(CONTRASTS, COLOURED)

    paths = [LIST, detail(told.calls["parked"]), detail(told.calls["patient"]), tree(told.calls["atlas"])]
    for path in paths:
        seen = look(use, path, color_scheme=scheme)
        assert seen
        for words, ratio in seen:
            assert ratio >= CONTRAST, (scheme, words, ratio)


def test_dark_mode_is_dark(look, told):
    def use(page):
        return page.evaluate("getComputedStyle(document.querySelector('.lrp-sentence')).backgroundColor")

    path = detail(told.calls["failed"])
    assert look(use, path, color_scheme="dark") != look(use, path, color_scheme="light")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_a_page_is_never_wider_than_the_window(look, told, width):
    def use(page):
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    for path in (LIST, detail(told.calls["parked"]), detail(told.calls["atlas"]), tree(told.calls["atlas"])):
        assert look(use, path, viewport={"width": width, "height": 800}) <= 0


COLOURED = (
    ".lrp-badge, .lrp-flag, .lrp-sentence, .lrp-error, .lrp-under, .lrp-card dt, .lrp-filters a, "
    ".lrp-buttons .button:not([aria-disabled])"
)
#: The contrast of all text that a selector finds with what lies behind it, by the formula of WCAG 2.
CONTRASTS = """(coloured) => {
  const channel = (value) => {
    value /= 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const light = (colour) => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.startsWith("rgba(0, 0, 0, 0")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll(coloured)].map((node) => {
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))];
    return [node.innerText, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
  });
}"""
