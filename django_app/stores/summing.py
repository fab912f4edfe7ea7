"""Counting on PostgreSQL, where one statement marks many calls and sums them up, so that not one of them is read.

What it makes of a row is what `sums.Sums.add` makes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import as_utc
from django_app.histogram import LAST, LEAST, STEPS
from django_app.models import FAILED_VALUES
from django_app.stores import rows
from django_app.stores.sums import Key, Sums
from django_app.stores.tables import Table, array_literal, execute

_RAN: Final = "started_at IS NOT NULL AND (run IS NOT NULL OR status = 'succeeded')"
_DUE: Final = "CASE WHEN attempt > 1 OR retries > 0 THEN due_at ELSE GREATEST(enqueued_at, due_at) END"
_FAILED: Final = ", ".join(f"'{status}'" for status in FAILED_VALUES)
_RETURNED: Final = (
    *("DATE_TRUNC('hour', terminal_at, 'UTC') AS hour", "task", "status"),
    f"CASE WHEN status IN ({_FAILED}) THEN COALESCE(error_type, '') ELSE '' END AS error_type",
    f"CASE WHEN {_RAN} THEN EXTRACT(EPOCH FROM started_at - ({_DUE}))::double precision END AS waited",
    f"CASE WHEN {_RAN} THEN EXTRACT(EPOCH FROM terminal_at - started_at)::double precision END AS ran",
)


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database is PostgreSQL."""
    return connection.vendor == "postgresql"


def mark(connection: BaseDatabaseWrapper, condition: str, params: Sequence[Any]) -> tuple[int, Mapping[Key, Sums]]:
    """Mark the calls of which a condition in SQL holds as counted, and return how many they are, and their sums.

    After the condition may stand in what order, how many and how locked; they have all ended.
    """
    sums: dict[Key, Sums] = defaultdict(Sums)
    total = 0
    statement = _statement(rows.calls.quoted(connection), condition)
    for hour, task, status, error_type, waited, ran, calls in execute(connection, statement, params).fetchall():
        each = sums[Key(as_utc(hour), task, status, error_type)]
        each.calls += calls
        for histogram, size in ((each.waits, waited), (each.runs, ran)):
            if size is not None:
                histogram.count(size, calls)
        total += calls
    return total, sums


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
def _statement(table: str, condition: str) -> str:
    return (
        f"WITH taken AS (SELECT call_id FROM {table} WHERE {condition}), counted AS ("
        f"UPDATE {table} AS call SET counted_at = CLOCK_TIMESTAMP() FROM taken WHERE call.call_id = taken.call_id "
        f"RETURNING {', '.join(_RETURNED)}) "
        f"SELECT hour, task, status, error_type, {_size('waited')}, {_size('ran')}, COUNT(*) FROM counted "
        "GROUP BY 1, 2, 3, 4, 5, 6"
    )


def _size(length: str) -> str:
    """Return the place of so many seconds on the scale of `Histogram`, in SQL."""
    least = LEAST.total_seconds()
    place = f"FLOOR(LN({length} / {least}) / LN(2.0::double precision) * {STEPS})::integer + 1"
    # To LEAST, nothing is more than anything.
    return f"CASE WHEN {length} IS NULL THEN NULL WHEN {length} < {least} THEN 0 ELSE LEAST({place}, {LAST}) END"
