"""Telling whoever listens to `call_ended`, at least once for each call that has ended.

Whoever writes an end marks its row, if anybody listens: `tell_at` says from when on somebody is to tell of it. Who
does first moves that moment on, so that others leave it to him, and takes the mark away when the receivers have
returned. If he dies meanwhile, the moment comes, and somebody else tells of it once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import read_clock
from django_app.executing import execute
from django_app.models import Call
from django_app.signals import call_ended
from django_app.stores import locking, rows
from django_app.stores.tables import PRIMARY
from lrp_celery.tracking.record import CallRecord

#: What receivers may take for a few calls before others think that whoever tells is dead.
_PATIENCE: Final = timedelta(seconds=60)
_INDEX: Final = "lrp_call_tell"
_DUE: Final = "tell_at <= %s"


@dataclass(frozen=True, slots=True)
class Taken:
    """Calls that nobody else tells of until then."""

    calls: Sequence[CallRecord]
    until: datetime


def is_heard() -> bool:
    """Whether anybody in this process listens."""
    return call_ended.has_listeners(Call)


def marks(ended_at: datetime) -> dict[str, Any]:
    """Return what else the row says of a call that ends."""
    return {"tell_at": ended_at} if is_heard() else {}


def is_due(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a call to be told of; reads one entry of an index."""
    return bool(rows.calls.find_where(connection, f"{_DUE} LIMIT 1", [_now(connection)], ("call_id",), by=_INDEX))


def take(connection: BaseDatabaseWrapper, limit: int) -> Taken:
    """Take at most so many calls to be told of, those that ended first; inside of a transaction."""
    condition = f"{_DUE} ORDER BY tell_at LIMIT {limit:d}{locking.lock(connection, skip=True)}"
    found = rows.calls.find_where(connection, condition, [_now(connection)], rows.CALL_COLUMNS, by=_INDEX)
    return _taken(connection, list(map(rows.call_record, found)))


def take_one(connection: BaseDatabaseWrapper, call_id: str) -> Taken:
    """Take this call, if it is to be told of; inside of a transaction."""
    lock = locking.lock(connection)
    key = rows.calls.key(connection)
    condition, params = f"{key} = %s AND {_DUE}{lock}", [call_id, _now(connection)]
    found = rows.calls.find_where(connection, condition, params, rows.CALL_COLUMNS, by=PRIMARY)
    return _taken(connection, list(map(rows.call_record, found)))


def tell(record: CallRecord) -> None:
    """Tell of a call. What receivers raise Django logs."""
    call_ended.send_robust(sender=Call, snapshot=record.snapshot())


def told(connection: BaseDatabaseWrapper, taken: Taken) -> None:
    """Note that these calls were told of, unless somebody else has taken them meanwhile, or they have ended anew."""
    _set(connection, taken.calls, None, only_if="tell_at = %s", params=[_said(connection, taken.until)])


def _taken(connection: BaseDatabaseWrapper, calls: Sequence[CallRecord]) -> Taken:
    until = read_clock(connection) + _PATIENCE
    _set(connection, calls, _said(connection, until), only_if="tell_at IS NOT NULL", params=[])
    return Taken(calls, until)


def _set(
    connection: BaseDatabaseWrapper, calls: Sequence[CallRecord], tell_at: Any, *, only_if: str, params: Sequence[Any]
) -> None:
    update = f"UPDATE {rows.calls.quoted(connection)} SET tell_at = %s WHERE {only_if}"
    for condition, keys in rows.calls.any_of(connection, [record.call_id for record in calls]) if calls else ():
        execute(connection, f"{update} AND {condition}", [tell_at, *params, *keys])


def _now(connection: BaseDatabaseWrapper) -> Any:
    # Read before: on PostgreSQL the clock is volatile, and no index serves a comparison with it.
    return _said(connection, read_clock(connection))


def _said(connection: BaseDatabaseWrapper, instant: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(instant)
