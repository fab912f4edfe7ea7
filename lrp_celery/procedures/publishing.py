"""Sending a call's message without making anybody wait long, and without losing it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from kombu.exceptions import OperationalError

from lrp_celery.core.errors import StoreError
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking.sending import send_all

logger = logging.getLogger("lrp_celery.procedures")

#: Seconds for which nobody tries a broker again that did not answer in time: the relay does.
RESPITE: Final = 5.0
#: Seconds that each of many messages may take besides.
_EACH: Final = 0.002

T = TypeVar("T")


class BrokerAway(Exception):
    """The broker did not answer, or did not lately, so it was not asked."""


class _Errand(Generic[T]):
    """Something that is done by another thread, for one that waits for it; less than a `Future`, for every call waits."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._undone = threading.Lock()
        self._undone.acquire()
        self._error: BaseException | None = None

    def carry_out(self) -> None:
        """Do it; whatever it raises is for whoever waits to deal with."""
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001 - see above
            self._error = error
        finally:
            self._undone.release()

    def is_done(self, within: float = 0.0) -> bool:
        """Wait until it is done, at most so many seconds; return whether it is."""
        # Put back, so that it may be asked again.
        is_done = self._undone.acquire(timeout=within)
        if is_done:
            self._undone.release()
        return is_done

    def result(self) -> T:
        """Return or raise what came of it, once it is done."""
        if self._error is not None:
            raise self._error
        return self._value


class Publisher:
    """Talks to the broker from one thread of its own, so that one that hangs costs a caller a bounded wait, and only one.

    The thread is a daemon: a program that has made its calls can end although the broker hangs.
    """

    def __init__(self) -> None:
        self._errands: SimpleQueue[_Errand[Any]] = SimpleQueue()
        self._stuck: _Errand[Any] | None = None
        self._respite_until = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="lrp_celery-publisher", daemon=True).start()

    def send(self, app: Any, envelope: Envelope, within: float) -> bool:
        """Send the message, waiting at most `within` seconds; return whether it is known to have gone out."""
        return self.carry_out(partial(envelope.publish, app), within)

    def carry_out(self, work: Callable[[], None], within: float) -> bool:
        """Send what `work` sends, likewise."""
        try:
            self.do(work, within)
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
        errand = _Errand(work)
        self._errands.put(errand)
        if not errand.is_done(within):
            self._give_up(errand, "no answer in time")
            raise BrokerAway
        try:
            return errand.result()
        except (OSError, OperationalError) as error:
            self._give_up(None, f"{type(error).__name__}: {error}")
            raise BrokerAway from error

    def may_try(self) -> bool:
        """Whether the broker answered lately, as far as is known."""
        with self._lock:
            if self._stuck is not None and self._stuck.is_done():
                self._stuck = None
            return self._stuck is None and time.monotonic() >= self._respite_until

    def _serve(self) -> None:
        while True:
            self._errands.get().carry_out()

    def _give_up(self, stuck: _Errand[Any] | None, why: str) -> None:
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


def send_or_leave_all(app: Any, runtime: Runtime, envelopes: Mapping[str, Envelope]) -> None:
    """Send the messages of many calls, by their ids, likewise: what is not known to have gone out the relay sends."""
    certain = 0

    def send() -> None:
        nonlocal certain
        with app.producer_or_acquire() as producer:
            sent = send_all(producer, [envelope.message(app) for envelope in envelopes.values()])
            certain = sent.certain
            if sent.error is not None:
                raise sent.error

    limit = runtime.limits.publish_wait + _EACH * len(envelopes)
    if _publisher(os.getpid()).carry_out(send, limit):
        return
    try:
        runtime.own.none_sent(list(envelopes)[certain:])
    except StoreError as error:
        logger.warning("The messages of %d calls go out later than usual: %s", len(envelopes) - certain, error)
