from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_app.timeline import LEAST, Span, lay_out

START = datetime(2026, 10, 1, 12, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


def drawn(*spans):
    timeline = lay_out(spans)
    assert timeline is not None
    return timeline


def span(start, end, kind="run"):
    return Span(kind=kind, start=at(start), end=at(end), texts=("the whole text", "1"))


def test_nothing_is_no_timeline():
    assert lay_out([]) is None


def test_spans_fill_the_line_in_proportion():
    timeline = drawn(span(0, 25), span(25, 75), span(75, 100))
    assert [(block.x, block.width) for block in timeline.blocks] == [(0, 25), (25, 50), (75, 25)]
    assert not timeline.is_bent
    assert timeline.length == timedelta(seconds=100)
    assert (timeline.start, timeline.end) == (at(0), at(100))


def test_what_is_short_is_drawn_wide_enough_to_be_seen():
    timeline = drawn(span(0, 3600), span(3600, 3600.01), span(3600.01, 7200))
    assert timeline.is_bent
    assert timeline.blocks[1].width == pytest.approx(LEAST)
    assert timeline.blocks[1].text == "1"
    assert timeline.blocks[0].text == "the whole text"
    assert timeline.blocks[2].x + timeline.blocks[2].width == pytest.approx(100)


def test_a_span_without_length_is_seen_too():
    (block,) = drawn(span(5, 5)).blocks
    assert block.width >= LEAST
    last = drawn(span(0, 10), span(10, 10)).blocks[1]
    assert last.x + last.width == pytest.approx(100)


def test_spans_that_overlap_lie_below_each_other():
    timeline = drawn(span(0, 10), span(5, 15), span(10, 20))
    assert [block.y for block in timeline.blocks] == [0, 30, 0]
    assert timeline.height == 56


def test_a_span_that_ends_before_it_starts_is_empty():
    timeline = drawn(span(0, 10), span(8, 2))
    assert timeline.end == at(10)
    assert timeline.blocks[1].x <= 100


def test_numbers_are_written_with_a_point_in_every_language(settings):
    settings.LANGUAGE_CODE = "de"
    block = drawn(span(0, 1), span(1, 3)).blocks[1]
    assert (block.left, block.breadth, block.middle) == ("33.33%", "66.67%", "66.67%")


moments = st.integers(min_value=0, max_value=10**7)


@given(st.lists(st.tuples(moments, moments), min_size=1, max_size=60))
def test_every_span_has_a_place_within_the_line_and_keeps_its_order(pairs):
    timeline = drawn(*(span(min(pair), max(pair)) for pair in pairs))
    places = [(block.span.start, block.x) for block in timeline.blocks]
    for block in timeline.blocks:
        assert block.x >= -1e-6
        assert block.x + block.width <= 100 + 1e-6
        assert block.width > 0
    ordered = sorted(places)
    for (_, before), (_, after) in pairwise(ordered):
        assert before <= after + LEAST + 1e-6
    for one in timeline.blocks:
        for other in timeline.blocks:
            if one is not other and one.y == other.y:
                assert one.span.end <= other.span.start or other.span.end <= one.span.start
