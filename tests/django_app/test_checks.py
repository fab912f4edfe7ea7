"""System checks: each has a stable id and a hint, and a clean project has none."""

from datetime import timedelta

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from django.core.checks import run_checks
from django.test import override_settings

from django_app import checks
from django_app.beat import beat_schedule


def ids(messages):
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


@pytest.fixture
def app():
    """A Celery app with nothing to find fault with, and the current one while the test runs."""
    app = Celery("checked", broker="redis://", set_as_current=False)
    app.conf.beat_schedule = beat_schedule()
    app.set_current()
    yield app
    Celery("default").set_default()
    app.close()


def test_a_clean_project_has_no_complaints(app):
    assert ids(checks.check_celery()) == []
    assert [message.id for message in run_checks() if str(message.id).startswith("lrp_celery.")] == []


def test_a_process_without_a_celery_app_is_left_alone():
    assert ids(checks.check_celery()) == []


@override_settings(LRP_CELERY={"RETENTON": {}})
def test_e001_a_wrong_setting():
    assert ids(checks.check_settings()) == ["lrp_celery.E001"]


@override_settings(LRP_CELERY={"RETENTON": {}})
def test_e001_is_all_that_is_said_of_a_wrong_setting(app):
    assert ids(checks.check_celery()) == []


def test_configurations_of_other_kinds_are_understood(app):
    app.conf.beat_schedule = {"purge": ScheduleEntry(name="purge", task="lrp_celery.purge", schedule=60, app=app)}
    app.conf.update(task_time_limit=7200, broker_transport_options={"visibility_timeout": "7200"})
    assert ids(checks.check_celery()) == []


@override_settings(USE_TZ=False)
def test_e002_time_zones_are_off():
    assert ids(checks.check_time_zone()) == ["lrp_celery.E002"]


@pytest.mark.parametrize(
    ("named", "complaints"),
    [
        ("nowhere.user_of", ["lrp_celery.E003"]),
        ("django.conf.user_of", ["lrp_celery.E003"]),
        ("django.conf.ENVIRONMENT_VARIABLE", ["lrp_celery.E003"]),
        ("django.contrib.auth.get_user", []),
        (print, []),
        (None, []),
        (7, []),  # what E001 says
    ],
)
def test_e003_nobody_can_be_told_by_that(named, complaints):
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": named}):
        assert ids(checks.check_authentication()) == complaints


@pytest.mark.parametrize(("folder", "complaints"), [("/dev/null/spools", ["lrp_celery.W007"]), ("/tmp/a/b", [])])
def test_w007_a_folder_that_cannot_hold_spools(folder, complaints):
    with override_settings(LRP_CELERY={"SPOOL_DIR": folder}):
        assert ids(checks.check_spool()) == complaints


@pytest.mark.parametrize(
    ("chosen", "complaints"),
    [
        ({}, []),
        ({"REDACT": []}, []),
        ({"PAYLOAD": ["mails.*"]}, []),
        ({"PAYLOAD": ["mails.*"], "REDACT": []}, ["lrp_celery.W008"]),
        ({"PAYLOAD": "mails.*"}, []),
    ],
)
def test_w008_arguments_are_kept_and_shown_with_their_secrets(chosen, complaints):
    with override_settings(LRP_CELERY=chosen):
        assert ids(checks.check_payload()) == complaints


@pytest.mark.parametrize(("days", "complaints"), [(6, ["lrp_celery.W009"]), (7, []), (None, [])])
def test_w009_counts_are_gone_before_the_dashboard_has_shown_them(days, complaints):
    with override_settings(LRP_CELERY={"ROLLUP_RETENTION": days and timedelta(days=days)}):
        assert ids(checks.check_rollup()) == complaints


def test_w001_nothing_purges(app):
    app.conf.beat_schedule = {}
    assert ids(checks.check_celery()) == ["lrp_celery.W001"]


def test_w001_a_schedule_in_the_database_cannot_be_judged(app):
    app.conf.update(beat_schedule={}, beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler")
    assert ids(checks.check_celery()) == []


@override_settings(LRP_CELERY={"RETENTION": {"*": None}})
def test_w001_who_keeps_everything_needs_no_purge(app):
    app.conf.beat_schedule = {}
    assert ids(checks.check_celery()) == []


def test_w002_pickle_is_accepted(app):
    app.conf.accept_content = ["json", "pickle"]
    assert ids(checks.check_celery()) == ["lrp_celery.W002"]


def test_w003_rabbitmq_does_not_confirm(app):
    app.conf.broker_url = "amqp://"
    assert ids(checks.check_celery()) == ["lrp_celery.W003"]
    app.conf.broker_transport_options = {"confirm_publish": True}
    assert ids(checks.check_celery()) == []


def test_w004_tasks_may_run_longer_than_the_broker_waits(app):
    app.conf.task_time_limit = 7200
    assert ids(checks.check_celery()) == ["lrp_celery.W004"]
    app.conf.broker_transport_options = {"visibility_timeout": 10_000}
    assert ids(checks.check_celery()) == []


def test_w006_tombstones_do_not_outlast_late_copies_of_a_message(app, settings):
    app.conf.broker_transport_options = {"visibility_timeout": 86_400}
    (message,) = checks.check_celery()
    assert ids([message]) == ["lrp_celery.W006"]
    assert "86400 s" in message.msg
    settings.LRP_CELERY = {"TOMBSTONE": 90_000}
    assert ids(checks.check_celery()) == []
    settings.LRP_CELERY = {"TOMBSTONE": 3600}
    app.conf.broker_transport_options = {}
    assert ids(checks.check_celery()) == ["lrp_celery.W006"]
    app.conf.update(broker_url="amqp://", broker_transport_options={"confirm_publish": True})
    assert ids(checks.check_celery()) == [], "RabbitMQ has no such timeout"


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_w005_requests_are_atomic(app, settings):
    settings.DATABASES = {"default": {**settings.DATABASES["default"], "ATOMIC_REQUESTS": True}}
    assert ids(checks.check_celery()) == ["lrp_celery.W005"]
