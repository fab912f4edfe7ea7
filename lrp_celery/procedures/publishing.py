"""Sending a call's message without making anybody wait long, and without losing it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLong
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from kombu.exceptions import OperationalError

from lrp_celery.core.errors import StoreError
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.runtime import Runtime

logger = logging.getLogger("lrp_celery.procedures")

#: Seconds for which nobody tries a broker again that did not answer in time: the relay does.
RESPITE: Final = 5.0

T = TypeVar("T")


class BrokerAway(Exception):
    """The broker did not answer, or did not lately, so it was not asked."""


class Publisher:
    """Talks to the broker from one thread of its own, so that one that hangs costs a caller a bounded wait, and only one.

    The thread is a daemon: a program that has made its calls can end although the broker hangs.
    """

    def __init__(self) -> None:
        self._orders: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._stuck: Future[Any] | None = None
        self._respite_until = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._carry_out, name="lrp_celery-publisher", daemon=True).start()

    def send(self, app: Any, envelope: Envelope, within: float) -> bool:
        """Send the message, waiting at most `within` seconds; return whether it is known to have gone out."""
        try:
            self.do(partial(envelope.publish, app), within)
        except BrokerAway:
            return False
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the call has been made
            logger.warning("A message could not be sent: %s: %s", type(error).__name__, error)
            return False
        return True

    def do(self, work: Callable[[], T], within: float) -> T:
        """Return what `work` does with the broker, waiting at most `within` seconds; else `BrokerAway`."""
        if not self.may_try():
            raise BrokerAway
        done: Future[T] = Future()
        self._orders.put((done, work))
        try:
            return done.result(within)
        except TooLong:
            self._give_up(done, "no answer in time")
            raise BrokerAway from None
        except (OSError, OperationalError) as error:
            self._give_up(None, f"{type(error).__name__}: {error}")
            raise BrokerAway from error

    def may_try(self) -> bool:
        """Whether the broker answered lately, as far as is known."""
        with self._lock:
            if self._stuck is not None and self._stuck.done():
                self._stuck = None
            return self._stuck is None and time.monotonic() >= self._respite_until

    def _carry_out(self) -> None:
        while True:
            done, work = self._orders.get()
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - for whoever waits to deal with
                done.set_exception(error)

    def _give_up(self, stuck: Future[Any] | None, why: str) -> None:
        with self._lock:
            self._stuck = stuck
            self._respite_until = time.monotonic() + RESPITE
        logger.warning("The broker is away (%s); the relay sends what waits. Next try in %g s.", why, RESPITE)


@lru_cache(maxsize=1)
def _publisher(pid: int) -> Publisher:
    # One for each process: a forked child has none of its parent's threads.
    return Publisher()


def ask_broker(runtime: Runtime, work: Callable[[], T]) -> T:
    """Return what `work` does with the broker, within PUBLISH_WAIT; else `BrokerAway`."""
    return _publisher(os.getpid()).do(work, runtime.limits.publish_wait)


def send_or_leave(app: Any, runtime: Runtime, call_id: str, envelope: Envelope) -> None:
    """Send a call's message now, or see to it that the relay does. Never raises: the call has been made."""
    if _publisher(os.getpid()).send(app, envelope, runtime.limits.publish_wait):
        return
    try:
        runtime.own.not_sent(call_id)
    except StoreError as error:
        # Nothing is lost: the relay sends it when nobody has claimed it for RESEND_AFTER.
        logger.warning("The message of call %s goes out later than usual: %s", call_id, error)
