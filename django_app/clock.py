"""The database's clock: what instants are compared by, whichever host asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Func

from django_app.executing import execute


class Moment(datetime):
    """An instant that is counted from `NOW`; adding to it makes another one."""


#: Stands for this very moment by the database's clock, in a row that is about to be written, and what is later than
#: it by some time for that much later: so a row of which nothing is known yet is made by one statement.
NOW: Final = Moment(9000, 1, 1, tzinfo=UTC)

_BY_VENDOR: Final = {"postgresql": "CLOCK_TIMESTAMP()", "mysql": "UTC_TIMESTAMP(6)"}


class DatabaseNow(Func):
    """This very moment by the database, in UTC.

    Django's `Now()` would not do: on PostgreSQL it is the start of the transaction. SQLite
    has no clock but the host's, which Python reads to the microsecond.
    """

    output_field = DateTimeField()

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper, *args: Any, **extra: Any) -> tuple[str, Any]:
        """Return the vendor's expression."""
        return moment_sql(connection, timedelta())


def moment_sql(connection: BaseDatabaseWrapper, later: timedelta) -> tuple[str, list[Any]]:
    """Return the SQL of a moment that comes so much later than this one, and its parameters."""
    function = _BY_VENDOR.get(connection.vendor)
    if function is None:
        return "%s", [connection.ops.adapt_datetimefield_value(datetime.now(UTC) + later)]
    if not later:
        return function, []
    if connection.vendor == "mysql":
        return f"{function} + INTERVAL %s MICROSECOND", [later // timedelta(microseconds=1)]
    return f"{function} + %s", [later]


def read_clock(connection: BaseDatabaseWrapper) -> datetime:
    """Return the database's time."""
    function = _BY_VENDOR.get(connection.vendor)
    if function is None:
        return datetime.now(UTC)
    return as_utc(execute(connection, f"SELECT {function}").fetchone()[0])


def clock_function(connection: BaseDatabaseWrapper) -> str | None:
    """Return the SQL of this very moment by the database; None: it has no clock but the host's."""
    return _BY_VENDOR.get(connection.vendor)


def as_utc(instant: datetime) -> datetime:
    """Return what a database's clock said, in UTC; without a zone it is meant in UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
