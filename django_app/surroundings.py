"""What a connection's surroundings allow: whether a second connection would see the same database."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper


def under_test() -> bool:
    """Whether Django's test environment is set up in this process."""
    return "outbox" in vars(mail)


def refresh_connections() -> None:
    """Close what this thread holds of Django's connections and must not go on with, but none that is in a transaction.

    Under test all of them: a thread that keeps one keeps its database from being dropped.
    """
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue
        if under_test():
            connection.close()
        else:
            connection.close_if_unusable_or_obsolete()


def is_test_case(connection: BaseDatabaseWrapper) -> bool:
    """Whether a `TestCase` holds the connection, which rolls back whatever is written on it."""
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def is_callers_only(connection: BaseDatabaseWrapper) -> bool:
    """Whether only this very connection sees what it writes: in a `TestCase`, and on SQLite in memory."""
    in_memory: Any = getattr(connection, "is_in_memory_db", None)
    return is_test_case(connection) or (in_memory is not None and bool(in_memory()))


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether what is written on the connection has to be committed by somebody."""
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit
