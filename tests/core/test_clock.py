from datetime import UTC, datetime, timedelta, timezone

import pytest

from lrp_celery.core.clock import ManualClock, SystemClock, require_aware
from lrp_celery.core.errors import ConfigurationError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_system_clock_is_the_hosts_in_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.utcoffset() == timedelta(0)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(NOON)
    assert clock.now() == clock.now() == NOON
    assert clock.advance(timedelta(hours=1)) == clock.now() == NOON + timedelta(hours=1)
    assert clock.advance(timedelta(hours=-2)) == NOON - timedelta(hours=1)


def test_an_aware_instant_becomes_utc() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert require_aware(elsewhere) == NOON
    assert require_aware(elsewhere).tzinfo is UTC


def test_a_naive_instant_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="older_than is naive"):
        require_aware(datetime(2026, 1, 1), "older_than")
