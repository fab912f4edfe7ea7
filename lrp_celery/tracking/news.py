"""Waking whoever waits for a call.

News is a hint: it may come for nothing, and it may be lost. Whoever waits looks at the row
when he is woken, and now and then besides.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


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
                left = self._watches[call_id]
                left.remove(watch)
                if not left:
                    del self._watches[call_id]

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

    @property
    def is_empty(self) -> bool:
        """Whether nobody watches."""
        with self._lock:
            return not self._watches
