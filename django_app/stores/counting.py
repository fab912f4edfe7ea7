"""Entering ended calls into the hourly counts, each exactly once.

Its row tells whether a call was counted, and is marked in the transaction that adds to the counts. So it does not
matter who counts, how many do so at once, how late a report came, or in which order transactions are committed.
Whoever is about to delete a row, or to give it to a new call, first counts what it says; whoever ends many calls at
once (`plainly`) counts them in doing so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW
from django_app.histogram import Histogram
from django_app.lengths import Ended
from django_app.models import HourlyRollup
from django_app.stores import locking, many, rows, summing
from django_app.stores.sums import Key, Sums
from django_app.stores.tables import PRIMARY, Table

rollups: Final = Table(HourlyRollup)

_UNCOUNTED: Final = "terminal_at IS NOT NULL AND counted_at IS NULL"
_INDEX: Final = "lrp_call_uncounted"
_SUMS: Final = ("key", "calls", "waits", "runs")


def is_due(connection: BaseDatabaseWrapper) -> bool:
    """Whether a call has ended that is not counted; reads one entry of an index."""
    return bool(rows.calls.find_where(connection, _first(connection, 1), [], ("call_id",), by=_INDEX))


def count_some(connection: BaseDatabaseWrapper, limit: int) -> int:
    """Count at most so many calls that nobody else is about to; inside of a transaction."""
    return _count(connection, f"{_first(connection, limit)}{locking.lock(connection, skip=True)}", [], by=_INDEX)


def count_these(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> None:
    """Count those of these calls that have ended and are not counted; inside of a transaction."""
    lock = locking.lock(connection)
    for condition, params in rows.calls.any_of(connection, call_ids):
        _count(connection, f"{condition} AND {_UNCOUNTED}{lock}", params, by=PRIMARY)


def _first(connection: BaseDatabaseWrapper, limit: int) -> str:
    # By that order others know the index; MySQL, which is told of it, would read and lock all of them to sort them.
    order = "" if connection.vendor == "mysql" else " ORDER BY counted_at, terminal_at"
    return f"{_UNCOUNTED}{order} LIMIT {limit:d}"


def _count(connection: BaseDatabaseWrapper, condition: str, params: Sequence[Any], *, by: str) -> int:
    sums: dict[Key, Sums] = {}
    if summing.is_possible(connection):
        counted = summing.mark(connection, condition, params, sums)
    else:
        found = rows.calls.find_where(connection, condition, params, Ended._fields, by=by)
        counted = _mark(connection, found, sums)
    enter(connection, sums)
    return len(counted)


def _mark(connection: BaseDatabaseWrapper, found: Iterable[tuple[Any, ...]], sums: dict[Key, Sums]) -> list[str]:
    counted = []
    for call in map(Ended._make, found):
        sums.setdefault(Key.of(call), Sums()).add(call)
        counted.append(call.call_id)
    # Given many keys MySQL may choose to read the whole table, and so wait for rows that others have locked.
    for some in ([each] for each in counted) if connection.vendor == "mysql" else [counted] if counted else ():
        rows.calls.update_any(connection, some, {"counted_at": None}, {"counted_at": NOW})
    return counted


def enter(connection: BaseDatabaseWrapper, sums: Mapping[Key, Sums]) -> None:
    """Add to the rows of the counts what the calls make that were marked in this transaction.

    Everybody locks these rows in the same order, those that are new last, and all after the rows of calls.
    """
    if not sums:
        return
    keys = {key.digest: key for key in sums}
    left = _add(connection, {digest: sums[key] for digest, key in keys.items()})
    new = [{"key": digest, **keys[digest]._asdict(), **left[digest].values()} for digest in sorted(left)]
    made = many.insert_absent(connection, rollups, new)
    # Somebody was faster with the others.
    _add(connection, {digest: more for digest, more in left.items() if digest not in made})


def _add(connection: BaseDatabaseWrapper, more: dict[str, Sums]) -> dict[str, Sums]:
    """Add to the rows that there are; return what is to be added to rows that there are not."""
    lock, left, news = locking.lock(connection), dict(more), {}
    for condition, params in rollups.any_of(connection, sorted(more)) if more else ():
        rest = f"{condition} ORDER BY {rollups.key(connection)}{lock}"
        for digest, calls, waits, runs in rollups.find_where(connection, rest, params, _SUMS, by=PRIMARY):
            sums = news[digest] = Sums(calls, Histogram.from_json(waits), Histogram.from_json(runs))
            sums.update(left.pop(digest))
    if summing.is_possible(connection):
        summing.write(connection, rollups, news)
    else:
        for digest, sums in news.items():
            rollups.update(connection, {"key": digest}, sums.values())
    return left
