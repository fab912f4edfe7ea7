"""The row of an observed call that is asked for: what every publisher pays for.

One call is one statement that never changes, so PostgreSQL has it prepared, and only what the
message says has to be passed on. Many calls at once are one statement, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW, clock_function
from django_app.stores import many, rows
from django_app.stores.patterns import Gap, Pattern, Remembered
from django_app.stores.tables import Sql, is_duplicate, may_fail
from lrp_celery.core.ids import is_fresh
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Enqueued
from lrp_celery.tracking.steps import new_record

#: What a message says, in columns of the same name.
TOLD: Final = tuple(field.name for field in fields(CallFacts) if field.name != "enqueued_at")
TIMES: Final = frozenset({"due_at", "expires_at"})


def is_new(report: Enqueued) -> bool:
    """Whether a row is all there is to make of a call that is asked for, and it counts from now."""
    is_bare = report.turn == Turn() and report.message is None
    return is_bare and report.facts is not None and report.facts.enqueued_at is None


def insert(connection: BaseDatabaseWrapper, report: Enqueued, facts: CallFacts) -> bool:
    """Insert the row of a call, unless its id has one; return whether it was inserted."""
    if not is_new(report) or clock_function(connection) is None:
        return rows.calls.insert(connection, rows.call_values(new_record(report, facts, NOW)))
    kind = connection.vendor, is_fresh(report.call_id) and may_fail(connection)
    pattern = _patterns.of(kind, lambda: _pattern(connection, unless_known=not kind[1]))
    known = dict(zip(TOLD, _told(facts), strict=True))
    known["call_id"] = report.call_id
    for name in TIMES:
        if known[name] is not None:
            known[name] = connection.ops.adapt_datetimefield_value(known[name])
    return rows.calls.inserted(connection, pattern.statement, pattern.filled(known))


def insert_many(connection: BaseDatabaseWrapper, reports: Sequence[Enqueued]) -> None:
    """Insert the rows of calls that are made now, each of which has its facts, unless their ids have rows."""
    told = [dict(zip(TOLD, _told(report.facts), strict=True), call_id=report.call_id) for report in reports]
    if may_fail(connection) and all(is_fresh(report.call_id) for report in reports):
        try:
            many.insert(connection, rows.calls, told, _as_made(), unless_known=False)
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
        else:
            return
    many.insert(connection, rows.calls, told, _as_made())


def _as_made() -> dict[str, Any]:
    """Return the row of a call of which nothing is known yet."""
    facts = CallFacts(task="")
    return rows.call_values(new_record(Enqueued(call_id="", facts=facts), facts, NOW))


_told: Final = attrgetter(*TOLD)
#: By database, and by whether a key that exists makes it fail.
_patterns: Final[Remembered[Pattern]] = Remembered()


def _pattern(connection: BaseDatabaseWrapper, *, unless_known: bool) -> Pattern:
    # Said as a parameter also where it is None: so there is one statement, whatever a message says.
    named = {name: Sql("%s", [Gap(name)]) for name in ("call_id", *TOLD)}
    return Pattern(*rows.calls.insertion(connection, {**_as_made(), **named}, unless_known=unless_known))
