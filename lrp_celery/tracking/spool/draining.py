"""The life of a drainer: it tells what there is, and sleeps until it is woken."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from lrp_celery.core.errors import StoreUnavailable
from lrp_celery.tracking.spool.bell import Ear
from lrp_celery.tracking.spool.drainer import Backlog, Drainer

logger = logging.getLogger("lrp_celery.drainer")

#: Seconds between two batches while there is something to tell; what waits meanwhile is told together.
PACE: Final = 0.04
#: Seconds that it sleeps at most.
NAP: Final = 1.0
#: Seconds between two tries on a store that is away.
PAUSE: Final = 1.0
#: Seconds between two complaints.
SILENCE: Final = 60.0


class Draining:
    """Runs a drainer in a thread of its own."""

    def __init__(self, drainer: Drainer, ear: Ear) -> None:
        self._drainer = drainer
        self._ear = ear
        self._ended = threading.Event()
        self._silent_until = 0.0
        self._backlog = Backlog()
        self._thread = threading.Thread(target=self._run, name="lrp_celery-drainer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def backlog(self) -> Backlog:
        """What waits, as of the last round."""
        return self._backlog

    def finish(self, within: float) -> None:
        """Tell what is left, for `within` seconds at most. What could not be told waits for the next drainer."""
        until = time.monotonic() + within
        self._ended.set()
        self._ear.wake()
        self._thread.join(within)
        if self._thread.is_alive():
            return
        try:
            self._drainer.finish(until - time.monotonic())
        except Exception as error:  # noqa: BLE001 - nobody is there any more who could mend it
            logger.warning("What is left in the spools waits for the next worker on this host: %s", error)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                told = self._drainer.round()
                self._backlog = self._drainer.backlog()
            except Exception as error:  # noqa: BLE001 - complained of, and tried again: nobody else would
                self._complain(error)
                self._ended.wait(PAUSE)
                continue
            if told:
                self._ended.wait(PACE)
            else:
                self._ear.sleep(NAP, unless=lambda: self._ended.is_set() or self._drainer.has_news())

    def _complain(self, error: Exception) -> None:
        if time.monotonic() < self._silent_until:
            return
        self._silent_until = time.monotonic() + SILENCE
        if isinstance(error, StoreUnavailable):
            logger.warning("The store of the calls is away, reports wait in the spools: %s", error)
        else:
            logger.error("Draining failed; it is tried again.", exc_info=error)
