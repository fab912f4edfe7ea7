"""TRK-21: how long ended calls are kept."""

from datetime import UTC, datetime, timedelta

import pytest

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.retention import Retention
from lrp_celery.tracking.status import CallStatus

DAY = timedelta(days=1)


def test_trk_21_seven_days_by_default_and_parked_until_handled():
    retention = Retention()
    assert retention.keep("a", CallStatus.SUCCEEDED) == 7 * DAY
    assert retention.keep("a", CallStatus.FAILED) == 7 * DAY
    assert retention.keep("a", CallStatus.PARKED) is None


def test_what_is_kept_until_handled_is_kept_as_long_as_others_from_then_on():
    retention, then, later = Retention(), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    assert retention.ends("a", CallStatus.PARKED, then, None) is None
    assert retention.ends("a", CallStatus.PARKED, then, later) == later + 7 * DAY
    assert retention.ends("a", CallStatus.FAILED, then, later) == then + 7 * DAY
    for_ever = Retention({"*": None, "*:parked": None})
    assert for_ever.ends("a", CallStatus.PARKED, then, later) is None


def test_the_most_specific_rule_wins_task_first_then_status():
    retention = Retention({"*": 7 * DAY, "*:failed": 8 * DAY, "r.*": 9 * DAY, "r.*:failed": 10 * DAY, "r.x": None})
    assert retention.keep("a", CallStatus.SUCCEEDED) == 7 * DAY
    assert retention.keep("a", CallStatus.FAILED) == 8 * DAY
    assert retention.keep("r.a", CallStatus.SUCCEEDED) == 9 * DAY
    assert retention.keep("r.a", CallStatus.FAILED) == 10 * DAY
    assert retention.keep("r.x", CallStatus.FAILED) is None


def test_a_task_that_no_rule_fits_is_kept():
    assert Retention({"r.*": DAY}).keep("a", CallStatus.SUCCEEDED) is None


@pytest.mark.parametrize(
    "rules", [{"*": 7}, {"*": timedelta(0)}, {"*": -DAY}, {"*:started": DAY}, {"*:x": DAY}, {"": DAY}]
)
def test_a_rule_that_makes_no_sense_is_refused_with_a_hint(rules):
    with pytest.raises(ConfigurationError):
        Retention(rules)
