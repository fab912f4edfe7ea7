"""What a pool process tells its worker's side process, and hears from it.

One folder for each start of a worker, and in it for each process that runs calls

    <pid>.runs    the calls that run in it, JSON; locked (flock) as long as the process lives
    <pid>.sock    a datagram socket on which it hears of aborts

A lock that is free proves that its process is dead, whatever its number belongs to now.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lrp_celery.core.locks import HeldFile, is_held, make_held
from lrp_celery.procedures.aborts import Board
from lrp_celery.tracking.status import Reason

_LONGEST: Final = 65_536
#: Seconds for which a dead process is proof that its calls are lost; then what it left is cleared away.
_PROOF: Final = 60.0


class Notices:
    """The pool process's half: shows the runs of `board` in `folder`, and passes on to it what it hears."""

    def __init__(self, folder: Path, board: Board) -> None:
        self._folder = folder
        self._board = board
        self._lock = threading.Lock()
        self._file: HeldFile | None = None
        self._longest = 0
        os.register_at_fork(after_in_child=self._forked)
        board.changed = self.write

    def write(self) -> None:
        """Write down which calls run now. Never raises: without it, a lease lapses, and no abort is heard of."""
        with contextlib.suppress(OSError), self._lock:
            if self._file is None:
                self._file = self._open()
            shown = json.dumps(self._board.runs()).encode()
            self._longest = max(self._longest, len(shown))
            # One write: whoever reads meanwhile sees the old or the new, followed by blanks.
            os.pwrite(self._file.file, shown.ljust(self._longest), 0)

    def _open(self) -> HeldFile:
        pid = os.getpid()
        # Before the file is there, by which others find the socket.
        hears = self._listening(pid)
        file = make_held(self._folder / f"{pid}.runs")
        threading.Thread(target=self._hear, args=(hears,), name="lrp_celery-aborts", daemon=True).start()
        return file

    def _listening(self, pid: int) -> socket.socket:
        path = self._folder / f"{pid}.sock"
        path.unlink(missing_ok=True)
        hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        hears.bind(str(path))
        return hears

    def _hear(self, hears: socket.socket) -> None:
        while True:
            try:
                news = json.loads(hears.recv(_LONGEST))
                self._board.tell(
                    news["call_id"], news["run"], news["reason"], Reason(news["cause"]), force=news["force"]
                )
            except (ValueError, KeyError, TypeError):
                continue
            except OSError:
                return

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._file = None
        self._longest = 0


class Noticeboard:
    """The side process's half: what the processes of one worker say they run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dead_since: dict[int, float] = {}

    def runs(self) -> list[tuple[str, str]]:
        """Return (call id, run) of all processes that live and are not stopped."""
        return [run for pid, runs in self._living() if not _is_stopped(pid) for run in runs]

    def tell(self, call_id: str, run: str, reason: str | None, cause: Reason, *, force: bool = False) -> bool:
        """Tell the process that runs `run` that its call is to end; return whether it was found."""
        told = {"call_id": call_id, "run": run, "reason": reason, "cause": cause, "force": force}
        news = json.dumps(told).encode()
        for pid, runs in self._living():
            if (call_id, run) in runs:
                return _send(self._folder / f"{pid}.sock", news)
        return False

    def is_dead(self, pid: int) -> bool:
        """Whether the process with this number, of this worker, is gone for sure; False: it lives, or nobody knows."""
        path = self._folder / f"{pid}.runs"
        return path.exists() and not _is_held(path)

    def forget(self, pid: int) -> None:
        """Clear away what a dead process left."""
        for ending in ("runs", "sock"):
            (self._folder / f"{pid}.{ending}").unlink(missing_ok=True)

    def _living(self) -> Iterator[tuple[int, list[tuple[str, str]]]]:
        now = time.monotonic()
        for path in self._folder.glob("*.runs"):
            pid = int(path.stem)
            if _is_held(path):
                self._dead_since.pop(pid, None)
                with contextlib.suppress(OSError, ValueError):
                    yield pid, [(call_id, run) for call_id, run in json.loads(path.read_bytes() or b"[]")]
            elif now - self._dead_since.setdefault(pid, now) > _PROOF:
                del self._dead_since[pid]
                self.forget(pid)


def _send(path: Path, news: bytes) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaks:
        speaks.settimeout(0)
        speaks.sendto(news, str(path))
        return True
    return False


def _is_held(path: Path) -> bool:
    """Whether its process lives; True also where that cannot be told, or the file has just gone."""
    try:
        return is_held(path) or not path.exists()
    except OSError:
        return True


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state in {"T", "t"}
