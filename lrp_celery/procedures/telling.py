"""Telling of calls that have ended, in a thread of its own: what listeners do may take long, and must keep nothing else waiting."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from lrp_celery.core.errors import StoreError
from lrp_celery.tracking.callstore import CallStore

logger = logging.getLogger("lrp_celery.telling")

#: Seconds between two looks for calls that have ended.
EVERY: Final = 0.5
#: Seconds after which a thread is given up that listeners of one call do not return to, and how many may be.
LONGEST: Final = 60.0
MOST: Final = 5


class Telling:
    """Tells of whatever has ended, wherever it ran, until it is finished."""

    def __init__(self, store: CallStore, longest: float = LONGEST) -> None:
        self._store = store
        self._longest = longest
        self._ended = threading.Event()
        self._teller = _Teller(store, self._ended)
        self._given_up: list[_Teller] = []

    def start(self) -> None:
        """Begin."""
        self._teller.start()

    def look(self) -> None:
        """See to it that a listener that hangs does not keep others from hearing of other calls; to be called now and then."""
        if self._teller.busy_for() < self._longest:
            return
        self._given_up = [teller for teller in self._given_up if teller.is_alive()]
        if len(self._given_up) >= MOST:
            return
        logger.error("A receiver of call_ended has not returned for %g s; another thread goes on.", self._longest)
        self._teller.give_up()
        self._given_up.append(self._teller)
        self._teller = _Teller(self._store, self._ended)
        self._teller.start()

    def finish(self, within: float) -> None:
        """Tell of what has ended until now, for `within` seconds at most. What is left others tell of."""
        self._ended.set()
        self._teller.join(within)
        self._teller.give_up()


class _Teller(threading.Thread):
    def __init__(self, store: CallStore, ended: threading.Event) -> None:
        super().__init__(name="lrp_celery-telling", daemon=True)
        self._store = store
        self._ended = ended
        self._is_given_up = False
        self._since: float | None = None

    def busy_for(self) -> float:
        """Return for how many seconds it has been telling of one call."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def give_up(self) -> None:
        """End it as soon as it comes back."""
        self._is_given_up = True

    def run(self) -> None:
        """Tell until the end, and then once more of what there is."""
        while not self._is_given_up:
            is_last = self._ended.wait(EVERY)
            while self._tell_next():
                pass
            if is_last:
                return

    def _tell_next(self) -> bool:
        if self._is_given_up:
            return False
        self._since = time.monotonic()
        try:
            return self._store.tell_next()
        except StoreError as error:
            logger.info("Nobody is told yet of what has ended: %s", error)
        except BaseException:
            # It is told of once more, later; and first all the others.
            logger.exception("Telling of a call that has ended failed.")
            return True
        finally:
            self._since = None
        return False


def tell_all(store: CallStore, within: float) -> None:
    """Tell whoever listens in this process of calls that have ended, for `within` seconds, or a little more."""
    until = time.monotonic() + within
    try:
        while time.monotonic() < until and store.tell_next():
            pass
    except Exception:
        logger.exception("Telling of what has ended failed; others go on.")
