"""A row and what hangs on it, in one statement: PostgreSQL can do that.

A call is made (row and message), it begins, and it ends (row, result, and news for who waits).
Said one by one these would be transactions of several messages to the server and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW, Moment, as_utc, moment_sql
from django_app.executing import execute
from django_app.stores import rows
from django_app.stores.news import CHANNEL
from django_app.stores.tables import Sql, is_duplicate, may_fail, said
from lrp_celery.core.ids import is_fresh
from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.owned import Delivery, Terms, Timing
from lrp_celery.tracking.record import CallRecord, Turn
from lrp_celery.tracking.reports import CallFacts, RunFacts
from lrp_celery.tracking.status import CallStatus
from lrp_celery.tracking.steps import Merged

#: A row to which nothing has happened since it was made, of a call that may begin at any time.
_AS_MADE: Final = {
    "version": 0,
    "status": CallStatus.SUBMITTED,
    "runs": 0,
    "owned": True,
    "due_at": None,
    "expires_at": None,
    "removed_at": None,
    "remove_when_settled": False,
}
#: What a run has to know of the call that it begins, besides what is true of every row as it was made, and what the claim writes.
_OF_A_RUN: Final = (
    *("enqueued_at", "started_at", "updated_at", "deadline_at", "lease_until", "attend_at", "time_to_live"),
    *("until_removed", "grace", "idempotent", "max_attempts", "keep_result"),
)
#: What a row says that nobody has told anything.
_UNTOLD: Final = CallRecord(call_id="", task="", enqueued_at=NOW, updated_at=NOW).values()
_WITHIN: Final = "GREATEST(enqueued_at, LEAST(%s, CLOCK_TIMESTAMP()))"
#: Only the row knows whether anybody waits. Listeners hear of it when the transaction is committed.
_TELLING: Final = f"CASE WHEN awaited THEN pg_notify('{CHANNEL}', call_id) END"
_IN_TIME: Final = "(deadline_at IS NULL OR deadline_at > CLOCK_TIMESTAMP())"


def is_possible(connection: BaseDatabaseWrapper, merged: Merged) -> bool:
    """Whether one statement says it all."""
    is_more = merged.attempts or merged.lines or merged.forgets_runs or merged.payload == owned.BLANK
    return connection.vendor == "postgresql" and not is_more


def write(connection: BaseDatabaseWrapper, merged: Merged, replaces: CallRecord | None) -> bool:
    """Write the row, if it is still in the version of `replaces`, and with it what hangs on it."""
    return bool(_execute(connection, merged, replaces).rowcount == 1)


def write_row(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord | None) -> bool:
    """Write the row, if it is still in the version of `replaces`; whoever waits for it is told at the commit, if possible."""
    if replaces is None:
        return rows.calls.insert(connection, rows.call_values(record))
    return bool(execute(connection, *_updating(connection, record, replaces)).rowcount == 1)


def place(connection: BaseDatabaseWrapper, fresh: Merged) -> CallRecord | None:
    """Write the row of a new call, whose times count from `NOW`; return it, or None: the id has one.

    Each of its times was read from the clock a little later than the one before, so the row differs by microseconds.
    """
    is_new, told = is_fresh(fresh.record.call_id) and may_fail(connection), "(SELECT updated_at FROM written)"
    try:
        written = _execute(connection, fresh, None, returning=told, is_new=is_new).fetchone()
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        return None
    if written is None:
        return None
    values = fresh.record.values()
    later = {name: value - NOW for name, value in values.items() if isinstance(value, Moment)}
    return CallRecord.of({**values, **{name: as_utc(written[0]) + wait for name, wait in later.items()}})


def claim(connection: BaseDatabaseWrapper, delivery: Delivery, timing: Timing) -> CallRecord | None:
    """Let a delivery begin its call if nothing has happened to that since it was made; return its row.

    None: something has, or nobody can tell so soon, and nothing was written. What is written is what
    the rule makes of a row as it was made; of its own terms only the deadline has a say in it. What is returned
    does not say who made the call, and how: no run asks for that.
    """
    if connection.vendor != "postgresql" or delivery.generation != 0 or delivery.turn != Turn():
        return None
    written = {**_beginning(replace(delivery.run, token="", started_at=None), timing), "run": delivery.run.token}
    values = {**written, "attend_at": _or_at_deadline(connection, written["attend_at"])}
    if delivery.run.started_at is not None:
        values["started_at"] = Sql(_WITHIN, [delivery.run.started_at])
    where = {"call_id": delivery.call_id, **_AS_MADE}
    found = rows.calls.changed(connection, where, values, _OF_A_RUN, only_if=_IN_TIME)
    if found is None:
        return None
    told = dict(zip(_OF_A_RUN, found, strict=True))
    # As every rule returns it: in the version that was written over.
    return CallRecord.of({**_UNTOLD, "task": delivery.facts.task, **where, **written, **told, "version": 0})


@lru_cache(maxsize=64)
def _beginning(run: RunFacts, timing: Timing) -> dict[str, Any]:
    """Return what the rule changes of a row as it was made, which is the same for every call that a process begins."""
    facts = CallFacts(task="")
    before = NOW - timedelta(days=1)
    made = CallRecord(call_id="", task="", owned=True, enqueued_at=before, updated_at=before, send_at=before)
    delivery = Delivery(call_id="", turn=Turn(), generation=0, facts=facts, terms=Terms(), run=run)
    _, answer = owned.claim(made, delivery, NOW, timing)
    return changes(answer.record or made, made)


def _or_at_deadline(connection: BaseDatabaseWrapper, attend_at: datetime) -> Sql:
    moment, params = moment_sql(connection, attend_at - NOW)
    return Sql(f"LEAST(deadline_at, {moment})", params)


def _execute(
    connection: BaseDatabaseWrapper,
    merged: Merged,
    replaces: CallRecord | None,
    *,
    returning: str | None = None,
    is_new: bool = False,
) -> Any:
    """Write the row, and if that was written, what is kept beside it; there is one result for it, or none.

    `is_new`: that there is neither is as good as certain, and else it fails.
    """
    record = merged.record
    if replaces is None:
        statement, params = rows.calls.insertion(connection, rows.call_values(record), unless_known=not is_new)
        statement = f"{statement} RETURNING call_id, updated_at"
    else:
        statement, params = _updating(connection, record, replaces, returning="call_id")
    if merged.payload is not None:
        kept, texts = _keeping(connection, merged.payload, is_new=is_new)
        statement, params = f"WITH written AS ({statement}) {kept}", [*params, *texts]
    return execute(connection, statement if returning is None else f"{statement} RETURNING {returning}", params)


def changes(record: CallRecord, replaces: CallRecord) -> dict[str, Any]:
    """Return the columns that differ, with the next version."""
    before, after = rows.call_values(replaces), rows.call_values(replace(record, version=replaces.version + 1))
    changed = {name: value for name, value in after.items() if value != before[name]}
    # Given to a new call, the row has something to be counted again.
    return {**changed, "counted_at": None} if "terminal_at" in changed and record.terminal_at is None else changed


def _updating(
    connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord, *, returning: str = ""
) -> tuple[str, list[Any]]:
    """Return the statement that writes the row over that of `replaces`, and tells whoever waits for what it says."""
    unchanged = {"call_id": record.call_id, "version": replaces.version}
    statement, params = rows.calls.updating(connection, unchanged, changes(record, replaces))
    told = [_TELLING] if connection.vendor == "postgresql" and owned.is_news(record) else []
    answers = ", ".join([*filter(None, [returning]), *told])
    return f"{statement} RETURNING {answers}" if answers else statement, params


def _keeping(
    connection: BaseDatabaseWrapper, payload: Mapping[str, str | None], *, is_new: bool
) -> tuple[str, list[Any]]:
    texts, params = said(connection, payload.values())
    news = ", ".join(f"{name} = EXCLUDED.{name}" for name in payload)
    table = rows.payloads.quoted(connection)
    insert = f"INSERT INTO {table} (call_id, {', '.join(payload)}) SELECT call_id, {', '.join(texts)} FROM written"
    return insert if is_new else f"{insert} ON CONFLICT (call_id) DO UPDATE SET {news}", params
