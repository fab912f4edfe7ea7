"""How long calls wait and run, as their rows tell."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from django_app.models import Call
from lrp_celery.tracking.status import CallStatus


class Ended(NamedTuple):
    """A call that has ended: as much of its row as tells how it went."""

    call_id: str
    task: str
    status: str
    error_type: str | None
    attempt: int
    retries: int
    run: str | None
    run_outcome: str | None
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    terminal_at: datetime


def wait_of(call: Call | Ended, now: datetime) -> timedelta | None:
    """Return how long the call waited for its newest run, from the moment it was due; None if that is not known."""
    if call.attempt > 1 or call.retries:
        due = call.due_at
    else:
        due = max(call.enqueued_at, call.due_at) if call.due_at else call.enqueued_at
    began = call.started_at if has_present_run(call) else call.terminal_at or now
    if due is None or began is None or (began < due and call.terminal_at is None):
        return None
    return max(began - due, timedelta(0))


def run_time_of(call: Call | Ended, now: datetime) -> timedelta | None:
    """Return how long the newest run took, or has taken so far; None where there is none."""
    if call.started_at is None or not has_present_run(call):
        return None
    if call.status == CallStatus.STARTED and call.run_outcome is None:
        return max(now - call.started_at, timedelta(0))
    return None if call.terminal_at is None else max(call.terminal_at - call.started_at, timedelta(0))


def has_present_run(call: Call | Ended) -> bool:
    """Whether the row's start, worker and process are those of the turn the row is in."""
    return call.run is not None or call.status in {CallStatus.STARTED, CallStatus.SUCCEEDED}
