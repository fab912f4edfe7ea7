"""Rows and records: what Django's tables hold, and what merging works on.

Statements are compiled by Django for the connection they run on, which need not be one
that Django knows of (see `sessions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db import Error, InterfaceError, OperationalError, models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.executing import execute
from django_app.models import Attempt, Call, LogLine, Payload, Worker
from django_app.stores.tables import Table, codes
from django_app.surroundings import is_in_transaction
from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus, Reason

T = TypeVar("T")

CALL_COLUMNS: Final = tuple(field.name for field in fields(CallRecord))
ATTEMPT_COLUMNS: Final = tuple(field.name for field in fields(AttemptRecord))
#: A snapshot that is out of date, a deadlock: as PostgreSQL and as MySQL call them.
_CONFLICTS: Final = frozenset({"40001", "40P01", 1020, 1213})
#: So often it is tried again.
_MOST_CONFLICTS: Final = 5
#: A lock that was not got in time.
_HELD: Final = frozenset({"55P03", 1205})
_OUTDATED: Final = "0A000"
#: No writes for now (a server that has become a standby), no such table or column (yet), no right to it.
_CLOSED: Final = frozenset({"25006", "3F000", "42501", "42703", "42P01", 1146})
#: A text that the table cannot hold, a key that is too long: what drivers say as they say that a server is gone.
_UNFIT: Final = frozenset({"54000", "54001", 1292, 1366})


calls: Final = Table(Call)
attempts: Final = Table(Attempt)
payloads: Final = Table(Payload)
log_lines: Final = Table(LogLine)
workers: Final = Table(Worker)


def select(connection: BaseDatabaseWrapper, queryset: models.QuerySet[Any, Any]) -> list[tuple[Any, ...]]:
    """Run a `values_list` queryset on `connection`."""
    compiler = queryset.query.get_compiler(connection=connection)
    try:
        found = execute(connection, *compiler.as_sql()).fetchall()
    except EmptyResultSet:
        return []
    return [tuple(row) for row in compiler.results_iter(results=[found], tuple_expected=True)]


def call_record(values: tuple[Any, ...]) -> CallRecord:
    """Return the record of a `Call` row's `CALL_COLUMNS`."""
    row = dict(zip(CALL_COLUMNS, values, strict=True))
    row["status"] = CallStatus(row["status"])
    row["reason"] = _or_none(Reason, row["reason"])
    row["stop_reason"] = _or_none(Reason, row["stop_reason"])
    row["run_outcome"] = _or_none(AttemptOutcome, row["run_outcome"])
    row["progress"] = Progress.from_json(row["progress"])
    return CallRecord.of(row)


def attempt_record(values: tuple[Any, ...]) -> AttemptRecord:
    """Return the record of an `Attempt` row's `ATTEMPT_COLUMNS`."""
    row = dict(zip(ATTEMPT_COLUMNS, values, strict=True))
    row["outcome"] = _or_none(AttemptOutcome, row["outcome"])
    return AttemptRecord(**row)


def call_values(record: CallRecord) -> dict[str, Any]:
    """Return what a `Call` row holds of `record`."""
    values = record.values()
    values["progress"] = None if record.progress is None else record.progress.to_json()
    return values


def attempt_values(attempt: AttemptRecord) -> dict[str, Any]:
    """Return what an `Attempt` row holds of `attempt`."""
    return {name: getattr(attempt, name) for name in ATTEMPT_COLUMNS}


def insist(connection: BaseDatabaseWrapper, work: Callable[..., T], *args: Any) -> T:
    """Run `work(connection, *args)`; again if the database took it back only because another transaction was faster.

    Not inside of somebody's transaction: then it is his that was taken back.
    """
    for _ in range(_MOST_CONFLICTS):
        try:
            return work(connection, *args)
        except Error as error:
            if not is_conflict(error) or is_in_transaction(connection):
                raise
    return work(connection, *args)


def is_conflict(error: Error) -> bool:
    """Whether the database refused a write only because another transaction was faster."""
    return bool(codes(error) & _CONFLICTS)


def is_held_up(error: Error) -> bool:
    """Whether a write failed only because others hold the rows, or were faster."""
    return bool(codes(error) & (_CONFLICTS | _HELD))


def is_away(error: Error) -> bool:
    """Whether a failure says nothing of what was to be read or written: the same may well succeed later."""
    found = codes(error)
    if found & (_CONFLICTS | _UNFIT):
        return False
    return isinstance(error, OperationalError | InterfaceError) or bool(found & _CLOSED)


def is_silence(error: Error) -> bool:
    """Whether the database did not answer in time: what was said may be done all the same, and must not be said again."""
    return getattr(error.__cause__, "is_silence", False)


def is_outdated(error: Error) -> bool:
    """Whether a statement that was prepared does not fit its table any more: a migration has changed it; nothing ran."""
    return getattr(error.__cause__, "sqlstate", None) == _OUTDATED


def _or_none(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)
