"""The road from a signal to a store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from billiard.exceptions import SoftTimeLimitExceeded

from lrp_celery.core.errors import StoreUnavailable
from lrp_celery.tracking.reports import Enqueued, Report
from lrp_celery.tracking.store import ReportStore

logger = logging.getLogger("lrp_celery.recorder")


class Recorder(Protocol):
    """Takes reports from signal receivers."""

    def record(self, report: Report, *, inline: bool = False) -> None:
        """Bring a report to the store.

        Called in whatever process and thread the signal fires, also on a worker's event loop:
        so it never raises an `Exception` but `SoftTimeLimitExceeded`, which is meant for the
        task, and never waits long. `inline`: the task runs inside its caller (eager mode),
        whose connection and transaction the report shares. Not promised: that the report
        arrives; what is lost is counted.
        """
        ...

    def record_all(self, reports: Sequence[Enqueued]) -> None:
        """Bring the reports of many calls that are asked for to the store, in few writes; likewise."""
        ...


class Losses:
    """Counts what tracking could not record in this process, and says so once a minute.

    The counts are those of this process since it began.
    """

    INTERVAL: Final = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._silent_until = 0.0

    def add(self, what: str, error: BaseException | None = None, task: str | None = None, *, count: int = 1) -> None:
        """Count one `what` (e.g. "report") lost to `error`; log unless that was done within the last minute."""
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + count
            total = sum(self._counts.values())
            if time.monotonic() < self._silent_until:
                return
            self._silent_until = time.monotonic() + self.INTERVAL
        logger.error(
            "Tracking lost a %s%s; %d lost in this process so far. The task itself is not affected. %s",
            what,
            f" of {task}" if task else "",
            total,
            "" if error is None else _shown(error),
        )

    def counts(self) -> dict[str, int]:
        """Return how many were lost, by kind."""
        with self._lock:
            return dict(self._counts)


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:  # noqa: BLE001 - an error's own str may raise anything
        return type(error).__name__


#: What this process has lost.
losses: Final = Losses()


class Pause:
    """Spares tasks and publishers the wait for a store that is away.

    After a failure, rows are not made at publish for a while: the messages carry enough for a
    worker to make them. A failure that took long silences every report for as long, so that not
    each task pays the same wait; one that was refused at once costs nothing, and goes on being tried.
    """

    SECONDS: Final = 5.0
    LONG: Final = 0.5

    def __init__(self) -> None:
        self._publishing_until = 0.0
        self._until = 0.0

    def write(self, store: ReportStore, report: Report) -> None:
        """Merge the report into its row; count it as lost if that fails, or if the store is away."""
        publishing = isinstance(report, Enqueued)
        until = self._publishing_until if publishing else self._until
        self._write("row at publish" if publishing else "report", until, lambda: store.report(report))

    def write_all(self, store: ReportStore, reports: Sequence[Enqueued]) -> None:
        """Make the rows of calls that are asked for; likewise."""
        self._write("row at publish", self._publishing_until, lambda: store.enqueue_all(reports), len(reports))

    def _write(self, what: str, until: float, write: Callable[[], object], count: int = 1) -> None:
        began = time.monotonic()
        if began < until:
            losses.add(what, count=count)
            return
        try:
            write()
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - watching must never harm the watched
            losses.add(what, error, count=count)
            if isinstance(error, StoreUnavailable):
                self._begin(began)

    def _begin(self, failed_since: float) -> None:
        now = time.monotonic()
        self._publishing_until = now + self.SECONDS
        if now - failed_since > self.LONG:
            self._until = now + self.SECONDS


class SyncRecorder:
    """Writes each report to the store at once, in the process where the signal fired.

    Simple, and as safe as the store: a report that was written survives any kill. It costs
    the task one or two statements at its start and its end, and what happens while the store
    is away is lost (counted, logged).
    """

    def __init__(self, store: ReportStore) -> None:
        self._store = store
        self._pause = Pause()

    def record(self, report: Report, *, inline: bool = False) -> None:
        """Merge the report into its row now."""
        self._pause.write(self._store, report)

    def record_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows now."""
        self._pause.write_all(self._store, reports)
