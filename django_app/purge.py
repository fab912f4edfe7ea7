"""Deleting what has been kept long enough, without anybody noticing.

Calls go in small chunks by primary key, each in a transaction of its own, with a pause
between, until the time budget is spent; the next run goes on from there. Only terminal
rows, strictly older than their retention. Purges that run at once take different rows.

An owned call whose time to live is over is emptied: its row stays as a tombstone, against
late copies of its message, and goes `TOMBSTONE` later, like that of a call that was removed.
A call that is kept until it is removed stays.

What goes has been counted before (`django_app.rollup`); the hourly counts themselves go after `ROLLUP_RETENTION`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Model, Q, QuerySet

from django_app.clock import read_clock
from django_app.conf import options
from django_app.models import Attempt, Call, HourlyRollup, LogLine, Payload, Worker
from django_app.querysets import CallQuerySet
from django_app.rollup import roll_up
from django_app.stores import counting, rows
from lrp_celery.core.clock import require_aware
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.callstore import REMEMBERED
from lrp_celery.tracking.decisions import FAILURES
from lrp_celery.tracking.owned import BLANKED
from lrp_celery.tracking.status import TERMINAL, CallStatus

CHUNK: Final = 500
BUDGET: Final = timedelta(minutes=5)
PAUSE: Final = timedelta(milliseconds=20)

_Ids = QuerySet[Any, Any]
_Deed = Callable[[list[str], str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did (or, on a dry run, would do), and whether it got through with all."""

    calls: int
    """Calls deleted."""
    emptied: int = 0
    """Calls whose time to live is over, of which only a tombstone was left."""
    complete: bool


@dataclass(frozen=True, slots=True)
class _Duty:
    """What is done to some of the calls: those that have waited longest by `oldest` come first."""

    calls: CallQuerySet
    oldest: str
    do: _Deed


def purge(
    *,
    older_than: timedelta | datetime | None = None,
    dry_run: bool = False,
    using: str | None = None,
    chunk: int = CHUNK,
    budget: timedelta = BUDGET,
    pause: timedelta = PAUSE,
) -> Purged:
    """Delete calls that ended longer ago than the setting RETENTION keeps them.

    `older_than` (an age or an aware instant) replaces RETENTION: every terminal call that
    ended strictly before it goes, parked ones too, but not one with a time to live of its own,
    or that is kept until it is removed. `dry_run` only counts. `chunk` is the number of calls
    per transaction, `budget` how long to go on, `pause` the rest between chunks. Never deletes
    an open call. Counts what has ended before, and forgets workers that have not been heard of for a day. Not promised: that
    all is gone when it returns; `complete` tells. Raises `ConfigurationError` for a naive or
    future `older_than`.
    """
    alias = using or options().DATABASE
    now = read_clock(connections[alias])
    due = _all_due(_threshold(older_than, now), alias) if older_than is not None else _due(now, alias)
    done: Counter[_Deed] = Counter()
    if dry_run:
        for duty in (*_outlived(now, alias), *due):
            done[duty.do] += duty.calls.count()
        return Purged(calls=done[_delete], emptied=done[_empty], complete=True)
    deadline = time.monotonic() + budget.total_seconds()
    _forget_workers(now, alias)
    _forget_hours(now, alias)
    roll_up(using=alias, budget=budget / 2)
    for duty in (*_outlived(now, alias), *due):
        for count in _chunks(duty, alias, chunk):
            done[duty.do] += count
            if time.monotonic() >= deadline:
                return Purged(calls=done[_delete], emptied=done[_empty], complete=False)
            time.sleep(pause.total_seconds())
    return Purged(calls=done[_delete], emptied=done[_empty], complete=True)


def purge_older_than(threshold: datetime, *, using: str) -> int:
    """Delete every call that ended strictly before `threshold`, however long it takes; return how many (TRK-19)."""
    now = read_clock(connections[using])
    _forget_workers(now, using)
    _forget_hours(now, using)
    duties = (*_outlived(now, using), *_all_due(threshold, using))
    counts = [(duty.do, sum(_chunks(duty, using, CHUNK))) for duty in duties]
    return sum(count for do, count in counts if do is _delete)


def _threshold(older_than: timedelta | datetime, now: datetime) -> datetime:
    threshold = now - older_than if isinstance(older_than, timedelta) else require_aware(older_than, "older_than")
    if threshold > now:
        raise ConfigurationError(f"older_than lies in the future: {older_than!r}.")
    return threshold


def _all_due(threshold: datetime, alias: str) -> Iterator[_Duty]:
    for status in sorted(TERMINAL):
        yield _by_retention(Call.objects.using(alias).filter(status=status, terminal_at__lt=threshold))


def _due(now: datetime, alias: str) -> Iterator[_Duty]:
    """Yield what may go by the setting."""
    retention, tombstone = options().retention, timedelta(seconds=options().TOMBSTONE)
    names = list(task_names(alias))
    for status in sorted(TERMINAL):
        kept: dict[timedelta | None, list[str]] = {}
        for name in names:
            kept.setdefault(retention.keep(name, status), []).append(name)
        for keep, tasks in kept.items():
            if keep is not None:
                ended = Call.objects.using(alias).filter(status=status, terminal_at__lt=now - keep)
                if keep < tombstone:
                    # Copies of its message may still be about, which must find that it has ended.
                    ended = ended.filter(Q(owned=False) | Q(terminal_at__lt=now - tombstone))
                yield _by_retention(ended if len(kept) == 1 else ended.for_task(*tasks))
        if status in FAILURES and kept.get(None):
            yield from _due_handled(kept[None], status, now, alias)


