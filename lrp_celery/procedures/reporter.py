"""What a run says of itself, brought to its call's row without ever slowing or harming the run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lrp_celery.core.errors import StoreError
from lrp_celery.core.redaction import Redactor
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.owned import MAX_LINES, Note
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.store import MAX_SUMMARY

logger = logging.getLogger("lrp_celery.procedures")

#: Seconds between two writes; what is said in between waits, the last word of progress is enough.
INTERVAL: Final = 0.5
_LONGEST_TEXT: Final = 200


class Reporter:
    """One run's. It writes on the run's own store, never in the body's transactions."""

    def __init__(
        self,
        store: CallStore,
        call_id: str,
        run: str,
        redactor: Redactor,
        secrets: frozenset[str],
        may_write: Callable[[], bool],
    ) -> None:
        self._store = store
        self._call_id = call_id
        self._run = run
        self._redactor = redactor
        self._secrets = secrets
        self._may_write = may_write
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._lines: list[str] = []
        self._said = 0
        self._next = 0.0

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Note how far the run is."""
        shown = self._redactor.text(text, self._secrets, _LONGEST_TEXT)
        with self._lock:
            self._progress = Progress(done=done, total=total, text=shown)
        self._write_now_and_then()

    def log(self, text: str) -> None:
        """Note a line."""
        with self._lock:
            self._said += 1
            # Beyond the bound lines are only counted: they cost no memory.
            self._lines.append(self._redactor.text(text, self._secrets, MAX_SUMMARY) if self._said <= MAX_LINES else "")
        self._write_now_and_then()

    def last_words(self) -> Note | None:
        """Return what has not been written yet; it goes with the outcome."""
        with self._lock:
            return self._taken()

    def _write_now_and_then(self) -> None:
        if time.monotonic() < self._next or not self._may_write():
            return
        self._next = time.monotonic() + INTERVAL
        with self._lock:
            said = self._taken()
        if said is None:
            return
        try:
            self._store.note(self._call_id, self._run, said)
        except StoreError as error:
            logger.warning("What call %s says of itself is written later: %s", self._call_id, error)
            self._take_back(said)

    def _taken(self) -> Note | None:
        if self._progress is None and not self._lines:
            return None
        said = Note(progress=self._progress, lines=tuple(self._lines))
        self._progress, self._lines = None, []
        return said

    def _take_back(self, said: Note) -> None:
        with self._lock:
            self._progress = self._progress or said.progress
            self._lines[:0] = said.lines
            self._next = time.monotonic() + 10 * INTERVAL


class Unkept(Reporter):
    """Where there is no row: what a run says of itself is checked, and dropped."""

    def __init__(self) -> None:
        """Take nothing: there is nowhere to write to."""

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Drop it."""

    def log(self, text: str) -> None:
        """Drop it."""
