"""A row and what hangs on it, in one statement: PostgreSQL can do that.

A call is made (row and message), it begins, and it ends (row, result, and news for who waits).
Said one by one these would be transactions of several messages to the server and back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW, Moment, as_utc, moment_sql
from django_app.executing import execute
from django_app.stores import rows, telling
from django_app.stores.news import CHANNEL
from django_app.stores.patterns import Gap, Pattern, Remembered
from django_app.stores.tables import Sql, is_duplicate, may_fail, said
from lrp_celery.core.ids import is_fresh
from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.owned import Delivery, Order, Terms, Timing
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
_FIRST: Final = Turn()
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
    return bool(execute(connection, *_saying(connection, merged, replaces)).rowcount == 1)


def write_row(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord | None) -> bool:
    """Write the row, if it is still in the version of `replaces`; whoever waits for it is told at the commit, if possible."""
    if replaces is None:
        return rows.calls.insert(connection, _new_row(record))
    return bool(execute(connection, *_updating(connection, record, replaces)).rowcount == 1)


def place(connection: BaseDatabaseWrapper, order: Order, timing: Timing) -> CallRecord | None:
    """Write the row of a new call, and what is kept beside it; return the row, or None: the id has one.

    Only where `may_place`. Each of the row's times was read from the clock a little later than the one before,
    so what is returned differs by microseconds.
    """
    given = {**vars(order.facts), "call_id": order.call_id, "message": order.message}
    is_new = is_fresh(order.call_id) and may_fail(connection)
    unsaid = tuple(name for name, value in given.items() if value is None)
    key = order.terms, timing, unsaid, is_new
    placing = _placings.of(key, lambda: _Placing.of(connection, order.terms, timing, unsaid, is_new=is_new))
    try:
        written = execute(connection, placing.pattern.statement, placing.pattern.filled(given)).fetchone()
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        return None
    return None if written is None else placing.record(given, as_utc(written[0]))


def may_place(connection: BaseDatabaseWrapper, order: Order) -> bool:
    """Whether `place` can: what is due or expires at a moment of its own is compared with this one, and it keeps a message."""
    is_timeless = order.facts.due_at is None and order.facts.expires_at is None
    return connection.vendor == "postgresql" and is_timeless and order.message is not None


def claim(connection: BaseDatabaseWrapper, delivery: Delivery, timing: Timing) -> CallRecord | None:
    """Let a delivery begin its call if nothing has happened to that since it was made; return its row.

    None: something has, or nobody can tell so soon, and nothing was written. What is written is what
    the rule makes of a row as it was made; of its own terms only the deadline has a say in it. What is returned
    does not say who made the call, and how: no run asks for that.
    """
    if connection.vendor != "postgresql" or delivery.generation != 0 or delivery.turn != _FIRST:
        return None
    run = delivery.run
    key = timing, run.worker, run.pid, run.redelivered, run.acks_late, run.started_at is None
    claiming = _claimings.of(key, lambda: _Claiming.of(connection, run, timing))
    given = {"call_id": delivery.call_id, "run": run.token, "started_at": run.started_at}
    found = execute(connection, claiming.pattern.statement, claiming.pattern.filled(given)).fetchone()
    if found is None:
        return None
    told = dict(zip(_OF_A_RUN, rows.calls.read(connection, found, _OF_A_RUN), strict=True))
    named = {"call_id": delivery.call_id, "task": delivery.facts.task, "run": run.token}
    return CallRecord.of({**claiming.values, **named, **told})


@dataclass(frozen=True, slots=True)
class _Placing:
    """How calls are made that differ but in what their orders say of them."""

    pattern: Pattern
    values: dict[str, Any]
    """What the row says, with gaps."""
    gaps: Sequence[tuple[str, str]]
    later: Sequence[tuple[str, timedelta]]
    """Its times, counted from the moment it is written."""

    @classmethod
    def of(
        cls, connection: BaseDatabaseWrapper, terms: Terms, timing: Timing, unsaid: Collection[str], *, is_new: bool
    ) -> _Placing:
        """Have the rule make the row of a call of which nothing is said but what nobody says."""
        facts: Any = {field.name: None if field.name in unsaid else Gap(field.name) for field in fields(CallFacts)}
        named: Any = {"call_id": Gap("call_id"), "message": Gap("message")}
        fresh = owned.place(None, Order(**named, terms=terms, facts=CallFacts(**facts)), NOW, timing)
        if fresh is None:
            raise AssertionError("A call whose id is new can be made.")
        values = fresh.record.values()
        return cls(
            Pattern(*_saying(connection, fresh, None, returning="(SELECT updated_at FROM written)", is_new=is_new)),
            values,
            [(name, value.name) for name, value in values.items() if isinstance(value, Gap)],
            [(name, value - NOW) for name, value in values.items() if isinstance(value, Moment)],
        )

    def record(self, given: Mapping[str, Any], now: datetime) -> CallRecord:
        """Return the row of a call that was written now."""
        values = dict(self.values)
        for name, gap in self.gaps:
            values[name] = given[gap]
        for name, wait in self.later:
            values[name] = now + wait
        return CallRecord.of(values)


@dataclass(frozen=True, slots=True)
class _Claiming:
    """How calls are claimed that nothing has happened to, by runs that differ but in their tokens and when they begin."""

    pattern: Pattern
    values: dict[str, Any]
    """What the row then says, but for what the statement returns, and names."""

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper, run: RunFacts, timing: Timing) -> _Claiming:
        """Have the rule say what such a run changes of a row as it was made."""
        written = {**_beginning(replace(run, token="", started_at=None), timing), "run": Gap("run")}
        values = {**written, "attend_at": _or_at_deadline(connection, written["attend_at"])}
        if run.started_at is not None:
            values["started_at"] = Sql(_WITHIN, [Gap("started_at")])
        where = {"call_id": Gap("call_id"), **_AS_MADE}
        pattern = Pattern(*rows.calls.changing(connection, where, values, _OF_A_RUN, only_if=_IN_TIME))
        # As every rule returns it: in the version that was written over.
        return cls(pattern, {**_UNTOLD, **_AS_MADE, **written, "version": 0})


_placings: Final[Remembered[_Placing]] = Remembered()
_claimings: Final[Remembered[_Claiming]] = Remembered()


def _beginning(run: RunFacts, timing: Timing) -> dict[str, Any]:
    """Return what the rule changes of a row as it was made."""
    facts = CallFacts(task="")
    before = NOW - timedelta(days=1)
    made = CallRecord(call_id="", task="", owned=True, enqueued_at=before, updated_at=before, send_at=before)
    delivery = Delivery(call_id="", turn=_FIRST, generation=0, facts=facts, terms=Terms(), run=run)
    _, answer = owned.claim(made, delivery, NOW, timing)
    return changes(answer.record or made, made)


def _or_at_deadline(connection: BaseDatabaseWrapper, attend_at: datetime) -> Sql:
    moment, params = moment_sql(connection, attend_at - NOW)
    return Sql(f"LEAST(deadline_at, {moment})", params)


def _saying(
    connection: BaseDatabaseWrapper,
    merged: Merged,
    replaces: CallRecord | None,
    *,
    returning: str | None = None,
    is_new: bool = False,
) -> tuple[str, list[Any]]:
    """Return the statement that writes the row, and if that was written, what is kept beside it.

    There is one result for it, or none. `is_new`: that there is neither is as good as certain, and else it fails.
    """
    record = merged.record
    if replaces is None:
        statement, params = rows.calls.insertion(connection, _new_row(record), unless_known=not is_new)
        statement = f"{statement} RETURNING call_id, updated_at"
    else:
        statement, params = _updating(connection, record, replaces, returning="call_id")
    if merged.payload is not None:
        kept, texts = _keeping(connection, merged.payload, is_new=is_new)
        statement, params = f"WITH written AS ({statement}) {kept}", [*params, *texts]
    return statement if returning is None else f"{statement} RETURNING {returning}", params


def changes(record: CallRecord, replaces: CallRecord) -> dict[str, Any]:
    """Return the columns that differ, with the next version."""
    before, after = rows.call_values(replaces), rows.call_values(replace(record, version=replaces.version + 1))
    changed = {name: value for name, value in after.items() if value != before[name]}
    if "terminal_at" not in changed:
        return changed
    # Given to a new call, the row has something to be counted, and told of, again.
    anew = {"counted_at": None, "tell_at": None}
    return {**changed, **(anew if record.terminal_at is None else telling.marks(record.terminal_at))}


def _new_row(record: CallRecord) -> dict[str, Any]:
    values = rows.call_values(record)
    return values if record.terminal_at is None else {**values, **telling.marks(record.terminal_at)}


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
