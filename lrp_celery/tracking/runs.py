"""What a worker process remembers of the runs that are under way in it."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Final

from lrp_celery.tracking.descendants import Following
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, RunFacts

#: The request key under which a delivery's token travels from the worker's main process to its pool.
RUN_KEY = "lrp_run"
#: Where in a token the boot id stands, for stores that look for it.
BOOT_AT: Final = 15
BOOT_LENGTH: Final = 12

_boot = uuid.uuid4().hex[:12]
_count = itertools.count(1)


def _new_boot() -> None:
    global _boot  # noqa: PLW0603 - a forked process is another one
    _boot = uuid.uuid4().hex[:12]


os.register_at_fork(after_in_child=_new_boot)


def boot_id() -> str:
    """Return what tells this process from every other, also from a later one with its number."""
    return _boot


def new_token() -> str:
    """Return a text that no other run has: of this process, and counted. Later ones sort after earlier ones."""
    return f"{time.time_ns() // 1000:014x}-{_boot}-{os.getpid()}-{next(_count)}"


def boot_of(token: str | None) -> str | None:
    """Return the boot id of the process that made a token; None: nobody did, or not this way."""
    return (token or "")[BOOT_AT : BOOT_AT + BOOT_LENGTH] or None


@dataclass(slots=True)
class Running:
    """A run in this thread: from its start to the last signal about it."""

    call_id: str
    turn: Turn
    run: RunFacts
    facts: CallFacts | None
    secrets: frozenset[str]
    inline: bool
    publish_failed: bool = False
    """Its own retry could not be published."""
    owned: bool = False
    """Whether the run writes for itself what becomes of its call."""
    following: Following | None = None
    """What its message says of the calls after its own."""


class Runs(threading.local):
    """The runs of this thread (or greenlet); nested where a task runs another one eagerly."""

    def __init__(self) -> None:
        self._running: list[Running] = []
        self._ended: Running | None = None

    def begin(self, run: Running) -> None:
        """Remember a run that begins."""
        self._running.append(run)

    def end(self, call_id: str) -> None:
        """Forget a run that has ended, but for the signals that Celery may still send about it."""
        self._ended = self.find(call_id)
        for position in reversed(range(len(self._running))):
            if self._running[position].call_id == call_id:
                # Only the innermost: a task that replaced itself eagerly is still under way around it.
                del self._running[position]
                return

    def find(self, call_id: str) -> Running | None:
        """Return the run of this call in this thread, also just after its end; None: it runs elsewhere."""
        for run in reversed(self._running):
            if run.call_id == call_id:
                return run
        return self._ended if self._ended is not None and self._ended.call_id == call_id else None

    @property
    def present(self) -> Running | None:
        """The run that this thread is in."""
        return self._running[-1] if self._running else None


runs = Runs()
