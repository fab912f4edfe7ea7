"""The database's clock: what instants are compared by, whichever host asks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Func

_BY_VENDOR: Final = {"postgresql": "CLOCK_TIMESTAMP()", "mysql": "UTC_TIMESTAMP(6)"}


class DatabaseNow(Func):
    """This very moment by the database, in UTC.

    Django's `Now()` would not do: on PostgreSQL it is the start of the transaction. SQLite
    has no clock but the host's, which Python reads to the microsecond.
    """

    output_field = DateTimeField()

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper, *args: Any, **extra: Any) -> tuple[str, Any]:
        """Return the vendor's expression."""
        function = _BY_VENDOR.get(connection.vendor)
        if function is not None:
            return function, []
        return "%s", [connection.ops.adapt_datetimefield_value(datetime.now(UTC))]


def read_clock(connection: BaseDatabaseWrapper) -> datetime:
    """Return the database's time."""
    function = _BY_VENDOR.get(connection.vendor)
    if function is None:
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}")
        return as_utc(cursor.fetchone()[0])


def clock_function(connection: BaseDatabaseWrapper) -> str | None:
    """Return the SQL of this very moment by the database; None: it has no clock but the host's."""
    return _BY_VENDOR.get(connection.vendor)


def as_utc(instant: datetime) -> datetime:
    """Return what a database's clock said, in UTC; without a zone it is meant in UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
