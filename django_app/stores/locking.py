"""How a statement keeps what it reads from others until the end of its transaction."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.executing import execute
from django_app.stores import rows


def lock(connection: BaseDatabaseWrapper, *, skip: bool = False) -> str:
    """Return what has to stand at the end of a query; `skip`: of rows that others have locked it is silent, if it can be."""
    if connection.features.has_select_for_update:
        can_skip = skip and connection.features.has_select_for_update_skip_locked
        return " FOR UPDATE SKIP LOCKED" if can_skip else " FOR UPDATE"
    # SQLite has one writer, and a transaction that has read may not become it once there was another.
    execute(connection, f"UPDATE {rows.calls.quoted(connection)} SET counted_at = NULL WHERE call_id = ''", [])
    return ""
