"""A process's half of the spool: it writes what it has to report."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from lrp_celery.tracking.owned import Settled
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import Ended, Report, Started, Unwound
from lrp_celery.tracking.spool.bell import Bell
from lrp_celery.tracking.spool.files import Name, Written, said_now
from lrp_celery.tracking.spool.frames import LONGEST

logger = logging.getLogger("lrp_celery.recorder")

#: Bytes after which a process begins a new file, so that what was told can be removed.
SEGMENT: Final = 1024 * 1024
#: Seconds between two looks whether a full spool has room again, and between two tries on a disk that takes nothing.
PAUSE: Final = 1.0


class Spool:
    """What a worker's main process opens, and each of its children goes on with in files of its own.

    Safe for threads and forks.
    """

    def __init__(self, folder: Path, *, place: str, boot: str, worker: str, limit: int, bell: Bell) -> None:
        self.folder = folder
        self.place = place
        self.bell = bell
        self._boot = boot
        self._worker = worker
        self._limit = limit
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin as a process that has written nothing."""
        # Re-entrant: a signal's handler may report while its thread is writing.
        self._lock = threading.RLock()
        self._file: Written | None = None
        self._number = 0
        self._sealed: list[tuple[Path, int]] = []
        self._under_way: dict[str, Started] = {}
        self._dropped = 0
        self._full_until = 0.0
        self._unusable_until = 0.0
        self._look_at = 0.0
        self._is_file_lost = False

    def append(self, report: Report) -> bool:
        """Keep a report for the drainer; False: the disk does not take it. What is too much is dropped and counted."""
        try:
            with self._lock:
                is_kept = self._write(report)
        except OSError as error:
            self._unusable(error)
            return False
        self.bell.ring()
        return is_kept

    def close(self) -> None:
        """Write no more to the present file; whoever reports after that begins another one."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, report: Report) -> bool:
        """Write a report, or drop it; False: it is so long that nobody would read it."""
        record = said_now(self._shortened(report))
        if len(record) > LONGEST:
            return False
        if not isinstance(report, Started):
            self._forget_run(report)
        file = self._file
        if file is None or self._is_lost(file) or (file.grown > SEGMENT and not self._is_full(file)):
            file = self._begin()
        # An owned call's outcome is not only watched: it is nowhere else.
        if self._is_full(file) and not isinstance(report, Settled):
            self._drop(file)
            return True
        file.append(record)
        if isinstance(report, Started):
            self._under_way[report.run.token] = report
        return True

    def _is_lost(self, file: Written) -> bool:
        """Whether nothing more must be written to a file: the disk refused it, or somebody has removed it."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + PAUSE
            self._is_file_lost = self._is_file_lost or not file.is_there
        return self._is_file_lost

    def _forget_run(self, report: Report) -> None:
        if isinstance(report, Ended | Unwound) and report.run is not None:
            self._under_way.pop(report.run.token, None)

    def _shortened(self, report: Report) -> Report:
        """Leave out what this process has already said of a run that is under way."""
        if not isinstance(report, Ended) or report.run is None or report.run.token not in self._under_way:
            return report
        # What a database forgets that is killed, it may be told only half: who ran it, at least.
        return Ended(
            call_id=report.call_id, turn=report.turn, run=report.run, outcome=report.outcome, error=report.error
        )

    def _begin(self) -> Written:
        """Begin a new file with the runs that are under way: the old one may be removed before they have ended."""
        if time.monotonic() < self._unusable_until:
            raise OSError("It was not to be written to a moment ago.")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        new = Written(self._next_path(), self._worker)
        try:
            for started in self._under_way.values():
                new.append(said_now(started))
        except OSError:
            new.close()
            raise
        new.begin_here()
        # Only now, so that the process always has a file that is locked.
        self._seal()
        new.count_dropped(self._dropped)
        self._file = new
        self._is_file_lost = False
        return new

    def _next_path(self) -> Path:
        while True:
            self._number += 1
            path = self.folder / str(Name(self._boot, os.getpid(), self._number))
            # A dead process of this worker may have had our number, and left files that still wait.
            if not path.exists():
                return path

    def _seal(self) -> None:
        if self._file is not None:
            self._sealed.append((self._file.path, self._file.size))
            self._file.close()
            self._file = None

    def _is_full(self, file: Written) -> bool:
        if not self._sealed:
            return file.size > self._limit
        now = time.monotonic()
        if now < self._full_until:
            return True
        if sum(size for _, size in self._sealed) + file.size > self._limit:
            self._sealed = [(path, size) for path, size in self._sealed if path.exists()]
        is_full = sum(size for _, size in self._sealed) + file.size > self._limit
        self._full_until = now + PAUSE if is_full else 0.0
        return is_full

    def _drop(self, file: Written) -> None:
        self._dropped += 1
        file.count_dropped(self._dropped)
        losses.add("report, for its spool is full")

    def _unusable(self, error: OSError) -> None:
        with self._lock:
            # It keeps its lock: a process that has none is taken for dead, and its runs with it.
            self._is_file_lost = True
            now = time.monotonic()
            if now >= self._unusable_until:
                logger.warning("The spool in %s takes nothing (%s): reports are written in place.", self.folder, error)
                self._unusable_until = now + 60.0


_open: Spool | None = None


def leave(report: Report, place: str | None) -> bool:
    """Leave a report for the store at `place` to the drainer of this worker; False: there is none, or it could not be kept."""
    spool = _open
    return spool is not None and spool.place == place and spool.append(report)


def open_spool() -> Spool | None:
    """Return the spool of this worker's processes; None: this is no worker, or it has none."""
    return _open


def set_open(spool: Spool | None) -> None:
    """Let the recorders of this process, and of those that it forks, use a spool; None: none."""
    global _open  # noqa: PLW0603 - one for each worker
    _open = spool
