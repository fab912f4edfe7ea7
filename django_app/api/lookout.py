"""Looking at the calls of all who wait at once, where the database tells nobody of news."""

from __future__ import annotations

import threading
import time
from functools import lru_cache
from typing import Final

from django_app.stores import DjangoTrackingStore
from lrp_celery.core.errors import StoreError

#: Seconds between two looks, at least.
EVERY: Final = 0.05
#: The share of a thread's time that may be spent on looking, however many calls there are.
SHARE: Final = 0.2
#: Seconds after the last wait until nobody looks any more.
IDLE: Final = 5.0
#: Calls that one statement asks for.
_CHUNK: Final = 500


class Lookout:
    """One thread that asks the database for all calls that are waited for in this process, and wakes those who have news.

    Begun by whoever waits, ended when nobody does. It is silent where PostgreSQL tells. News is a
    hint: that a look fails, or comes late, only means that whoever waits looks for themselves.
    """

    def __init__(self, store: DjangoTrackingStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._needed_at = 0.0

    def ensure(self) -> None:
        """See to it that somebody looks, at least until whoever asks for it has begun to wait."""
        with self._lock:
            self._needed_at = time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lrp_celery-lookout", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._may_end():
            began = time.monotonic()
            self._look()
            time.sleep(max(EVERY, (time.monotonic() - began) / SHARE))

    def _look(self) -> None:
        watched = [] if self._store.tells else self._store.newsroom.watched()
        for start in range(0, len(watched), _CHUNK):
            asked = watched[start : start + _CHUNK]
            try:
                still_open = self._store.still_open(asked)
            except StoreError:
                return
            for call_id in asked:
                if call_id not in still_open:
                    self._store.newsroom.tell(call_id)

    def _may_end(self) -> bool:
        with self._lock:
            if not self._store.newsroom.is_empty:
                self._needed_at = time.monotonic()
            if time.monotonic() - self._needed_at < IDLE:
                return False
            self._thread = None
            return True


@lru_cache(maxsize=4)
def lookout(store: DjangoTrackingStore, pid: int) -> Lookout:
    """Return the one lookout of this process for a store: a forked child has none of its parent's threads."""
    return Lookout(store)
