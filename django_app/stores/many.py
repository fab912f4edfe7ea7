"""Many rows by one statement.

What all of them have in common is said once where the database can: a batch of calls differs
in few of its columns. PostgreSQL gets those as arrays, so its statement is the same for any
number of rows; the others get the rows one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.executing import execute
from django_app.stores.tables import Sql, Table, said

Rows = Sequence[Mapping[str, Any]]


def insert(
    connection: BaseDatabaseWrapper,
    table: Table,
    rows: Rows,
    common: Mapping[str, Any] | None = None,
    *,
    unless_known: bool = True,
) -> None:
    """Insert rows with the same columns, and with the `common` values, unless their keys exist.

    What is not named gets its default. Not `unless_known`: if a key exists, an `IntegrityError`.
    """
    for some in _portions(connection, rows, common or {}):
        execute(connection, *_insertion(connection, table, some, common or {}, unless_known=unless_known))


def insert_absent(connection: BaseDatabaseWrapper, table: Table, rows: Rows) -> set[Any]:
    """Insert rows likewise, with keys that differ; return the keys of those that were inserted."""
    inserted: set[Any] = set()
    for some in _portions(connection, rows, {}):
        inserted |= _inserted(connection, table, some)
    return inserted


def _inserted(connection: BaseDatabaseWrapper, table: Table, rows: Rows) -> set[Any]:
    if connection.features.can_return_rows_from_bulk_insert and connection.vendor != "mysql":
        statement, params = _insertion(connection, table, rows, {}, unless_known=True)
        return {key for (key,) in execute(connection, f"{statement} RETURNING {table.key(connection)}", params)}
    # Only a statement that refuses what exists tells of it there; it is undone as a whole.
    known = {key for (key,) in table.find_any(connection, [row[table.key_name] for row in rows], [table.key_name])}
    absent = [row for row in rows if row[table.key_name] not in known]
    try:
        if absent:
            execute(connection, *_insertion(connection, table, absent, {}, unless_known=False))
    except IntegrityError:
        # Somebody was faster.
        absent = [row for row in absent if table.insert(connection, row)]
    return {row[table.key_name] for row in absent}


def _insertion(
    connection: BaseDatabaseWrapper, table: Table, rows: Rows, common: Mapping[str, Any], *, unless_known: bool
) -> tuple[str, list[Any]]:
    written = _from_arrays if connection.vendor == "postgresql" else _one_after_the_other
    statement, params = written(connection, table, rows, common)
    if not unless_known:
        return statement, params
    if connection.vendor == "mysql":
        key = table.key(connection)
        return f"{statement} ON DUPLICATE KEY UPDATE {key} = {table.quoted(connection)}.{key}", params
    return f"{statement} ON CONFLICT DO NOTHING", params


def _one_after_the_other(
    connection: BaseDatabaseWrapper, table: Table, rows: Rows, common: Mapping[str, Any]
) -> tuple[str, list[Any]]:
    texts, params = [], []
    for row in rows:
        text, more = said(connection, table.full({**common, **row}).values())
        texts.append(f"({', '.join(text)})")
        params += more
    return f"{table.head(connection)} VALUES {', '.join(texts)}", params


def _from_arrays(
    connection: BaseDatabaseWrapper, table: Table, rows: Rows, common: Mapping[str, Any]
) -> tuple[str, list[Any]]:
    differing = {name: f"c{number}" for number, name in enumerate(_differing(rows))}
    places = {name: Sql(f"given.{column}") for name, column in differing.items()}
    texts, params = said(connection, table.full({**common, **rows[0], **places}).values())
    arrays = ", ".join(f"%s::{table.array_type(connection, name)}" for name in differing)
    params += [[row[name] for row in rows] for name in differing]
    source = f" FROM unnest({arrays}) AS given({', '.join(differing.values())})" if differing else ""
    return f"{table.head(connection)} SELECT {', '.join(texts)}{source}", params


def _differing(rows: Rows) -> list[str]:
    """Return the columns in which rows differ. `NOW` is the same in all of them."""
    first = rows[0]
    return [name for name, value in first.items() if any(row[name] != value for row in rows)]


def _portions(connection: BaseDatabaseWrapper, rows: Rows, common: Mapping[str, Any]) -> Iterator[Rows]:
    """Divide rows where a statement may not have so many parameters."""
    if not rows:
        return
    most = connection.features.max_query_params
    if most is None or connection.vendor == "postgresql":
        yield rows
        return
    # None of the columns takes more than one, as none does in the widest row there can be.
    each = max(1, most // len({**common, **rows[0]}))
    for start in range(0, len(rows), each):
        yield rows[start : start + each]
