"""Waking whoever waits for a call.

News is a hint: it may come for nothing, and it may be lost. Whoever waits looks at the row
when he is woken, and now and then besides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from weakref import WeakSet

logger = logging.getLogger("lrp_celery.stores")

#: Seconds for which a line is listened to before somebody asks whether it is still needed.
TICK: Final = 5.0
#: Seconds after which a line is hung up for which nobody waits any more.
IDLE: Final = 60.0
#: Seconds between losing a line and opening the next one.
RESPITE: Final = 2.0

#: `hear(seconds)`: yield the calls of which news comes within so many seconds (None: some may have been missed).
Hear = Callable[[float], Iterable[str | None]]


class Watch:
    """Waits for news of one call."""

    def __init__(self) -> None:
        self._news = threading.Event()
        self._listener: Callable[[], None] | None = None

    def wait(self, seconds: float) -> bool:
        """Wait until there is news, at most for `seconds`; return whether there was. The next wait waits for later news."""
        came = self._news.wait(seconds)
        self._news.clear()
        return came

    def on_news(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, from another thread, whenever there is news."""
        self._listener = listener

    def tell(self) -> None:
        """Wake whoever waits."""
        self._news.set()
        if self._listener is not None:
            self._listener()


class Newsroom:
    """Passes news on to the watches of this process. Safe for threads."""

    def __init__(self) -> None:
        self._forget()
        _shared.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[str, list[Watch]] = {}

    @contextlib.contextmanager
    def watching(self, call_id: str) -> Iterator[Watch]:
        """Watch a call within this context."""
        watch = Watch()
        with self._lock:
            self._watches.setdefault(call_id, []).append(watch)
        try:
            yield watch
        finally:
            with self._lock:
                # A child that was forked in this context does not know of it.
                left = [other for other in self._watches.pop(call_id, ()) if other is not watch]
                if left:
                    self._watches[call_id] = left

    def tell(self, call_id: str) -> None:
        """Pass on that there is news of a call."""
        with self._lock:
            watches = tuple(self._watches.get(call_id, ()))
        for watch in watches:
            watch.tell()

    def tell_all(self) -> None:
        """Wake everybody: news may have been missed."""
        with self._lock:
            watches = [watch for several in self._watches.values() for watch in several]
        for watch in watches:
            watch.tell()

    def watched(self) -> list[str]:
        """Return the calls that somebody watches."""
        with self._lock:
            return list(self._watches)

    @property
    def is_empty(self) -> bool:
        """Whether nobody watches."""
        with self._lock:
            return not self._watches


class Listener(ABC):
    """Passes on what another process tells to a newsroom, as long as somebody watches there.

    It listens in a thread of its own, on a line that does nothing else, and begins with the
    first watch. Where there is no line whoever waits looks by himself.
    """

    def __init__(self, newsroom: Newsroom) -> None:
        self._newsroom = newsroom
        self._forget()
        _shared.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_lost = False
        self.is_listening = False
        """Whether whatever is told from now on is heard."""

    @abstractmethod
    def _line(self) -> contextlib.AbstractContextManager[Hear]:
        """Return a line that is open within its context: what is told from then on is heard."""

    @property
    @abstractmethod
    def _place(self) -> str:
        """Say whose news it is."""

    def _patience(self) -> tuple[float, float]:
        """Return `TICK` and `IDLE`."""
        return TICK, IDLE

    @contextlib.contextmanager
    def watching(self, call_id: str) -> Iterator[Watch]:
        """Watch a call; the first one opens the line."""
        with self._newsroom.watching(call_id) as watch:
            self._ensure()
            yield watch

    def close(self) -> None:
        """Hang up at the next news, or tick; the next watch opens a line again."""
        with self._lock:
            self._is_closed = True

    def _ensure(self) -> None:
        with self._lock:
            self._is_closed = False
            if self._thread is not None and self._thread.is_alive():
                return
            thread = threading.Thread(target=self._run, name="lrp_celery-news", daemon=True)
            # No thread can be had: at the end of the process, or where there are too many.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while not self._may_end():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whoever waits looks by himself meanwhile
                if not self._is_needless:
                    self._lament(error)
                    time.sleep(RESPITE)

    def _lament(self, error: Exception) -> None:
        """Say that the line is lost: once, until it is there again."""
        if not self._is_lost:
            kind = type(error).__name__
            logger.warning("Waiters look for themselves, %s does not tell: %s", self._place, kind)
        self._is_lost = True

    def _listen(self) -> None:
        try:
            with self._line() as hear:
                self._is_lost = False
                self.is_listening = True
                self._newsroom.tell_all()
                self._pass_on(hear)
        finally:
            self.is_listening = False
            self._newsroom.tell_all()

    def _pass_on(self, hear: Hear) -> None:
        tick, idle = self._patience()
        needed_at = time.monotonic()
        while not self._is_closed:
            for call_id in hear(tick):
                if call_id is None:
                    self._newsroom.tell_all()
                else:
                    self._newsroom.tell(call_id)
            if not self._newsroom.is_empty:
                needed_at = time.monotonic()
            elif time.monotonic() - needed_at >= idle:
                return

    @property
    def _is_needless(self) -> bool:
        return self._is_closed or self._newsroom.is_empty

    def _may_end(self) -> bool:
        with self._lock:
            if not self._is_needless:
                return False
            self._thread = None
            return True


#: What locks and threads there are; a forked child has none of the threads, and nobody there unlocks.
_shared: WeakSet[Newsroom | Listener] = WeakSet()


def _forked() -> None:
    for each in list(_shared):
        each._forget()  # noqa: SLF001 - defined here


os.register_at_fork(after_in_child=_forked)
