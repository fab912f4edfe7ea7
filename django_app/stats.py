"""How calls, workers and tracking itself are doing, by a few bounded queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connections
from django.db.models import Count, Min, Q

from django_app.clock import read_clock
from django_app.models import Call
from django_app.querysets import overdue, silent
from django_app.stores import DjangoTrackingStore
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.status import OPEN, TERMINAL, CallStatus

#: Rows that are read for one number, at most.
LIMIT: Final = 10_000
#: What "lately" means.
LATELY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of calls. `is_capped`: there are as many at least, and nobody has counted on."""

    number: int
    is_capped: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}+" if self.is_capped else f"{self.number:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCalls:
    """The calls that have not ended; of more than `LIMIT`, the oldest."""

    by_status: Mapping[CallStatus, Counted]
    silent: Counted
    overdue: Counted
    waiting_since: datetime | None
    """Since when the oldest one that is due waits for its first run."""
    running_since: datetime | None
    """Since when the one runs that has been running longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How things are at one moment, by the database's clock."""

    now: datetime
    open: OpenCalls
    ended: Mapping[CallStatus, Counted]
    """Also those that were removed, as long as their rows stand."""
    lately: Mapping[CallStatus, Counted]
    """Those that have ended within the last hour."""
    workers: Sequence[WorkerFacts]
    dropped: int
    """Reports that these workers had to drop because their spools were full."""
    waiting: int
    """Bytes in their spools that were not written to the database yet."""


def stats(alias: str) -> Stats:
    """Return how things are in the database of `alias`, as its workers last told of themselves."""
    now = read_clock(connections[alias])
    workers = DjangoTrackingStore(alias).workers()
    return Stats(
        now=now,
        open=_open(alias, now),
        ended={status: _ended(alias, status) for status in sorted(TERMINAL)},
        lately={status: _ended(alias, status, now - LATELY) for status in sorted(TERMINAL)},
        workers=workers,
        dropped=sum(worker.dropped for worker in workers),
        waiting=sum(worker.waiting for worker in workers),
    )


def _open(alias: str, now: datetime) -> OpenCalls:
    # The oldest ones: among them is whatever has been waiting, running or silent for long.
    oldest = Call.objects.using(alias).visible().open().order_by("enqueued_at")[: LIMIT + 1]
    waits = Q(status=CallStatus.SUBMITTED, run__isnull=True) & (Q(due_at__isnull=True) | Q(due_at__lte=now))
    found: dict[str, Any] = oldest.aggregate(
        **{status.value: Count("pk", filter=Q(status=status)) for status in OPEN},
        all=Count("pk"),
        is_silent=Count("pk", filter=silent(now)),
        is_overdue=Count("pk", filter=overdue(now)),
        waiting_since=Min("enqueued_at", filter=waits),
        running_since=Min("started_at", filter=Q(status=CallStatus.STARTED)),
    )
    is_capped = found["all"] > LIMIT
    return OpenCalls(
        by_status={status: Counted(min(found[status.value], LIMIT), is_capped) for status in sorted(OPEN)},
        silent=Counted(min(found["is_silent"], LIMIT), is_capped),
        overdue=Counted(min(found["is_overdue"], LIMIT), is_capped),
        waiting_since=found["waiting_since"],
        running_since=found["running_since"],
    )


def _ended(alias: str, status: CallStatus, since: datetime | None = None) -> Counted:
    # All of it is in one index, in this order: so not even the rows themselves are read.
    ended = Call.objects.using(alias).terminal().filter(status=status).order_by("-terminal_at")
    if since is not None:
        ended = ended.filter(terminal_at__gte=since)
    number = ended.values("terminal_at")[: LIMIT + 1].count()
    return Counted(min(number, LIMIT), number > LIMIT)
