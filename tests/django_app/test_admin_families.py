from datetime import UTC, datetime, timedelta

import pytest

from django_app.admin.families import DEEPEST, excerpt, nest
from django_app.models import Call

START = datetime(2026, 10, 1, 12, tzinfo=UTC)


def call(name, parent=None, at=0):
    return Call(call_id=name, parent_id=parent, enqueued_at=START + timedelta(seconds=at))


def shown(places):
    return [(place.call.pk, place.depth) for place in places]


def test_each_call_follows_the_one_it_came_from_in_the_order_they_were_asked_for():
    calls = [call("b2", "b", 6), call("a", "root", 1), call("root"), call("b", "root", 2), call("a1", "a", 9)]
    assert shown(nest(calls)) == [("root", 0), ("a", 1), ("a1", 2), ("b", 1), ("b2", 2)]


def test_calls_whose_origin_is_unknown_stand_first_by_themselves():
    assert shown(nest([call("b", "gone", 2), call("c", "b", 3), call("a", None, 1)])) == [("a", 0), ("b", 0), ("c", 1)]


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_is_opened_and_nothing_is_lost_or_doubled(circle):
    calls = [call(name, circle[place - 1], place) for place, name in enumerate(circle)]
    calls += [call("below", "a", 9), call("apart", None, 20)]
    places = nest(calls)
    assert sorted(place.call.pk for place in places) == sorted([*circle, "below", "apart"])


def test_a_chain_of_ten_thousand_calls_and_ten_thousand_children_are_no_harm():
    chain = [call(f"{number}", f"{number - 1}" if number else None, number) for number in range(10_000)]
    children = [call(f"child {number}", "9999", 10_000 + number) for number in range(10_000)]
    places = nest([*chain, *children])
    assert [place.call.pk for place in places] == [one.pk for one in (*chain, *children)]
    assert max(place.depth for place in places) == DEEPEST
    assert len(excerpt(places, "9999", 25)) <= 51
    assert len(excerpt(places, "unknown", 25)) == 0


def test_an_excerpt_has_all_of_a_small_tree():
    places = nest([call("root"), call("a", "root", 1), call("b", "root", 2)])
    assert excerpt(places, "a", 25) == places


def test_an_excerpt_of_a_large_tree_has_what_is_above_and_right_below():
    calls = [call("root"), *(call(f"leaf {number}", "root", 100 + number) for number in range(50))]
    calls += [call("middle", "root", 1), call("this", "middle", 2), call("below", "this", 3), call("deep", "below", 4)]
    assert shown(excerpt(nest(calls), "this", 25)) == [("root", 0), ("middle", 1), ("this", 2), ("below", 3)]
