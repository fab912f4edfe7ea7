"""The setting LRP_CELERY."""

from datetime import timedelta

import pytest
from django.test import override_settings

from django_app.conf import Options, options
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.status import CallStatus


def test_without_the_setting_the_defaults_hold():
    assert options() == Options()


def test_override_settings_is_followed_there_and_back():
    with override_settings(LRP_CELERY={"TRACK": ["a.*"], "SILENT_AFTER": timedelta(minutes=1)}):
        assert options().TRACK == ("a.*",)
        assert options().SILENT_AFTER == 60
    assert options().TRACK == ("*",)


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
        ({"RECORDER": "spool"}, "'sync'"),
        ({"DATABASE": "nowhere"}, "not in DATABASES"),
        ({"SILENT_AFTER": 0}, "above 0"),
        ({"SILENT_AFTER": "1"}, "above 0"),
        ({"RETENTION": {"*": 7}}, "timedelta"),
        ({"RETENTION": 7}, "a dict"),
        ([], "is a dict"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_what_is_right(setting, says):
    with override_settings(LRP_CELERY=setting), pytest.raises(ConfigurationError, match="LRP_CELERY") as caught:
        options()
    assert says in str(caught.value)
