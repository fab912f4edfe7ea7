"""Telling of calls that have ended, in a thread of its own: what listeners do may take long, and must keep nothing else waiting."""

from __future__ import annotations

import logging
import threading
from typing import Final

from lrp_celery.core.errors import StoreError
from lrp_celery.tracking.callstore import CallStore

logger = logging.getLogger("lrp_celery.telling")

#: Seconds between two looks for calls that have ended.
EVERY: Final = 0.5
#: So many are told of by one step.
SOME: Final = 20


class Telling:
    """Tells of whatever has ended, wherever it ran, until it is finished."""

    def __init__(self, store: CallStore) -> None:
        self._store = store
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lrp_celery-telling", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, within: float) -> None:
        """Tell of what has ended until now, for `within` seconds at most. What is left others tell of."""
        self._ended.set()
        self._thread.join(within)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ended.wait(EVERY)
            try:
                tell_all(self._store)
            except StoreError as error:
                logger.info("Nobody is told yet of what has ended: %s", error)
            except BaseException:
                logger.exception("Telling of what has ended failed; it goes on.")


def tell_all(store: CallStore) -> None:
    """Tell whoever listens in this process of every call that has ended, and that nobody else tells of."""
    while store.tell_ended(SOME) == SOME:
        pass
