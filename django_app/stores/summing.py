"""Counting on PostgreSQL, where the statement that changes many calls also sums them up, so that not one of them is read.

What it makes of a row is what `sums.Sums.add` makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import as_utc
from django_app.executing import execute
from django_app.histogram import LAST, LEAST, STEPS
from django_app.models import FAILED_VALUES
from django_app.stores import rows
from django_app.stores.sums import Key, Sums
from django_app.stores.tables import Table, array_literal

_RAN: Final = "call.started_at IS NOT NULL AND (call.run IS NOT NULL OR call.status = 'succeeded')"
_DUE: Final = (
    "CASE WHEN call.attempt > 1 OR call.retries > 0 THEN call.due_at ELSE GREATEST(call.enqueued_at, call.due_at) END"
)
_FAILED: Final = ", ".join(f"'{status}'" for status in FAILED_VALUES)
_RETURNED: Final = (
    *("call.call_id", "DATE_TRUNC('hour', call.terminal_at, 'UTC') AS hour", "call.task", "call.status"),
    f"CASE WHEN call.status IN ({_FAILED}) THEN COALESCE(call.error_type, '') ELSE '' END AS error_type",
    f"CASE WHEN {_RAN} THEN EXTRACT(EPOCH FROM call.started_at - ({_DUE}))::double precision END AS waited",
    f"CASE WHEN {_RAN} THEN EXTRACT(EPOCH FROM call.terminal_at - call.started_at)::double precision END AS ran",
)
#: What a statement that changes the table `call` sets, so that its rows are marked as counted.
MARK: Final = "counted_at = CLOCK_TIMESTAMP()"


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database is PostgreSQL."""
    return connection.vendor == "postgresql"


def mark(connection: BaseDatabaseWrapper, condition: str, params: Sequence[Any], sums: dict[Key, Sums]) -> list[str]:
    """Mark the calls of which a condition in SQL holds as counted, add them to the sums, and return them.

    After the condition may stand in what order, how many and how locked; they have all ended.
    """
    return run(connection, _marking(rows.calls.quoted(connection), condition), params, sums)


def run(connection: BaseDatabaseWrapper, statement: str, params: Sequence[Any], sums: dict[Key, Sums]) -> list[str]:
    """Run what `summing_up` returned, add the calls that it has marked to the sums, and return them."""
    calls: list[str] = []
    for hour, task, status, error_type, waited, ran, call_ids in execute(connection, statement, params).fetchall():
        more, number = sums.setdefault(Key(as_utc(hour), task, status, error_type), Sums()), len(call_ids)
        more.calls += number
        for histogram, size in ((more.waits, waited), (more.runs, ran)):
            if size is not None:
                histogram.count(size, number)
        calls += call_ids
    return calls


def summing_up(update: str, before: str = "") -> str:
    """Return the statement that does an update of the table `call`, which sets `MARK`, and sums up what it has changed.

    All rows that it changes have ended by it, or before. `before`: what stands before it in its WITH.
    """
    return (
        f"WITH {before}counted AS ({update} RETURNING {', '.join(_RETURNED)}) "
        f"SELECT hour, task, status, error_type, {_size('waited')}, {_size('ran')}, ARRAY_AGG(call_id) FROM counted "
        "GROUP BY 1, 2, 3, 4, 5, 6"
    )


def write(connection: BaseDatabaseWrapper, table: Table, news: Mapping[str, Sums]) -> None:
    """Write new sums over those of these keys."""
    columns = zip(*((key, *sums.values().values()) for key, sums in news.items()), strict=True)
    statement = (
        f"UPDATE {table.quoted(connection)} AS rollup SET calls = news.calls, waits = news.waits, runs = news.runs "
        "FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[]) AS news(key, calls, waits, runs) "
        "WHERE rollup.key = news.key"
    )
    if news:
        execute(connection, statement, [array_literal(column) for column in columns])


@lru_cache(maxsize=32)
def _marking(table: str, condition: str) -> str:
    taken = f"taken AS (SELECT call_id FROM {table} WHERE {condition}), "
    return summing_up(f"UPDATE {table} AS call SET {MARK} FROM taken WHERE call.call_id = taken.call_id", taken)


def _size(length: str) -> str:
    """Return the place of so many seconds on the scale of `Histogram`, in SQL."""
    least = LEAST.total_seconds()
    place = f"FLOOR(LN({length} / {least}) / LN(2.0::double precision) * {STEPS})::integer + 1"
    # To LEAST, nothing is more than anything.
    return f"CASE WHEN {length} IS NULL THEN NULL WHEN {length} < {least} THEN 0 ELSE LEAST({place}, {LAST}) END"
