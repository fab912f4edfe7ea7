"""Numbers as pictures: where things lie, without a database."""

from datetime import timedelta

import pytest

from django_app.charts import HEIGHT, LEAST, Bar, Scale, ceiling, stack

SECOND = timedelta(seconds=1)


def bars(*counts):
    return [Bar(parts=[("good", good), ("bad", bad)], title=f"{good} and {bad}") for good, bad in counts]


def share(percent):
    assert percent.endswith("%")
    return float(percent[:-1])


def test_columns_stand_side_by_side_from_the_left_to_the_right():
    chart = stack(bars((1, 0), (2, 0), (3, 0), (4, 0)))
    slots = [tuple(map(share, column.slot)) for column in chart.columns]
    assert slots == [(0, 25), (25, 25), (50, 25), (75, 25)]
    for column in chart.columns:
        begin, width = map(share, column.slot)
        assert begin < share(column.x)
        assert share(column.x) + share(column.width) < begin + width


def test_parts_stand_on_each_other_from_the_ground_up_and_are_as_high_as_their_numbers():
    (column,) = stack(bars((30, 10))).columns
    good, bad = column.parts
    assert (good.kind, bad.kind) == ("good", "bad")
    assert float(good.height) == pytest.approx(3 * float(bad.height))
    assert float(good.height) + float(bad.height) == pytest.approx(HEIGHT)
    assert float(bad.top) + float(bad.height) == pytest.approx(float(good.top))
    assert float(good.top) + float(good.height) == stack(bars((30, 10))).ground


def test_what_is_rare_can_still_be_seen_and_what_is_not_there_is_not_drawn():
    (column, empty) = stack(bars((99_999, 1), (0, 0))).columns
    assert [float(part.height) for part in column.parts] == [pytest.approx(HEIGHT, abs=0.1), LEAST]
    assert empty.parts == []


def test_the_uppermost_line_is_at_a_round_number_that_no_column_exceeds():
    assert [ceiling(number) for number in (0, 1, 3, 10, 11, 12, 13, 99, 101, 5_432)] == [
        *(2, 2, 4, 10, 12, 12, 15, 100, 120, 6_000)
    ]
    chart = stack(bars((1_900, 99), (3, 3)))
    assert chart.lines[0].text == "2,000"
    for number in range(1, 3_000):
        assert number <= ceiling(number) <= max(number * 1.5, number + 2)


def test_names_stand_under_the_middle_of_their_columns():
    chart = stack([Bar(parts=[], title="", tick="noon"), Bar(parts=[], title="")])
    assert [(line.at, line.text) for line in chart.ticks] == [("25.00%", "noon")]


def test_lengths_have_their_places_on_a_scale_of_equal_ratios():
    scale = Scale.of([SECOND, 10 * SECOND, 100 * SECOND])
    strip = scale.strip((SECOND, 10 * SECOND, 100 * SECOND))
    first, second, third = map(share, strip.marks)
    assert second - first == pytest.approx(third - second, abs=0.02)
    assert 0 < first < second < third < 100
    assert share(strip.width) == pytest.approx(third - first, abs=0.02)


def test_one_length_alone_and_none_at_all_need_no_scale_of_their_own():
    assert Scale.of([]) is Scale.of([timedelta(0)]) is None
    strip = Scale.of([SECOND]).strip((SECOND, SECOND, SECOND))
    assert set(strip.marks) == {"4.00%"}
    assert strip.width == "0.00%"
