"""The tracking store on Django's models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error, InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import DatabaseNow, read_clock
from django_app.conf import options
from django_app.models import Attempt, Call
from django_app.purge import purge_older_than
from django_app.stores import rows
from django_app.stores.sessions import CallerSession, Session
from lrp_celery.core.errors import StoreError, StoreUnavailable
from lrp_celery.core.text import clean
from lrp_celery.tracking.record import AttemptRecord, CallRecord
from lrp_celery.tracking.reports import CallFacts, Enqueued
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.steps import Merged, new_record
from lrp_celery.tracking.store import Found, MergingStore, require_threshold

P = ParamSpec("P")
T = TypeVar("T")
_LATER: Final = datetime.max.replace(tzinfo=UTC)


class DjangoTrackingStore(MergingStore):
    """A `TrackingStore` in the tables of this app.

    `using` names the database (default: the setting DATABASE). Writes go through Django's
    own connection, so they belong to the caller's transaction where there is one; what the
    signals record does not, it uses `session`. Each write is one conditional statement, and
    runs of their own, where there are any, are written with it or not at all.
    """

    def __init__(self, using: str | None = None, *, session: Session | None = None) -> None:
        self._session = session or CallerSession(using or options().DATABASE)

    def get_status(self, call_id: str) -> CallSnapshot | None:
        """Return the call as it stands, with the moment its retention ends, or None."""
        snapshot = super().get_status(call_id)
        if snapshot is None or snapshot.terminal_at is None or snapshot.purge_at is not None:
            return snapshot
        keep = options().retention.keep(snapshot.task, snapshot.status)
        return snapshot if keep is None else replace(snapshot, purge_at=snapshot.terminal_at + keep)

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in the order they were first heard of."""
        wanted = Attempt.objects.filter(call_id=call_id).order_by("number").values_list(*rows.ATTEMPT_COLUMNS)
        return tuple(map(rows.attempt_record, self._with_connection(rows.select, wanted)))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete rows that ended strictly before `older_than`, in chunks; return how many."""
        threshold = require_threshold(older_than)
        try:
            return purge_older_than(threshold, using=self._session.alias)
        except Error as error:
            raise self._failure(error) from error

    def _now(self) -> datetime:
        return self._with_connection(self._read_clock)

    def _find(self, call_id: str, run: str | None) -> Found:
        return self._with_connection(self._find_on, call_id, run)

    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        return self._with_connection(self._write_on, merged, replaces)

    def _enqueue(self, report: Enqueued, facts: CallFacts) -> bool:
        # One statement: the database fills in its own time where the record says `_LATER`.
        values = rows.call_values(new_record(report, facts, _LATER))
        filled = {name: DatabaseNow() if value is _LATER else value for name, value in values.items()}
        return self._with_connection(self._insert, filled)

    def _read_clock(self, connection: BaseDatabaseWrapper) -> datetime:
        with self._session.single():
            return read_clock(connection)

    def _find_on(self, connection: BaseDatabaseWrapper, call_id: str, run: str | None) -> Found:
        with self._session.single():
            return _find(connection, call_id, run)

    def _insert(self, connection: BaseDatabaseWrapper, values: dict[str, Any]) -> bool:
        with self._session.single():
            return rows.insert(connection, rows.new_call(values))

    def _write_on(self, connection: BaseDatabaseWrapper, merged: Merged, replaces: CallRecord | None) -> bool:
        with self._session.atomic() if merged.attempts else self._session.single():
            if not _write_call(connection, merged.record, replaces):
                return False
            for attempt in merged.attempts:
                _write_attempt(connection, merged.record.call_id, attempt)
            return True

    def _with_connection(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(connection, *args)`; once more if the connection turns out to have been lost."""
        try:
            try:
                return work(self._session.connection(), *args)
            except (OperationalError, InterfaceError):
                if not self._session.failed():
                    raise
                return work(self._session.connection(), *args)
        except Error as error:
            self._session.failed()
            raise self._failure(error) from error
        except BaseException:
            # A time limit, a shutdown: it may have struck in the middle of a statement.
            self._session.failed()
            raise
        finally:
            self._session.release()

    def _failure(self, error: Error) -> StoreError:
        kind = StoreUnavailable if isinstance(error, OperationalError | InterfaceError) else StoreError
        return kind(f"The database {self._session.alias!r} failed: {_first_line(error)}")

    async def _apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # Thread-sensitive, as Django's own async methods are: the twin sees the caller's transaction.
        return await sync_to_async(work)(*args, **kwargs)


def _find(connection: BaseDatabaseWrapper, call_id: str, run: str | None) -> Found:
    wanted = Call.objects.filter(pk=call_id).order_by().annotate(_now=DatabaseNow())
    found = rows.select(connection, wanted.values_list(*rows.CALL_COLUMNS, "_now"))
    if not found:
        return Found(None, None, read_clock(connection))
    *values, now = found[0]
    record = rows.call_record(tuple(values))
    if run is None or run == record.run or record.runs == 0:
        return Found(record, None, now)
    attempts = Attempt.objects.filter(call_id=call_id, run=run).order_by().values_list(*rows.ATTEMPT_COLUMNS)
    attempt = next(map(rows.attempt_record, rows.select(connection, attempts)), None)
    return Found(record, attempt, now)


def _write_call(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord | None) -> bool:
    if replaces is None:
        return rows.insert(connection, rows.new_call(rows.call_values(record)))
    before, after = rows.call_values(replaces), rows.call_values(replace(record, version=replaces.version + 1))
    changed = {name: value for name, value in after.items() if value != before[name]}
    unchanged = Call.objects.filter(pk=record.call_id, version=replaces.version).order_by()
    return rows.update(connection, unchanged, changed) == 1


def _write_attempt(connection: BaseDatabaseWrapper, call_id: str, attempt: AttemptRecord) -> None:
    values = rows.attempt_values(attempt)
    known = Attempt.objects.filter(call_id=call_id, run=attempt.run).order_by()
    if rows.update(connection, known, values) == 0:
        rows.insert(connection, rows.new_attempt(call_id, values))


def _first_line(error: Error) -> str:
    # The lines after the first may quote the row.
    return clean(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", 300)
