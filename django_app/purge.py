"""Deleting what has been kept long enough, without anybody noticing.

Calls go in small chunks by primary key, each in a transaction of its own, with a pause
between, until the time budget is spent; the next run goes on from there. Only terminal
rows, strictly older than their retention. Purges that run at once take different rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connections, transaction
from django.db.models import QuerySet

from django_app.clock import read_clock
from django_app.conf import options
from django_app.models import Attempt, Call
from django_app.querysets import CallQuerySet
from lrp_celery.core.clock import require_aware
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.status import TERMINAL

CHUNK: Final = 500
BUDGET: Final = timedelta(minutes=5)
PAUSE: Final = timedelta(milliseconds=20)

_Ids = QuerySet[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did: `calls` deleted (or, on a dry run, that would be), and whether it got through with all."""

    calls: int
    complete: bool


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
    ended strictly before it goes, parked ones too. `dry_run` only counts. `chunk` is the
    number of calls per transaction, `budget` how long to go on, `pause` the rest between
    chunks. Never deletes an open call. Not promised: that all is gone when it returns;
    `complete` tells. Raises `ConfigurationError` for a naive or future `older_than`.
    """
    alias = using or options().DATABASE
    now = read_clock(connections[alias])
    due = _all_due(_threshold(older_than, now), alias) if older_than is not None else _due(now, alias)
    if dry_run:
        return Purged(calls=sum(queryset.count() for queryset in due), complete=True)
    deadline = time.monotonic() + budget.total_seconds()
    deleted = 0
    for queryset in due:
        for count in _chunks(queryset, alias, chunk):
            deleted += count
            if time.monotonic() >= deadline:
                return Purged(calls=deleted, complete=False)
            time.sleep(pause.total_seconds())
    return Purged(calls=deleted, complete=True)


def purge_older_than(threshold: datetime, *, using: str) -> int:
    """Delete every call that ended strictly before `threshold`, however long it takes; return how many (TRK-19)."""
    return sum(sum(_chunks(queryset, using, CHUNK)) for queryset in _all_due(threshold, using))


def _threshold(older_than: timedelta | datetime, now: datetime) -> datetime:
    threshold = now - older_than if isinstance(older_than, timedelta) else require_aware(older_than, "older_than")
    if threshold > now:
        raise ConfigurationError(f"older_than lies in the future: {older_than!r}.")
    return threshold


def _all_due(threshold: datetime, alias: str) -> Iterator[CallQuerySet]:
    for status in sorted(TERMINAL):
        yield Call.objects.using(alias).filter(status=status, terminal_at__lt=threshold)


def _due(now: datetime, alias: str) -> Iterator[CallQuerySet]:
    """Yield what may go by the setting, and what has outlived a time to live of its own."""
    retention = options().retention
    calls = Call.objects.using(alias)
    yield calls.terminal().filter(purge_at__lt=now)
    names = list(task_names(alias))
    for status in sorted(TERMINAL):
        kept: dict[timedelta | None, list[str]] = {}
        for name in names:
            kept.setdefault(retention.keep(name, status), []).append(name)
        for keep, tasks in kept.items():
            if keep is not None:
                ended = calls.filter(status=status, terminal_at__lt=now - keep, purge_at__isnull=True)
                yield ended if len(kept) == 1 else ended.for_task(*tasks)


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


def _chunks(queryset: CallQuerySet, alias: str, chunk: int) -> Iterator[int]:
    """Delete `queryset` chunk by chunk; yield how many each took."""
    wanted = queryset.order_by("terminal_at").values_list("pk", flat=True)
    while True:
        with _claiming(alias) as claim:
            ids = list(claim(wanted)[:chunk])
            deleted = _delete(ids, alias)
        if not ids:
            return
        yield deleted


@contextmanager
def _claiming(alias: str) -> Iterator[Callable[[_Ids], _Ids]]:
    """Let a purge have its rows for itself, where the database can; others take different ones meanwhile."""
    if connections[alias].features.has_select_for_update_skip_locked:
        with transaction.atomic(using=alias):
            yield lambda wanted: wanted.select_for_update(skip_locked=True)
    else:
        # On SQLite a transaction that has read may not write any more once somebody else has.
        yield lambda wanted: wanted


def _delete(ids: list[str], alias: str) -> int:
    if not ids:
        return 0
    with transaction.atomic(using=alias):
        Attempt.objects.using(alias).filter(call_id__in=ids)._raw_delete(alias)
        return _delete_calls(ids, alias)


def _delete_calls(ids: list[str], alias: str) -> int:
    calls = Call.objects.using(alias)
    if connections[alias].vendor != "mysql":
        return int(calls.filter(pk__in=ids)._raw_delete(alias))
    # Given many keys MySQL may choose to read the whole table, and so wait for rows that others have locked.
    return sum(int(calls.filter(pk=call_id)._raw_delete(alias)) for call_id in ids)