def _due_handled(tasks: list[str], status: CallStatus, now: datetime, alias: str) -> Iterator[_Duty]:
    """Yield failures that are kept until somebody handles them, as far as somebody has."""
    tombstone = timedelta(seconds=options().TOMBSTONE)
    for task in tasks:
        keep = options().retention.keep_handled(task, status)
        if keep is not None:
            handled = Call.objects.using(alias).for_task(task).filter(status=status, handled_at__lt=now - keep)
            # Copies of its message may still be about, as above.
            yield _by_retention(handled.filter(Q(owned=False) | Q(terminal_at__lt=now - tombstone)))


def _by_retention(ended: CallQuerySet) -> _Duty:
    """Leave what other promises keep, or end."""
    free = ended.filter(removed_at__isnull=True, purge_at__isnull=True, until_removed=False)
    return _Duty(free, "terminal_at", _delete)


def _outlived(now: datetime, alias: str) -> Iterator[_Duty]:
    """Yield tombstones that have served their time, and calls whose own time to live is over."""
    served = now - timedelta(seconds=options().TOMBSTONE)
    calls = Call.objects.using(alias)
    yield _Duty(calls.filter(removed_at__lt=served), "removed_at", _delete)
    expired = calls.terminal().filter(removed_at__isnull=True)
    yield _Duty(expired.filter(purge_at__lte=now, owned=False), "purge_at", _delete)
    yield _Duty(expired.filter(purge_at__lt=served, owned=True), "purge_at", _delete)
    yield _Duty(expired.filter(purge_at__lte=now, purge_at__gte=served, owned=True), "purge_at", _empty)


def task_names(alias: str) -> Iterator[str]:
    """Yield the name of every task that has a call, each by one step in an index: no table is read whole."""
    last = ""
    while True:
        following = Call.objects.using(alias).filter(task__gt=last).order_by("task")
        name = following.values_list("task", flat=True).first()
        if name is None:
            return
        yield name
        last = name


def _chunks(duty: _Duty, alias: str, chunk: int) -> Iterator[int]:
    """Do the duty chunk by chunk; yield how many calls each took."""
    while (done := rows.insist(connections[alias], _do_some, duty, chunk)) is not None:
        yield done


def _do_some(connection: BaseDatabaseWrapper, duty: _Duty, chunk: int) -> int | None:
    """Do the duty for one chunk of calls, in a transaction; return how many it took, None: none is left."""
    wanted, alias = duty.calls.order_by(duty.oldest).values_list("pk", flat=True), connection.alias
    with _claiming(alias) as claim:
        ids = list(claim(wanted)[:chunk])
        if not ids:
            return None
        counting.count_these(connection, ids)
        return duty.do(ids, alias)


@contextmanager
def _claiming(alias: str) -> Iterator[Callable[[_Ids], _Ids]]:
    """Let a purge have its rows for itself: the id of a tombstone may be given to a new call at any moment."""
    features = connections[alias].features
    with transaction.atomic(using=alias):
        if features.has_select_for_update:
            # Others take different ones meanwhile, where the database can pass over rows.
            yield lambda wanted: wanted.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        else:
            # SQLite has one writer, and a transaction that has read may not become it once there was another.
            Call.objects.using(alias).filter(pk="").update(version=0)
            yield lambda wanted: wanted


def _delete(ids: list[str], alias: str) -> int:
    _delete_beside(ids, alias)
    return _delete_rows(Call, ids, alias)


def _empty(ids: list[str], alias: str) -> int:
    """Leave tombstones, from the moment on at which the time to live was over; as `owned.expire` does."""
    _delete_beside(ids, alias)
    blank = dict.fromkeys(BLANKED)
    # MySQL sets one column after the other: `removed_at` before what it is taken from.
    return sum(
        Call.objects.using(alias)
        .filter(pk__in=part)
        .update(removed_at=F("purge_at"), purge_at=None, version=F("version") + 1, **blank)
        for part in _parts(ids, alias)
    )


def _delete_beside(ids: list[str], alias: str) -> None:
    """Delete what hangs on the calls: the database would refuse to delete them before."""
    for beside in (Attempt, LogLine):
        beside._default_manager.using(alias).filter(call_id__in=ids)._raw_delete(alias)
    _delete_rows(Payload, ids, alias)


def _delete_rows(model: type[Model], ids: list[str], alias: str) -> int:
    rows = model._default_manager.using(alias)
    return sum(int(rows.filter(pk__in=part)._raw_delete(alias)) for part in _parts(ids, alias))


def _parts(ids: list[str], alias: str) -> list[list[str]]:
    # Given many keys MySQL may choose to read the whole table, and so wait for rows that others have locked.
    return [[call_id] for call_id in ids] if connections[alias].vendor == "mysql" else [ids]


def _forget_hours(now: datetime, alias: str) -> None:
    """Delete the counts of hours that are over for long: a few at each purge."""
    keep = options().ROLLUP_RETENTION
    if keep is None:
        return
    over = HourlyRollup.objects.using(alias).filter(hour__lt=now - keep).order_by("hour")
    while keys := [str(key) for key in over.values_list("pk", flat=True)[:CHUNK]]:
        _delete_rows(HourlyRollup, keys, alias)


def _forget_workers(now: datetime, alias: str) -> None:
    Worker.objects.using(alias).filter(seen_at__lt=now - REMEMBERED).delete()
