"""Which tasks have calls, without reading the table."""

from __future__ import annotations

import time
from typing import Final

from django.db import connections

from django_app.models import Call

#: Seconds for which the names are remembered: finding each takes a step in an index.
REMEMBERED: Final = 15.0
#: Names that are looked for.
MOST: Final = 500

_remembered: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}


def known_tasks(alias: str) -> tuple[str, ...]:
    """Return the sorted names of the tasks that have calls, as of the last `REMEMBERED` seconds.

    Not promised: those beyond the first `MOST`.
    """
    database = alias, str(connections[alias].settings_dict["NAME"])
    found = _remembered.get(database)
    if found is None or time.monotonic() - found[0] > REMEMBERED:
        found = time.monotonic(), _look(alias)
        _remembered[database] = found
    return found[1]


def _look(alias: str) -> tuple[str, ...]:
    connection = connections[alias]
    table, column = connection.ops.quote_name(Call._meta.db_table), connection.ops.quote_name("task")
    # One step in the index for each name, as `purge.task_names`, but all of them by one statement.
    sql = (
        f"WITH RECURSIVE named (task) AS (SELECT MIN({column}) FROM {table} UNION ALL "  # noqa: S608 - its own names
        f"SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > named.task) FROM named "
        "WHERE named.task IS NOT NULL) SELECT task FROM named WHERE task IS NOT NULL LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [MOST])
        return tuple(name for (name,) in cursor.fetchall())


def forget() -> None:
    """Look at the table again the next time."""
    _remembered.clear()
