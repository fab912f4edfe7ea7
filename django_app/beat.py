"""What beat should run."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return entries to merge into Celery's `beat_schedule`.

    For example `app.conf.beat_schedule = {**beat_schedule(), "nightly": {...}}`. The purge
    runs every hour; an entry that nobody took within the hour is dropped, since the next follows.
    """
    return {
        "lrp_celery.purge": {
            "task": "lrp_celery.purge",
            "schedule": crontab(minute="17"),
            "options": {"expires": 3600},
        },
    }
