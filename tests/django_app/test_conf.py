"""The setting LRP_CELERY."""

from datetime import timedelta

import pytest
from django.test import override_settings

from django_app.conf import Options, options
from django_app.stores import DjangoTrackingStore
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.status import CallStatus


def test_without_the_setting_the_defaults_hold():
    assert options() == Options()


def test_override_settings_is_followed_there_and_back():
    with override_settings(LRP_CELERY={"TRACK": ["a.*"], "SILENT_AFTER": timedelta(minutes=1)}):
        assert options().TRACK == ("a.*",)
        assert options().SILENT_AFTER == 60
    assert options().TRACK == ("*",)


def test_the_waits_of_owned_calls_reach_the_stores():
    chosen = {"LEASE": 4, "RESEND_AFTER": timedelta(minutes=2), "TOMBSTONE": timedelta(hours=3), "HEARTBEAT": 1.5}
    with override_settings(LRP_CELERY=chosen):
        assert options().HEARTBEAT == 1.5
        assert DjangoTrackingStore().timing == Timing(lease=4, resend_after=120, tombstone=10_800)
    assert DjangoTrackingStore().timing == Timing()


def test_durations_and_sizes_have_the_documented_defaults():
    chosen = options()
    assert (chosen.HEARTBEAT, chosen.LEASE, chosen.RESCUE_INTERVAL, chosen.RESEND_AFTER) == (3, 10, 2, 60)
    assert (chosen.SETTLE_WAIT, chosen.GRACE, chosen.PUBLISH_WAIT, chosen.TOMBSTONE) == (30, 10, 1, 86_400)
    assert chosen.MAX_PAYLOAD == 262_144
    assert (chosen.MAX_WAIT, chosen.HTTP_AUTHENTICATE) == (30, None)


def test_retention_adds_to_the_defaults():
    with override_settings(LRP_CELERY={"RETENTION": {"reports.*:failed": timedelta(days=90)}}):
        retention = options().retention
    assert retention.keep("reports.x", CallStatus.FAILED) == timedelta(days=90)
    assert retention.keep("other", CallStatus.FAILED) == timedelta(days=7)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"RETENTON": {}}, "Did you mean 'RETENTION'?"),
        ({"NONSENSE": 1}, "It has "),
        ({"TRACK": "reports.*"}, "a list of patterns"),
        ({"TRACK": [1]}, "not a text"),
        ({"RECORDER": "redis"}, "'sync'"),
        ({"SPOOL_DIR": "spools"}, "absolute path"),
        ({"SPOOL_MAX": 0}, "bytes above 0"),
        ({"DATABASE": "nowhere"}, "not in DATABASES"),
        ({"SILENT_AFTER": 0}, "above 0"),
        ({"SILENT_AFTER": "1"}, "above 0"),
        ({"LEASE": -1}, "above 0"),
        ({"HEARTBEAT": True}, "above 0"),
        ({"TOMBSTONE": timedelta(0)}, "above 0"),
        ({"GRACE": None}, "above 0"),
        ({"MAX_PAYLOAD": 0}, "bytes above 0"),
        ({"MAX_PAYLOAD": 1.5}, "bytes above 0"),
        ({"MAX_PAYLOAD": True}, "bytes above 0"),
        ({"MAX_WAIT": 0}, "above 0"),
        ({"HTTP_AUTHENTICATE": "user_of"}, "dotted path"),
        ({"HTTP_AUTHENTICATE": 1}, "takes a request"),
        ({"LEESE": 1}, "Did you mean 'LEASE'?"),
        ({"RETENTION": {"*": 7}}, "timedelta"),
        ({"RETENTION": 7}, "a dict"),
        ([], "is a dict"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_what_is_right(setting, says):
    with override_settings(LRP_CELERY=setting), pytest.raises(ConfigurationError, match="LRP_CELERY") as caught:
        options()
    assert says in str(caught.value)
