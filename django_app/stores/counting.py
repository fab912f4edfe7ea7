"""Entering ended calls into the hourly counts, each exactly once.

Its row tells whether a call was counted, and is marked in the transaction that adds to the counts. So it does not
matter who counts, how many do so at once, how late a report came, or in which order transactions are committed.
Whoever is about to delete a row, or to give it to a new call, first counts what it says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW
from django_app.histogram import Histogram
from django_app.lengths import Ended, run_time_of, wait_of
from django_app.models import FAILED_VALUES, HourlyRollup
from django_app.stores import rows
from django_app.stores.tables import Table, execute

rollups: Final = Table(HourlyRollup)

_UNCOUNTED: Final = "terminal_at IS NOT NULL AND counted_at IS NULL"
_INDEX: Final = "lrp_call_uncounted"
_SUMS: Final = ("key", "calls", "waits", "runs")


class Key(NamedTuple):
    """What calls that are counted together have in common."""

    hour: datetime
    task: str
    status: str
    error_type: str

    @classmethod
    def of(cls, call: Ended) -> Key:
        """Return it for one call."""
        hour = call.terminal_at.replace(minute=0, second=0, microsecond=0)
        error_type = call.error_type if call.status in FAILED_VALUES else None
        return cls(hour, call.task, call.status, error_type or "")

    @property
    def digest(self) -> str:
        """The primary key of its row: databases compare texts in ways of their own."""
        told = f"{self.hour.isoformat()}\0{self.task}\0{self.status}\0{self.error_type}"
        return blake2b(told.encode(), digest_size=16).hexdigest()


@dataclass(slots=True)
class Sums:
    """How many calls there were, and how long those that ran had waited and took."""

    calls: int = 0
    waits: Histogram = field(default_factory=Histogram)
    runs: Histogram = field(default_factory=Histogram)

    def add(self, call: Ended) -> None:
        """Add one more."""
        self.calls += 1
        ran, waited = run_time_of(call, call.terminal_at), wait_of(call, call.terminal_at)
        if ran is not None:
            self.runs.add(ran)
            if waited is not None:
                self.waits.add(waited)

    def update(self, other: Sums) -> None:
        """Add all of the other ones."""
        self.calls += other.calls
        self.waits.update(other.waits)
        self.runs.update(other.runs)

    def values(self) -> dict[str, Any]:
        """Return them as the row has them."""
        return {"calls": self.calls, "waits": self.waits.to_json(), "runs": self.runs.to_json()}


def is_due(connection: BaseDatabaseWrapper) -> bool:
    """Whether a call has ended that is not counted; reads one entry of an index."""
    return bool(_uncounted(connection, 1, ("call_id",)))


def count_some(connection: BaseDatabaseWrapper, limit: int) -> int:
    """Count at most so many calls that nobody else is about to; inside of a transaction."""
    skip = " SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    return _count(connection, _uncounted(connection, limit, Ended._fields, f"{_locking(connection)}{skip}"))


def count_these(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> None:
    """Count those of these calls that have ended and are not counted; inside of a transaction."""
    lock = _locking(connection)
    for condition, params in rows.calls.any_of(connection, call_ids):
        rest = f"{condition} AND {_UNCOUNTED}{lock}"
        _count(connection, rows.calls.find_where(connection, rest, params, Ended._fields))


def _uncounted(
    connection: BaseDatabaseWrapper, limit: int, names: Sequence[str], lock: str = ""
) -> list[tuple[Any, ...]]:
    # By that order others know the index; MySQL, which is told of it, would read and lock all of them to sort them.
    order = "" if connection.vendor == "mysql" else " ORDER BY counted_at, terminal_at"
    return rows.calls.find_where(connection, f"{_UNCOUNTED}{order} LIMIT {limit:d}{lock}", [], names, by=_INDEX)


def _locking(connection: BaseDatabaseWrapper) -> str:
    """Return how a statement keeps what it reads from others until the end of the transaction."""
    if connection.features.has_select_for_update:
        return " FOR UPDATE"
    # SQLite has one writer, and a transaction that has read may not become it once there was another.
    execute(connection, f"UPDATE {rows.calls.quoted(connection)} SET counted_at = NULL WHERE call_id = ''", [])
    return ""


def _count(connection: BaseDatabaseWrapper, found: Iterable[tuple[Any, ...]]) -> int:
    sums: dict[Key, Sums] = defaultdict(Sums)
    counted = []
    for call in map(Ended._make, found):
        sums[Key.of(call)].add(call)
        counted.append(call.call_id)
    if counted:
        _mark(connection, counted)
        _enter(connection, sums)
    return len(counted)


def _mark(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> None:
    # Given many keys MySQL may choose to read the whole table, and so wait for rows that others have locked.
    for some in ([each] for each in call_ids) if connection.vendor == "mysql" else [call_ids]:
        rows.calls.update_any(connection, some, {"counted_at": None}, {"counted_at": NOW})


def _enter(connection: BaseDatabaseWrapper, sums: dict[Key, Sums]) -> None:
    """Add to the rows of the counts. Everybody locks them in the same order, those that are new last."""
    new = {key.digest: (key, each) for key, each in sums.items()}
    for digest, *said in _locked(connection, sorted(new)):
        _add(connection, digest, said, new.pop(digest)[1])
    for digest, (key, each) in sorted(new.items()):
        if not rollups.insert(connection, {"key": digest, **key._asdict(), **each.values()}):
            # Somebody was faster.
            for _, *said in _locked(connection, [digest]):
                _add(connection, digest, said, each)


def _locked(connection: BaseDatabaseWrapper, digests: Sequence[str]) -> list[tuple[Any, ...]]:
    lock = _locking(connection)
    found: list[tuple[Any, ...]] = []
    for condition, params in rollups.any_of(connection, digests):
        rest = f"{condition} ORDER BY {rollups.key(connection)}{lock}"
        found += rollups.find_where(connection, rest, params, _SUMS)
    return found


def _add(connection: BaseDatabaseWrapper, digest: str, said: Sequence[Any], more: Sums) -> None:
    calls, waits, runs = said
    sums = Sums(calls, Histogram.from_json(waits), Histogram.from_json(runs))
    sums.update(more)
    rollups.update(connection, {"key": digest}, sums.values())
