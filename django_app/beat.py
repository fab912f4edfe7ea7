"""What beat should run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery
from celery.schedules import crontab, maybe_schedule


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return entries to merge into Celery's `beat_schedule`.

    For example `app.conf.beat_schedule = {**beat_schedule(), "nightly": {...}}`. The purge
    runs every hour, the relay every minute and the rescue, which takes LEASE seconds, every five
    minutes; the last two are for where no worker is up that does the same all the time. What nobody took before the next one follows is dropped.
    """
    return {
        "lrp_celery.purge": {
            "task": "lrp_celery.purge",
            "schedule": crontab(minute="17"),
            "options": {"expires": 3600},
        },
        "lrp_celery.relay": {"task": "lrp_celery.relay", "schedule": crontab(), "options": {"expires": 60}},
        "lrp_celery.rescue": {
            "task": "lrp_celery.rescue",
            "schedule": crontab(minute="*/5"),
            "options": {"expires": 300},
        },
    }


def until_next(app: Celery, task: str) -> timedelta | None:
    """Return how long it is until beat's schedule has a task run next; None: it has no entry for it.

    Of an entry that says how often, not when: at most so long.
    """
    schedules: list[Any] = [maybe_schedule(schedule, app=app) for schedule in schedules_of(app, task)]
    return min((schedule.remaining_estimate(schedule.now()) for schedule in schedules), default=None)


def schedules_of(app: Celery, task: str) -> list[Any]:
    """Return when beat's schedule has a task run, of each entry for it, as the entry says so."""
    entries = (app.conf.beat_schedule or {}).values()
    return [_said(entry, "schedule") for entry in entries if _said(entry, "task") == task]


def _said(entry: Any, name: str) -> Any:
    # Celery takes entries of its own class, too.
    return entry.get(name) if isinstance(entry, dict) else getattr(entry, name, None)


def is_in_database(app: Celery) -> bool:
    """Whether beat's schedule is kept in a database, of which the settings know nothing."""
    return "DatabaseScheduler" in str(app.conf.beat_scheduler)
