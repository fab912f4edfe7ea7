"""Rows written as the items of seed 000's `Store`: put in, replaced and taken out, with no message and no run.

Pure, like `owned`. The product itself writes no row so: its calls are claimed and settled by
their runs. A row that a run holds is taken from it, and the run's own outcome is refused then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.owned import Order, Settlement, Terms, Timing
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import CallFacts, Outcome
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import Merged

_TAKEN_OUT: Final = Settlement(outcome=Outcome(status=CallStatus.ABORTED, reason=Reason.ABORTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """An item that is put in. `settlement` None: it is pending; `live`: for how many seconds, None: until it is deleted."""

    call_id: str
    task: str
    app: str | None
    settlement: Settlement | None
    live: float | None


def put(record: CallRecord | None, item: Put, now: datetime, timing: Timing) -> Merged:
    """Let the row say what the item says; one that has ended makes room for a new call with its id."""
    placed = _placed(record, item, now, timing)
    if item.settlement is None:
        # Once its time is over it ends by its deadline, and with that it is gone.
        deadline = None if item.live is None else now + timedelta(seconds=item.live)
        waiting = replace(placed.record, deadline_at=deadline, remove_when_settled=deadline is not None)
        return replace(placed, record=owned.attended(replace(waiting, updated_at=now)))
    settled = replace(
        placed.record,
        time_to_live=item.live,
        until_removed=item.live is None,
        remove_when_settled=False,
        keep_result=True,
    )
    ended = owned.impose(settled, item.settlement, now)
    return replace(
        ended, payload={**(placed.payload or {}), **(ended.payload or {})} or None, forgets_runs=placed.forgets_runs
    )


def take_out(record: CallRecord | None, now: datetime) -> Merged | None:
    """Let the row read as absent, whatever it says; None: it does."""
    if record is None or record.removed_at is not None:
        return None
    if record.status.is_terminal:
        return owned.remove(record, now, when_settled=False).merged
    return owned.impose(replace(record, remove_when_settled=True), _TAKEN_OUT, now)


def _placed(record: CallRecord | None, item: Put, now: datetime, timing: Timing) -> Merged:
    if record is not None and record.status.is_open and record.removed_at is None:
        return Merged(record)
    gone = record and replace(record, removed_at=record.removed_at or now)
    order = Order(call_id=item.call_id, facts=CallFacts(task=item.task), terms=Terms(app=item.app), message=None)
    placed = owned.place(gone, order, now, timing)
    if placed is None:
        raise AssertionError("A row that is gone makes room for another.")
    # There is no message that could be sent.
    return replace(placed, record=replace(placed.record, send_at=None, published_at=None))
