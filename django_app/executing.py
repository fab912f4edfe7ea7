"""Running a statement, on whichever connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe


@async_unsafe
def execute(connection: BaseDatabaseWrapper, statement: str, params: Sequence[Any] = ()) -> Any:
    """Run a statement; return its cursor, or what has the same `rowcount`, `fetchone` and `fetchall`.

    On a connection of our own to PostgreSQL without Django's cursor and the driver's around it (see `stores.statements`).
    """
    statements = getattr(connection, "lrp_celery_statements", None)
    if statements is None:
        cursor = connection.cursor()
        cursor.execute(statement, params)
        return cursor
    with connection.wrap_database_errors:
        return statements.execute(statement, params)
