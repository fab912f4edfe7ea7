"""A row and what hangs on it, in one statement: PostgreSQL can do that.

A call is made (row and message), and it ends (row, result, and news for who waits). Said
one by one these would be a transaction of five messages to the server and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.stores import rows
from django_app.stores.news import CHANNEL
from lrp_celery.tracking import owned
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.steps import Merged


def is_possible(connection: BaseDatabaseWrapper, merged: Merged) -> bool:
    """Whether one statement says it all."""
    if connection.vendor != "postgresql" or merged.attempts or merged.lines or merged.forgets_runs:
        return False
    return merged.payload != owned.BLANK and (merged.payload is not None or owned.is_news(merged.record))


def may_be_awaited(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord | None) -> bool:
    """Whether somebody may wait for what is about to be written, and can be told. Only the row knows whether he does."""
    return connection.vendor == "postgresql" and replaces is not None and owned.is_news(record)


def announce(connection: BaseDatabaseWrapper, call_id: str) -> None:
    """Tell every listener of a call, if anybody waits for it, when the transaction is committed."""
    with connection.cursor() as cursor:
        table = rows.calls.quoted(connection)
        cursor.execute(f"SELECT pg_notify(%s, call_id) FROM {table} WHERE call_id = %s AND awaited", [CHANNEL, call_id])


def write(connection: BaseDatabaseWrapper, merged: Merged, replaces: CallRecord | None) -> bool:
    """Write the row, if it is still in the version of `replaces`, and with it what hangs on it."""
    statement, params = _row(connection, merged.record, replaces)
    parts, asked = [f"written AS ({statement} RETURNING call_id, awaited)"], ["(SELECT count(*) FROM written)"]
    if merged.payload is not None:
        kept, texts = _payload(connection, merged.payload)
        parts.append(f"kept AS ({kept})")
        params += texts
    if may_be_awaited(connection, merged.record, replaces):
        parts.append("told AS (SELECT pg_notify(%s, call_id) FROM written WHERE awaited)")
        # What nothing asks for is not done.
        asked.append("(SELECT count(*) FROM told)")
        params.append(CHANNEL)
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {', '.join(parts)} SELECT {', '.join(asked)}", params)
        return bool(cursor.fetchone()[0] == 1)


def changes(record: CallRecord, replaces: CallRecord) -> dict[str, Any]:
    """Return the columns that differ, with the next version."""
    before, after = rows.call_values(replaces), rows.call_values(replace(record, version=replaces.version + 1))
    return {name: value for name, value in after.items() if value != before[name]}


def _row(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord | None) -> tuple[str, list[Any]]:
    if replaces is None:
        return rows.calls.insertion(connection, rows.call_values(record))
    unchanged = {"call_id": record.call_id, "version": replaces.version}
    return rows.calls.updating(connection, unchanged, changes(record, replaces))


def _payload(connection: BaseDatabaseWrapper, payload: Mapping[str, str | None]) -> tuple[str, list[Any]]:
    names = ", ".join(payload)
    news = ", ".join(f"{name} = EXCLUDED.{name}" for name in payload)
    places = ", ".join("%s" for _ in payload)
    table = rows.payloads.quoted(connection)
    insert = f"INSERT INTO {table} (call_id, {names}) SELECT call_id, {places} FROM written"
    return f"{insert} ON CONFLICT (call_id) DO UPDATE SET {news}", list(payload.values())
