"""Lengths of time in few numbers."""

import random
from datetime import timedelta

import pytest

from django_app.histogram import ERROR, LEAST, MOST, Histogram

SECOND = timedelta(seconds=1)


def of(lengths):
    made = Histogram()
    for length in lengths:
        made.add(length)
    return made


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1])
def test_a_quantile_is_off_by_no_more_than_it_says(share):
    chance = random.Random(7)
    for _ in range(50):
        lengths = sorted(max(SECOND * chance.lognormvariate(0, 3), LEAST) for _ in range(chance.randint(1, 400)))
        exact = lengths[max(-int(-share * len(lengths) // 1), 1) - 1]
        found = of(lengths).quantile(share)
        assert abs(found / exact - 1) <= ERROR + 1e-3, (share, found, exact)
    assert ERROR < 0.1


def test_what_is_too_short_or_too_long_for_the_scale_counts_as_its_ends():
    assert of([timedelta(0)]).quantile(0.5) == LEAST / 2
    assert of([timedelta(days=4000)]).quantile(0.5) == MOST > timedelta(days=9)
    assert Histogram().quantile(0.5) is None


def test_two_together_are_what_all_their_lengths_are():
    one, other = [SECOND * n for n in range(1, 50)], [SECOND / n for n in range(1, 90)]
    both = of(one)
    both.update(of(other))
    assert both == of([*one, *other])
    assert both.number == len(one) + len(other)


def test_as_text_it_is_bounded_and_reads_as_it_was():
    chance = random.Random(7)
    full = of(SECOND * chance.lognormvariate(0, 5) for _ in range(200_000))
    text = full.to_json()
    assert len(text) < 1_500
    assert Histogram.from_json(text) == full
    assert Histogram.from_json(Histogram().to_json()) == Histogram()
