"""Every state that a row ever had, written down by the database itself.

Triggers see each write, whoever makes it and however short-lived it is: what a reader
who polls could miss.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

#: What RULE "terminal never changes" forbids to change; counters of late runs may.
FIXED = (
    "status", "reason", "retries", "attempt", "worker", "pid", "last_error", "error_type", "http_status",
    "enqueued_at", "started_at", "terminal_at",
)  # fmt: skip
#: Of these a removal leaves nothing.
BLANKED = ("last_error", "error_type")
INSTANTS = ("enqueued_at", "started_at", "terminal_at", "removed_at", "abort_requested_at", "deleted_at")
COLUMNS = ("call_id", *FIXED, "stop_reason", "removed_at", "abort_requested_at", "remove_when_settled", "version")
#: Whether the row was made so, and not changed.
IS_NEW = "is_new"

_TABLE = """
CREATE TABLE lrp_test_history (
    seq {serial}, call_id varchar(200) {binary}, status varchar(16), reason varchar(20), retries integer,
    attempt integer, stop_reason varchar(20), worker varchar(255), pid bigint, last_error varchar(2000), error_type varchar(255),
    http_status integer, enqueued_at {instant}, started_at {instant}, terminal_at {instant}, removed_at {instant},
    abort_requested_at {instant}, remove_when_settled boolean, version integer,
    is_new boolean
)
"""
_DELETIONS = """
CREATE TABLE lrp_test_deletions (call_id varchar(200), task varchar(255), terminal_at {instant}, deleted_at {instant})
"""
#: What the database's clock says, if anything later; SQLite's counts thousandths.
_NOW = {
    "postgresql": "clock_timestamp()",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '+0.001 seconds')",
    "mysql": "UTC_TIMESTAMP(6)",
}
_VENDORS = {
    "postgresql": {"serial": "bigserial PRIMARY KEY", "binary": "", "instant": "timestamptz"},
    "sqlite": {"serial": "integer PRIMARY KEY AUTOINCREMENT", "binary": "", "instant": "datetime"},
    "mysql": {
        "serial": "bigint AUTO_INCREMENT PRIMARY KEY",
        "binary": "COLLATE utf8mb4_bin",
        "instant": "datetime(6)",
    },
}


def install(connection: BaseDatabaseWrapper) -> None:
    """Let the database of `connection` keep the history of its calls from now on."""
    names = ", ".join((*COLUMNS, IS_NEW))
    values = ", ".join(f"NEW.{name}" for name in COLUMNS)
    insert = f"INSERT INTO lrp_test_history ({names}) VALUES ({values}, {{is_new}})"
    with connection.cursor() as cursor:
        cursor.execute(_TABLE.format(**_VENDORS[connection.vendor]))
        cursor.execute("CREATE INDEX lrp_test_history_call ON lrp_test_history (call_id)")
        for statement in _triggers(connection.vendor, insert):
            cursor.execute(statement)


def install_deletions(connection: BaseDatabaseWrapper) -> None:
    """Let it keep, too, which of them were deleted, and when."""
    insert = (
        f"INSERT INTO lrp_test_deletions VALUES (OLD.call_id, OLD.task, OLD.terminal_at, {_NOW[connection.vendor]})"
    )
    with connection.cursor() as cursor:
        cursor.execute(_DELETIONS.format(**_VENDORS[connection.vendor]))
        for statement in _trigger(connection.vendor, "lrp_test_deleted", "DELETE", insert):
            # Not as a query with parameters: SQLite's clock has a per cent sign.
            cursor.execute(statement)


def _triggers(vendor: str, insert: str) -> list[str]:
    if vendor == "postgresql":
        return _trigger(vendor, "lrp_test_note", "INSERT OR UPDATE", insert.format(is_new="TG_OP = 'INSERT'"))
    return [
        statement
        for event, is_new in (("INSERT", "TRUE"), ("UPDATE", "FALSE"))
        for statement in _trigger(vendor, f"lrp_test_note_{event}", event, insert.format(is_new=is_new))
    ]


def _trigger(vendor: str, name: str, event: str, insert: str) -> list[str]:
    when = f"CREATE TRIGGER {name} AFTER {event} ON lrp_celery_call FOR EACH ROW"
    if vendor == "postgresql":
        body = f"$$ BEGIN {insert}; RETURN NULL; END $$"
        function = f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body}"
        return [function, f"{when} EXECUTE FUNCTION {name}()"]
    return [f"{when} BEGIN {insert}; END"]


def read(connection: BaseDatabaseWrapper, call_id: str | None = None) -> list[dict[str, Any]]:
    """Return the states of one call, or of all, in the order in which they were written."""
    names = (*COLUMNS, IS_NEW)
    query = f"SELECT {', '.join(names)} FROM lrp_test_history"
    with connection.cursor() as cursor:
        if call_id is None:
            cursor.execute(f"{query} ORDER BY seq")
        else:
            cursor.execute(f"{query} WHERE call_id = %s ORDER BY seq", [call_id])
        return [_state(names, row) for row in cursor.fetchall()]


def deletions(connection: BaseDatabaseWrapper) -> list[dict[str, Any]]:
    """Return the calls that were deleted, and when."""
    names = ("call_id", "task", "terminal_at", "deleted_at")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(names)} FROM lrp_test_deletions")
        return [_state(names, row) for row in cursor.fetchall()]


def _state(names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    values = dict(zip(names, row, strict=True))
    return {name: _instant(value) if name in INSTANTS else value for name, value in values.items()}


def _instant(value: Any) -> datetime | None:
    """Return a point in time: SQLite gives it as text, MySQL without saying that it is in UTC."""
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def changed_after_the_end(states: list[dict[str, Any]]) -> list[str]:
    """Return, in words, each change of a row that was terminal already."""
    ends: dict[str, dict[str, Any]] = {}
    found = []
    for state in states:
        end = ends.get(state["call_id"])
        if end is not None and state["terminal_at"] is None and state["enqueued_at"] > end["terminal_at"]:
            # The call was removed, and its id given to another one.
            del ends[state["call_id"]]
            end = None
        if end is not None:
            fixed = [name for name in FIXED if state["removed_at"] is None or name not in BLANKED]
            changes = [f"{name}: {end[name]!r} -> {state[name]!r}" for name in fixed if end[name] != state[name]]
            if changes:
                found.append(f"{state['call_id']}: {'; '.join(changes)}")
        if state["terminal_at"] is not None:
            ends.setdefault(state["call_id"], state)
    return found


def show(states: list[dict[str, Any]]) -> str:
    """Return states as lines, for a failure's message."""
    return "\n".join(
        f"  v{state['version']} {state['status']} {state['reason'] or ''} retries={state['retries']} "
        f"attempt={state['attempt']} pid={state['pid']} stop={state['stop_reason'] or '-'} {state['error_type'] or ''}"
        for state in states
    )
