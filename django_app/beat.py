"""What beat should run."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab


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
