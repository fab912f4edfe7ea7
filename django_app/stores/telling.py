"""Telling whoever listens to `call_ended`, at least once for each call that has ended.

Whoever writes an end marks its row, if anybody listens: `tell_at` says from when on somebody is to tell of it. Who
does first moves that moment on, so that others leave it to him, and takes the mark away when the receivers have
returned. If he dies meanwhile, or they take very long, the moment comes, and somebody else tells of it once more.
One call at a time: whatever goes wrong with it, the others have nothing to do with it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import read_clock
from django_app.models import Call
from django_app.signals import call_ended
from django_app.stores import locking, rows
from django_app.stores.tables import PRIMARY
from lrp_celery.tracking.record import CallRecord

#: What receivers may take for a call before others think that whoever tells is dead: at least, and at most.
_LEAST: Final = timedelta(seconds=60)
_MOST: Final = timedelta(hours=1)
#: An end may be dated a little ahead of the database's clock: its run reckons the time.
_AHEAD: Final = timedelta(seconds=30)
_INDEX: Final = "lrp_call_tell"
_DUE: Final = "tell_at <= %s"
#: In order also where one will do: else PostgreSQL reads the table, as long as it does not know that few are marked.
_FIRST: Final = f"{_DUE} ORDER BY tell_at LIMIT 1"


def is_heard() -> bool:
    """Whether anybody in this process listens."""
    return call_ended.has_listeners(Call)


def marks(ended_at: datetime) -> dict[str, Any]:
    """Return what else the row says of a call that ends."""
    return {"tell_at": ended_at} if is_heard() else {}


def is_due(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a call to be told of; reads one entry of an index."""
    # The clock is read before: on PostgreSQL it is volatile, and no index serves a comparison with it.
    now = connection.ops.adapt_datetimefield_value(read_clock(connection))
    return bool(rows.calls.find_where(connection, _FIRST, [now], ("call_id",), by=_INDEX))


def take(connection: BaseDatabaseWrapper) -> CallRecord | None:
    """Take the call that has been waiting for the longest time; None: others have. Inside of a transaction."""
    now = read_clock(connection)
    condition = f"{_FIRST}{locking.lock(connection, skip=True)}"
    return _taken(connection, condition, [connection.ops.adapt_datetimefield_value(now)], now, by=_INDEX)


def take_one(connection: BaseDatabaseWrapper, call_id: str) -> CallRecord | None:
    """Take this call, which has just ended; None: others have. Inside of a transaction."""
    now = read_clock(connection)
    condition = f"{rows.calls.key(connection)} = %s AND {_DUE}{locking.lock(connection)}"
    params = [call_id, connection.ops.adapt_datetimefield_value(now + _AHEAD)]
    return _taken(connection, condition, params, now, by=PRIMARY)


def tell(record: CallRecord) -> None:
    """Tell of a call; what receivers raise is logged."""
    call_ended.send_robust(sender=Call, snapshot=record.snapshot())


def told(connection: BaseDatabaseWrapper, record: CallRecord) -> None:
    """Note that a call was told of, whoever has taken it meanwhile; but not if its id has passed to one that ended since."""
    ended_so = {"call_id": record.call_id, "terminal_at": record.terminal_at}
    rows.calls.update(connection, ended_so, {"tell_at": None})


def _taken(
    connection: BaseDatabaseWrapper, condition: str, params: list[Any], now: datetime, *, by: str
) -> CallRecord | None:
    found = rows.calls.find_where(connection, condition, params, rows.CALL_COLUMNS, by=by)
    if not found:
        return None
    record = rows.call_record(found[0])
    if record.terminal_at is None:
        # An earlier release gave the id to a new call, and knew of no mark.
        told(connection, record)
        return None
    # What has been waiting for long was probably tried before, in vain: it is tried less and less often.
    until = now + min(max(now - record.terminal_at, _LEAST), _MOST)
    rows.calls.update(connection, {"call_id": record.call_id}, {"tell_at": until})
    return record
