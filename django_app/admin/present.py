"""What waits and runs at this moment, and who runs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Q
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_app.admin.display import moment, short_task, short_worker
from django_app.admin.links import Links
from django_app.admin.tempo import Measured
from django_app.conf import options
from django_app.durations import duration
from django_app.lengths import run_time_of, wait_of
from django_app.models import Call, Worker
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.status import CallStatus

#: Open calls that are looked through, the oldest; of these, how many that run and that wait are shown.
_LOOKED_THROUGH: Final = 10_000
_RUNNING: Final = 200
WAITING: Final = 8
UNUSUAL: Final = 8
#: What runs is unusual after so many times as long as 95 of 100 runs of its task took, once so many are known.
_TIMES: Final = 2
_KNOWN: Final = 20
#: Shorter runs than this are none of a person's business, however short the others are.
_LEAST: Final = timedelta(seconds=5)
#: Workers that are shown, and calls of each.
_WORKERS: Final = 100
_EACH: Final = 3

_COLUMNS: Final = (
    *("call_id", "task", "status", "attempt", "retries", "queue", "worker", "run", "run_outcome"),
    *("enqueued_at", "due_at", "started_at", "terminal_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A call that waits or runs."""

    call_id: str
    task: str
    name: str
    link: str
    where: str
    """The queue in which it waits, or the worker that runs it."""
    place: str
    """The same in brief."""
    length: timedelta
    usual: timedelta | None = None
    """How long 95 of 100 runs of its task took, within the last day."""

    @property
    def took(self) -> str:
        """How long so far, as text."""
        return duration(self.length)

    @property
    def usually(self) -> str:
        """What is usual, as text."""
        return duration(self.usual)

    @property
    def is_unusual(self) -> bool:
        """Whether it runs much longer than usual."""
        return self.usual is not None and self.length > max(self.usual * _TIMES, _LEAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorker:
    """A worker, when it was last heard of, and what it runs."""

    name: str
    title: str
    pool: str
    level: str
    state: str
    seen: SafeString | str
    up: str
    runs: Sequence[OpenCall]
    more: int
    link: str
    waiting: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Open:
    """The open calls of a moment: the oldest that wait, and those that run, the longest first."""

    waiting: Sequence[Call]
    running: Sequence[Call]

    @property
    def tasks(self) -> set[str]:
        """The tasks that run."""
        return {str(call.task) for call in self.running}


def look(calls: CallQuerySet, now: datetime) -> Open:
    """Return what waits and runs, of the oldest `_LOOKED_THROUGH` open calls, by one query."""
    oldest = calls.open().order_by("enqueued_at").values(*_COLUMNS)[:_LOOKED_THROUGH]
    try:
        sql, params = oldest.query.get_compiler(calls.db).as_sql()
    except EmptyResultSet:
        return Open([], [])
    instant: Any = connections[calls.db].ops.adapt_datetimefield_value(now)
    columns = ", ".join(_COLUMNS)
    # In brackets twice: SQLite takes order and limit of a part of a union only so.
    statement = (
        f"SELECT * FROM (SELECT {columns} FROM ({sql}) looked WHERE status = 'started' "  # noqa: S608 - as Django compiled it
        f"ORDER BY started_at LIMIT {_RUNNING}) running UNION ALL "
        f"SELECT * FROM (SELECT {columns} FROM ({sql}) looked WHERE status <> 'started' AND run IS NULL "
        f"AND (due_at IS NULL OR due_at <= %s) ORDER BY COALESCE(due_at, enqueued_at) LIMIT {WAITING}) waiting"
    )
    # A union has no order.
    found = sorted(Call.objects.using(calls.db).raw(statement, [*params, *params, instant]), key=_since)
    running = [call for call in found if call.status == CallStatus.STARTED]
    return Open([call for call in found if call.status != CallStatus.STARTED], running)


def _since(call: Call) -> datetime:
    return call.started_at if call.status == CallStatus.STARTED and call.started_at else call.due_at or call.enqueued_at


def waiting(found: Open, now: datetime, links: Links) -> list[OpenCall]:
    """Return what waits, the longest first."""
    return [_open(call, call.queue or "?", wait_of(call, now), links) for call in found.waiting]


def running(found: Open, usual: Mapping[str, Measured], now: datetime, links: Links) -> list[OpenCall]:
    """Return what runs, the longest first, with what is usual for its task."""
    return [
        _open(call, call.worker or "?", run_time_of(call, now), links, _usual(usual.get(call.task)))
        for call in found.running
    ]


def _open(call: Call, where: str, length: timedelta | None, links: Links, usual: timedelta | None = None) -> OpenCall:
    return OpenCall(
        call_id=call.pk,
        task=call.task,
        name=short_task(call.task),
        link=links.call(call),
        where=where,
        place=short_worker(where),
        length=length or timedelta(0),
        usual=usual,
    )


def _usual(known: Measured | None) -> timedelta | None:
    return None if known is None or known.runs.number < _KNOWN else known.runs.quantile(0.95)


def workers(alias: str, runs: Iterable[OpenCall], now: datetime, links: Links) -> list[LiveWorker]:
    """Return the workers that were heard of, the latest first, by one query."""
    by_worker: dict[str, list[OpenCall]] = defaultdict(list)
    for call in runs:
        by_worker[call.where].append(call)
    known = Worker.objects.using(alias).filter(~Q(name="")).order_by("name", "-seen_at")[:_WORKERS]
    return [_worker(each, by_worker.get(each.name, []), now, links) for each in known]


def _worker(worker: Worker, runs: Sequence[OpenCall], now: datetime, links: Links) -> LiveWorker:
    level, state = _state(now - worker.seen_at)
    return LiveWorker(
        name=short_worker(worker.name),
        title=f"{worker.name}, {worker.host}, {worker.pid}",
        pool=worker.pool,
        level=level,
        state=state,
        seen=moment(worker.seen_at, now),
        up=duration(worker.seen_at - worker.started_at),
        runs=runs[:_EACH],
        more=max(0, len(runs) - _EACH),
        link=links.to(worker=worker.name, status=CallStatus.STARTED.value),
        waiting=worker.waiting,
        dropped=worker.dropped,
    )


def _state(silence: timedelta) -> tuple[str, str]:
    """Return how a worker is after so long without a sign of life, by the rule of the rescue."""
    lease = timedelta(seconds=options().LEASE)
    if silence <= lease:
        return "succeeded", _("alive")
    return ("warning", _("late")) if silence <= 3 * lease else ("bad", _("gone"))
