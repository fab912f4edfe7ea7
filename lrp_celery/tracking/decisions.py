"""What a person decides about a call: that its failure is dealt with, or that its message goes out again."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from lrp_celery.core.values import replace
from lrp_celery.tracking.owned import NOTHING, Changed, Timing, is_held, sent
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.status import CallStatus
from lrp_celery.tracking.steps import Merged

#: The ends that somebody has to deal with.
FAILURES: Final = frozenset({CallStatus.FAILED, CallStatus.PARKED})


def handle(record: CallRecord | None, by: str | None, now: datetime) -> Changed:
    """Note that somebody has dealt with a failure. Not applied: it is none, or somebody has before."""
    if record is None or record.is_absent(now) or record.status not in FAILURES or record.handled_at is not None:
        return NOTHING
    # When it was last heard of stays: nothing has happened to the call itself.
    return Changed(Merged(replace(record, handled_at=now, handled_by=by)), applied=True)


def resend(record: CallRecord | None, now: datetime, timing: Timing) -> Changed:
    """Note that the message of a call that nobody has claimed goes out now, whatever the relay thinks of its queue.

    Not applied: it is not ours, has ended, a run holds it, or it is not due yet.
    """
    if record is None or not record.owned or record.is_absent(now) or record.status.is_terminal or is_held(record):
        return NOTHING
    if record.due_at is not None and record.due_at > now:
        return NOTHING
    return Changed(sent(record, now, timing), applied=True)
