"""Merging many reports at once: read all rows, decide for each, write those that are still as they were read.

On PostgreSQL the rows that change alike are written by one statement, and those of which only what is usual is told
are not even read; elsewhere one after the other in one transaction, which is what costs most there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import read_clock
from django_app.executing import execute
from django_app.stores import at_once, plainly, rows
from django_app.stores.sessions import Session
from lrp_celery.tracking.folding import by_call, plain_run, runs_of
from lrp_celery.tracking.record import AttemptRecord, CallRecord
from lrp_celery.tracking.reports import Told
from lrp_celery.tracking.steps import Merged

#: How often the rows that somebody else has changed meanwhile are read again before they are left for later.
_PATIENCE: Final = 5

#: Returns what the reports make of a call, by its row, its runs and the time; None: nothing.
Fold = Callable[[CallRecord | None, Mapping[str, AttemptRecord], Sequence[Told], datetime], Merged | None]
#: Writes the row of a new call, or one that replaces another, and what hangs on it; False: somebody was faster.
WriteOne = Callable[[BaseDatabaseWrapper, Merged, CallRecord | None], bool]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written of a call, and the row that it replaces."""

    merged: Merged
    replaces: CallRecord | None

    @property
    def call_id(self) -> str:
        """The call."""
        return self.merged.record.call_id

    @property
    def is_plain(self) -> bool:
        """Whether only a row that there is changes."""
        merged = self.merged
        hangs_on = merged.attempts or merged.lines or merged.payload is not None or merged.forgets_runs
        return self.replaces is not None and not hangs_on and not self.replaces.owned


class Batch:
    """Merges reports over one session."""

    def __init__(self, session: Session, fold: Fold, write_one: WriteOne) -> None:
        self._session = session
        self._fold = fold
        self._write_one = write_one

    def merge(self, connection: BaseDatabaseWrapper, told: Sequence[Told]) -> list[Told]:
        """Merge the reports; return those whose rows others hold for now."""
        calls, lock = by_call(told), False
        roads = [self._plainly, *[self._round] * _PATIENCE]
        for road in roads:
            if not calls:
                return []
            try:
                calls = road(connection, calls, lock=lock)
            except Error as error:
                if not rows.is_held_up(error):
                    raise
                # Somebody holds some of the rows: from now on only those that nobody does.
                lock = True
        return [each for several in calls.values() for each in several]

    def _plainly(
        self, connection: BaseDatabaseWrapper, calls: dict[str, list[Told]], *, lock: bool
    ) -> dict[str, list[Told]]:
        """Write what is plain; return what is left to do."""
        usual = list(filter(None, map(plain_run, calls.values()))) if plainly.is_possible(connection) else []
        if not usual:
            return calls
        with self._session.atomic():
            _wait_briefly(connection)
            written = plainly.write(connection, usual)
        return {call_id: several for call_id, several in calls.items() if call_id not in written}

    def _round(
        self, connection: BaseDatabaseWrapper, calls: dict[str, list[Told]], *, lock: bool
    ) -> dict[str, list[Told]]:
        """Do it once; return what is left to do."""
        if lock and connection.features.has_select_for_update_skip_locked:
            with self._session.atomic():
                _wait_briefly(connection)
                changes, held = self._decide(connection, calls, lock=True)
                written = self._write(connection, changes)
        else:
            # Read before: on SQLite a transaction that has read may find that it must not write.
            changes, held = self._decide(connection, calls, lock=False)
            with self._session.atomic():
                _wait_briefly(connection)
                written = self._write(connection, changes)
        left = {change.call_id for change in changes} - written | held
        return {call_id: several for call_id, several in calls.items() if call_id in left}

    def _decide(
        self, connection: BaseDatabaseWrapper, calls: dict[str, list[Told]], *, lock: bool
    ) -> tuple[list[Change], set[str]]:
        """Return what is to be written, and the calls whose rows others hold."""
        now = read_clock(connection)
        asked = sorted(calls)
        known = _records(connection, asked, lock=lock)
        held = _existing(connection, asked) - known.keys() if lock else set()
        attempts = _attempts(connection, calls, known)
        changes = []
        for call_id in asked:
            if call_id in held:
                continue
            record = known.get(call_id)
            merged = self._fold(record, attempts.get(call_id, {}), calls[call_id], now)
            if merged is not None:
                changes.append(Change(merged, record))
        return changes, held

    def _write(self, connection: BaseDatabaseWrapper, changes: Sequence[Change]) -> set[str]:
        """Write them; return the calls that were still as they had been read."""
        plain = [change for change in changes if change.is_plain]
        if connection.vendor == "postgresql":
            written = _update_together(connection, plain)
        else:
            written = {each.call_id for each in plain if self._write_one(connection, each.merged, each.replaces)}
        rest = (change for change in changes if not change.is_plain)
        return written | {each.call_id for each in rest if self._write_one(connection, each.merged, each.replaces)}


def _wait_briefly(connection: BaseDatabaseWrapper) -> None:
    """Let one row that somebody holds not keep all the others waiting, where that can be said of one transaction."""
    if connection.vendor == "postgresql":
        execute(connection, "SET LOCAL lock_timeout = '200ms'", [])


def _records(connection: BaseDatabaseWrapper, call_ids: Sequence[str], *, lock: bool) -> dict[str, CallRecord]:
    found = rows.calls.find_any(connection, call_ids, rows.CALL_COLUMNS, lock=lock)
    records = map(rows.call_record, found)
    return {record.call_id: record for record in records}


def _existing(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> set[str]:
    return {call_id for (call_id,) in rows.calls.find_any(connection, call_ids, ("call_id",))}


def _attempts(
    connection: BaseDatabaseWrapper, calls: Mapping[str, Sequence[Told]], known: Mapping[str, CallRecord]
) -> dict[str, dict[str, AttemptRecord]]:
    """Return the rows of the runs that are spoken of, where there may be any."""
    asked = [call_id for call_id, record in known.items() if record.runs and runs_of(calls[call_id]) - {record.run}]
    attempts: dict[str, dict[str, AttemptRecord]] = defaultdict(dict)
    if asked:
        columns = ("call_id", *rows.ATTEMPT_COLUMNS)
        for call_id, *values in rows.attempts.find_any(connection, asked, columns, of="call_id"):
            attempt = rows.attempt_record(tuple(values))
            attempts[call_id][attempt.run] = attempt
    return attempts


def _update_together(connection: BaseDatabaseWrapper, changes: Iterable[Change]) -> set[str]:
    alike: dict[tuple[str, ...], list[tuple[CallRecord, dict[str, Any]]]] = defaultdict(list)
    for change in changes:
        if change.replaces is not None:
            values = at_once.changes(change.merged.record, change.replaces)
            alike[tuple(values)].append((change.replaces, values))
    written: set[str] = set()
    for names, several in alike.items():
        keys = [(record.call_id, record.version) for record, _ in several]
        news = [tuple(values[name] for name in names) for _, values in several]
        written |= rows.calls.update_all(connection, keys, names, news)
    return written
