"""The rows of calls, seen as the items of a seed 000 `Store` (RULES 33)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lrp_celery.core import codec
from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import CallAborted, CallDiscarded, CallTimedOut
from lrp_celery.core.text import dotted_name
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.stores import Item, Pending, Rejected, Resolved
from lrp_celery.tracking.callstore import OwningStore, Payload
from lrp_celery.tracking.items import Put
from lrp_celery.tracking.owned import Settlement
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import ErrorFacts, Outcome
from lrp_celery.tracking.status import CallStatus, Reason

#: The task that rows name which are made here.
ITEM: Final = "lrp_celery.item"
_ENDS: Final = {
    dotted_name(CallAborted): (CallStatus.ABORTED, Reason.ABORTED),
    dotted_name(CallTimedOut): (CallStatus.ABORTED, Reason.TIMEOUT),
    dotted_name(CallDiscarded): (CallStatus.DISCARDED, None),
}


class RowStore:
    """A `Store` that is a view of owned calls' rows: the calls of procedures are its items, too.

    What is set is a row without a message: nobody claims or sends it. `set` over an item that
    has settled removes that call and makes a new one. `delete` of a pending item ends it as
    ABORTED first. A pending item past its time ends by itself, wherever procedures of `app` are
    looked after, and at the next `get`. Observed calls are no items, but their ids are taken.
    """

    def __init__(self, calls: OwningStore, *, app: str | None = None) -> None:
        self._calls = calls
        self._app = app

    def set(self, id: str, item: Item, ttl: timedelta | float | None = None) -> None:  # noqa: A002 - see Store
        """Keep `item`, in place of the one that was there."""
        live = seconds(ttl, "ttl")
        self._calls.put(Put(call_id=id, task=ITEM, app=self._app, settlement=_settlement(item), live=live))

    def get(self, id: str) -> Item | None:  # noqa: A002 - see Store
        """Return the item, or None."""
        found = self._calls.look_with_result(id)
        if found is not None and found[0].status.is_open:
            # Whoever reads ends what is overdue: nobody else may be there to do it.
            self._calls.attend(id)
            found = self._calls.look_with_result(id)
        if found is None or not found[0].owned:
            return None
        record, payload = found
        return Pending() if record.status.is_open else _ended(record, payload)

    def delete(self, id: str) -> None:  # noqa: A002 - see Store
        """Forget the item."""
        self._calls.take_out(id)


def _settlement(item: Item) -> Settlement | None:
    match item:
        case Resolved(value):
            return Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result=codec.dumps(codec.encode(value)))
        case Rejected(error):
            status, reason = _ENDS.get(error.type or "", (CallStatus.FAILED, None))
            facts = ErrorFacts(type=error.type, message=error.message, traceback=error.traceback)
            return Settlement(outcome=Outcome(status=status, reason=reason, error=facts), error=error.to_json())
    return None


def _ended(record: CallRecord, payload: Payload) -> Item:
    if record.status is CallStatus.SUCCEEDED:
        return Resolved(None if payload.result is None else codec.decode(codec.loads(payload.result)))
    kept = StoredError.from_json(payload.error)
    if record.status in {CallStatus.FAILED, CallStatus.PARKED}:
        return Rejected(kept or StoredError(type=record.error_type, message=record.last_error))
    if kept is not None and kept.type in _ENDS:
        return Rejected(kept)
    return Rejected(_not_run(record))


def _not_run(record: CallRecord) -> StoredError:
    """Return the error of a call that was ended from outside."""
    if record.status is CallStatus.DISCARDED:
        return StoredError(type=dotted_name(CallDiscarded), message=record.last_error)
    kind = CallTimedOut if record.reason is Reason.TIMEOUT else CallAborted
    return StoredError(type=dotted_name(kind), message=record.abort_reason)
