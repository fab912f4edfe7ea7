import math
from datetime import timedelta
from fractions import Fraction

import pytest

from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "expected"),
    [(timedelta(minutes=30), 1800.0), (10, 10.0), (0.5, 0.5), (timedelta(microseconds=1), 1e-06), (None, None)],
)
def test_a_duration_is_a_timedelta_or_seconds_and_none_is_unlimited(value, expected):
    found = seconds(value, "timeout")
    assert found == expected
    assert found is None or type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        0,
        0.0,
        -1,
        timedelta(0),
        timedelta(-1),
        True,
        False,
        math.nan,
        math.inf,
        -math.inf,
        "10",
        [],
        Fraction(1),
        1 + 0j,
    ],
)
def test_anything_else_is_refused_by_name_with_what_to_pass(value):
    with pytest.raises(ConfigurationError, match=r"timeout is .* pass a timedelta or a number of seconds above 0"):
        seconds(value, "timeout")


@pytest.mark.parametrize("value", [10**400, timedelta.max, "x" * 100_000])
def test_a_giant_one_is_refused_in_few_words(value):
    with pytest.raises(ConfigurationError) as caught:
        seconds(value, "timeout")
    assert len(str(caught.value)) < 300
