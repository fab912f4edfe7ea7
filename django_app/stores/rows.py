"""Rows and records: what Django's tables hold, and what merging works on.

Statements are compiled by Django for the connection they run on, which need not be one
that Django knows of (see `sessions`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from django.db import IntegrityError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import sql
from django.db.models.constants import OnConflict

from django_app.models import Attempt, Call
from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus, Reason

CALL_COLUMNS: Final = tuple(field.name for field in fields(CallRecord))
ATTEMPT_COLUMNS: Final = tuple(field.name for field in fields(AttemptRecord))
_MYSQL_DUPLICATE: Final = 1062


def select(connection: BaseDatabaseWrapper, queryset: models.QuerySet[Any, Any]) -> list[tuple[Any, ...]]:
    """Run a `values_list` queryset on `connection`."""
    compiler = queryset.query.get_compiler(connection=connection)
    return [tuple(row) for row in compiler.results_iter(tuple_expected=True)]


def insert(connection: BaseDatabaseWrapper, row: models.Model) -> bool:
    """Insert a row unless its key exists; return whether it was inserted."""
    mysql = connection.vendor == "mysql"
    # IGNORE would hide every other fault of the row too on MySQL, so there the duplicate is caught.
    query = sql.InsertQuery(type(row), on_conflict=None if mysql else OnConflict.IGNORE)
    concrete = [field for field in row._meta.concrete_fields if not isinstance(field, models.AutoField)]
    query.insert_values(concrete, [row])
    ((statement, params),) = query.get_compiler(connection=connection).as_sql()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            return bool(cursor.rowcount == 1)
    except IntegrityError as error:
        if mysql and _code(error) == _MYSQL_DUPLICATE:
            return False
        raise


def update(connection: BaseDatabaseWrapper, queryset: models.QuerySet[Any, Any], values: dict[str, Any]) -> int:
    """Update the rows of `queryset`; return how many there were."""
    query: Any = queryset.query.chain(sql.UpdateQuery)
    query.add_update_values(values)
    statement, params = query.get_compiler(connection=connection).as_sql()
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return int(cursor.rowcount)


def call_record(values: tuple[Any, ...]) -> CallRecord:
    """Return the record of a `Call` row's `CALL_COLUMNS`."""
    row = dict(zip(CALL_COLUMNS, values, strict=True))
    row["status"] = CallStatus(row["status"])
    row["reason"] = _or_none(Reason, row["reason"])
    row["stop_reason"] = _or_none(Reason, row["stop_reason"])
    row["run_outcome"] = _or_none(AttemptOutcome, row["run_outcome"])
    row["progress"] = Progress.from_json(row["progress"])
    return CallRecord(**row)


def attempt_record(values: tuple[Any, ...]) -> AttemptRecord:
    """Return the record of an `Attempt` row's `ATTEMPT_COLUMNS`."""
    row = dict(zip(ATTEMPT_COLUMNS, values, strict=True))
    row["outcome"] = _or_none(AttemptOutcome, row["outcome"])
    return AttemptRecord(**row)


def call_values(record: CallRecord) -> dict[str, Any]:
    """Return what a `Call` row holds of `record`."""
    values = {name: getattr(record, name) for name in CALL_COLUMNS}
    values["progress"] = None if record.progress is None else record.progress.to_json()
    return values


def attempt_values(attempt: AttemptRecord) -> dict[str, Any]:
    """Return what an `Attempt` row holds of `attempt`."""
    return {name: getattr(attempt, name) for name in ATTEMPT_COLUMNS}


def new_call(values: dict[str, Any]) -> Call:
    """Return an unsaved `Call` of `values`."""
    return Call(**values)


def new_attempt(call_id: str, values: dict[str, Any]) -> Attempt:
    """Return an unsaved `Attempt` of `values`."""
    return Attempt(call_id=call_id, **values)


def _or_none(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)


def _code(error: IntegrityError) -> object:
    cause = error.__cause__
    return cause.args[0] if cause is not None and cause.args else None
