"""System checks: settings that are wrong (E), and set-ups that will disappoint (W)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery._state import get_current_app
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags
from django.core.checks import Warning as Caution
from django.core.checks import register as register_check
from django.utils.module_loading import import_string

from django_app.beat import is_in_database, schedules_of
from django_app.conf import SETTING, options, read
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.redelivery import visibility_timeout

_PURGE: Final = "lrp_celery.purge"
#: How far the dashboard looks back.
LONGEST: Final = timedelta(days=7)


def register() -> None:
    """Have Django run the checks of this module."""
    for check in (
        check_settings,
        check_time_zone,
        check_authentication,
        check_spool,
        check_payload,
        check_rollup,
        check_celery,
    ):
        register_check(check, Tags.compatibility)


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: LRP_CELERY is not understood."""
    try:
        read(getattr(django_settings, SETTING, {}))
    except ConfigurationError as error:
        return [
            Error(str(error), hint=f"Correct {SETTING} in the settings; nothing is tracked until then.", id=_id("E001"))
        ]
    return []


def check_time_zone(**_: Any) -> list[CheckMessage]:
    """E002: instants without a zone cannot be compared across hosts."""
    if django_settings.USE_TZ:
        return []
    return [Error("lrp_celery stores aware instants, but USE_TZ is off.", hint="Set USE_TZ = True.", id=_id("E002"))]


def check_authentication(**_: Any) -> list[CheckMessage]:
    """E003: nobody can be told by HTTP_AUTHENTICATE."""
    named = None if check_settings() else options().HTTP_AUTHENTICATE
    if not isinstance(named, str):
        return []
    try:
        found = import_string(named)
    except ImportError as error:
        wrong = str(error)
    else:
        if callable(found):
            return []
        wrong = f"{named!r} is no function"
    return [
        Error(
            f"{SETTING}['HTTP_AUTHENTICATE']: {wrong}.",
            hint="Name a function that takes a request and returns a user or None, by its dotted path.",
            id=_id("E003"),
        )
    ]


def check_spool(**_: Any) -> list[CheckMessage]:
    """W007: workers will find no folder for their spools."""
    if check_settings() or options().SPOOL_DIR is None:
        return []
    folder = Path(options().SPOOL_DIR or "")
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    return [
        Caution(
            f"{SETTING}['SPOOL_DIR'] is {str(folder)!r}, and {str(there)!r} is not to be written to by this user: "
            "workers will write each report to the database instead.",
            hint="Name a folder that the workers' user may write to, or leave SPOOL_DIR out.",
            id=_id("W007"),
        )
    ]


def check_payload(**_: Any) -> list[CheckMessage]:
    """W008: arguments are kept, and shown with their secrets."""
    if check_settings() or not options().PAYLOAD or options().REDACT:
        return []
    return [
        Caution(
            f"{SETTING}['PAYLOAD'] keeps arguments, and {SETTING}['REDACT'] is empty: whoever may view payloads sees "
            "the secrets among them.",
            hint="Leave REDACT out, or name the keys that hold secrets.",
            id=_id("W008"),
        )
    ]


def check_rollup(**_: Any) -> list[CheckMessage]:
    """W009: the dashboard will show stretches of time whose counts are gone."""
    keep = None if check_settings() else options().ROLLUP_RETENTION
    if keep is None or keep >= LONGEST:
        return []
    return [
        Caution(
            f"{SETTING}['ROLLUP_RETENTION'] is shorter than the {LONGEST.days} days that the admin's dashboard looks back.",
            hint="Hourly counts take little room: leave it at 90 days, or set None to keep them for ever.",
            id=_id("W009"),
        )
    ]


def check_celery(**_: Any) -> list[CheckMessage]:
    """W001 to W006: what Celery's configuration makes of tracking."""
    app = get_current_app()
    if app.main in {None, "default"} or check_settings():
        return []
    return [message for check in _CELERY_CHECKS for message in check(app)]


def _purge_is_scheduled(app: Celery) -> Iterator[CheckMessage]:
    if not schedules_of(app, _PURGE) and not is_in_database(app) and any(options().RETENTION.values()):
        yield Caution(
            "Nothing deletes old calls: beat has no entry for the task lrp_celery.purge.",
            hint="Merge django_app.beat.beat_schedule() into beat_schedule, or run manage.py lrp_purge from cron.",
            id=_id("W001"),
        )


def _json_only(app: Celery) -> Iterator[CheckMessage]:
    accepted = set(app.conf.accept_content or ())
    if app.conf.task_serializer != "json" or accepted & {"pickle", "application/x-python-serialize"}:
        yield Caution(
            "Task messages are not JSON only: who can write to the broker can run code in the workers.",
            hint="Set task_serializer = 'json' and accept_content = ['json'].",
            id=_id("W002"),
        )


def _publishes_are_confirmed(app: Celery) -> Iterator[CheckMessage]:
    amqp = str(app.conf.broker_url or "").startswith(("amqp", "pyamqp"))
    if amqp and not (app.conf.broker_transport_options or {}).get("confirm_publish"):
        yield Caution(
            "RabbitMQ does not confirm publishes: a call may be recorded whose message was lost on the way.",
            hint="Set broker_transport_options = {'confirm_publish': True}.",
            id=_id("W003"),
        )


def _limits_fit_visibility(app: Celery) -> Iterator[CheckMessage]:
    visible, limit = visibility_timeout(app), app.conf.task_time_limit
    if visible is not None and isinstance(limit, int | float) and limit > visible:
        yield Caution(
            f"task_time_limit ({limit} s) is longer than the broker's visibility timeout ({visible} s): a task that "
            "acknowledges late and runs longer is delivered and run again while it still runs.",
            hint="Raise visibility_timeout in broker_transport_options above the longest run and the longest countdown.",
            id=_id("W004"),
        )


def _tombstones_outlast_copies(app: Celery) -> Iterator[CheckMessage]:
    visible, tombstone = visibility_timeout(app), options().TOMBSTONE
    if visible is not None and tombstone <= visible:
        yield Caution(
            f"TOMBSTONE ({tombstone:g} s) is not longer than the broker's visibility timeout ({visible:g} s): a message "
            "that is delivered again after its call was removed may run the call once more.",
            hint=f"Raise {SETTING}['TOMBSTONE'] well above visibility_timeout in broker_transport_options.",
            id=_id("W006"),
        )


def _requests_are_not_atomic(app: Celery) -> Iterator[CheckMessage]:
    atomic = [alias for alias, database in django_settings.DATABASES.items() if database.get("ATOMIC_REQUESTS")]
    if atomic:
        yield Caution(
            f"ATOMIC_REQUESTS is on for {', '.join(atomic)}: .delay() in a view publishes before the view's "
            "transaction commits, so a worker may not find what the view wrote.",
            hint="Use .delay_on_commit() there.",
            id=_id("W005"),
        )


_CELERY_CHECKS: Final[tuple[Callable[[Celery], Iterator[CheckMessage]], ...]] = (
    _purge_is_scheduled,
    _json_only,
    _publishes_are_confirmed,
    _limits_fit_visibility,
    _tombstones_outlast_copies,
    _requests_are_not_atomic,
)


def _id(number: str) -> str:
    return f"lrp_celery.{number}"
