"""How a run that is under way is reached: its signal first, and then, if it is deaf, by an interrupt.

An interrupt must hit the function of exactly this run, wherever it waits, and never what
its thread does afterwards. So whoever strikes and the run that leaves agree under a lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Self

from lrp_celery.core.errors import CallAborted
from lrp_celery.procedures.failures import of_abort
from lrp_celery.procedures.signal import AbortController
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.status import Reason

#: Harmless where nobody handles it: by default it is ignored.
INTERRUPT: Final = signal.SIGURG


class Interrupted(BaseException):
    """Unwinds a function that did not react to its signal. No `except Exception` of its own may hold it."""


class Reach:
    """One run, from the moment its function may be interrupted to the moment it may not any more."""

    def __init__(self, record: CallRecord, run: str, controller: AbortController) -> None:
        self.call_id = record.call_id
        self.run = run
        self.cause = Reason.ABORTED
        self.grace = record.grace
        self._controller = controller
        self._reason: str | None = None
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._greenlet = _present_greenlet()
        self._inside = False
        self._is_struck = False
        self._strike_otherwise: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None
        self._expiry: threading.Timer | None = None

    def __enter__(self) -> Self:
        board.enter(self)
        self._inside = True
        if self._expiry is not None:
            self._expiry.start()
        return self

    def __exit__(self, *_: object) -> None:
        while True:
            try:
                self.leave()
            except Interrupted:
                # It struck in here, after the function had ended: too late to count.
                continue
            return

    def leave(self) -> None:
        """Let no interrupt strike any more. Doing it twice changes nothing."""
        with self._lock:
            self._inside = False
            if self._is_struck and self._greenlet is None and not _hears_signals(self._thread):
                _raise_in_thread(self._thread, None)
        board.leave(self)
        for timer in (self._timer, self._expiry):
            if timer is not None:
                timer.cancel()

    def expire_after(self, seconds: float) -> None:
        """Tell the run after so many seconds that its time is over, where nobody else does; before it is entered."""
        self._expiry = threading.Timer(seconds, self.tell, (None, Reason.TIMEOUT))
        self._expiry.daemon = True

    def tell(self, reason: str | None, cause: Reason) -> None:
        """Raise the run's signal, and interrupt it if it goes on after its grace. Doing it twice changes nothing."""
        with self._lock:
            if self._timer is not None or not self._inside:
                return
            self._reason, self.cause = reason, cause
            self._timer = threading.Timer(self.grace, self.strike)
            self._timer.daemon = True
            self._timer.start()
        self._controller.abort(reason, timed_out=cause is Reason.TIMEOUT)

    def kill(self) -> None:
        """Kill this process, if the run's function is still in it: under the lock, so that no other run is hit."""
        with self._lock:
            if self._inside:
                os.kill(os.getpid(), signal.SIGKILL)

    def strike(self) -> None:
        """Interrupt the run's function, if it is still in it."""
        with self._lock:
            if not self._inside or self._is_struck:
                return
            self._is_struck = True
            if self._strike_otherwise is not None:
                self._strike_otherwise()
            elif self._greenlet is not None:
                _from_hub(self._throw)
            elif _hears_signals(self._thread):
                os.kill(os.getpid(), INTERRUPT)
            else:
                _raise_in_thread(self._thread, Interrupted)

    def _throw(self) -> None:
        # In the hub, while the run waits: nothing else happens in this thread meanwhile, so that no lock is needed.
        if self._inside:
            self._greenlet.throw(Interrupted)

    @contextlib.contextmanager
    def struck_through(self, strike: Callable[[], None]) -> Iterator[None]:
        """Let `strike` interrupt what runs in this context: a coroutine is cancelled, not shot down with its loop."""
        self._strike_otherwise = strike
        try:
            yield
        finally:
            with self._lock:
                self._strike_otherwise = None

    def error(self) -> CallAborted:
        """Return what the run ends with."""
        return of_abort(self.cause, self._reason, self.call_id)

    @property
    def is_struck(self) -> bool:
        """Whether it was interrupted."""
        return self._is_struck

    @property
    def is_timed_out(self) -> bool:
        """Whether it was told that its time is over."""
        return self._timer is not None and self.cause is Reason.TIMEOUT

    @property
    def is_here(self) -> bool:
        """Whether this thread is in the run's function."""
        return self._inside and threading.get_ident() == self._thread


class Board:
    """The runs that are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._reaches: dict[str, Reach] = {}
        os.register_at_fork(after_in_child=self._forked)
        self.may_be_killed = False
        """Whether this is a process of a pool, which runs one call at a time and is replaced when it dies."""
        self.changed: Callable[[], None] | None = None
        """Called when the runs have changed."""

    def enter(self, reach: Reach) -> None:
        """Note a run that begins."""
        with self._lock:
            self._reaches[reach.run] = reach
        self._tell()

    def leave(self, reach: Reach) -> None:
        """Forget a run that has ended."""
        with self._lock:
            known = self._reaches.pop(reach.run, None)
        if known is not None:
            self._tell()

    def runs(self) -> list[tuple[str, str]]:
        """Return (call id, run) of all."""
        with self._lock:
            return [(reach.call_id, reach.run) for reach in self._reaches.values()]

    def tell(self, call_id: str, run: str | None, reason: str | None, cause: Reason, *, force: bool = False) -> None:
        """Reach the runs of a call (only `run`, if given) that are under way here.

        `force`: kill this process for it, if it runs nothing else; otherwise it is told as without.
        """
        with self._lock:
            reached = [r for r in self._reaches.values() if r.call_id == call_id and run in {None, r.run}]
        for reach in reached:
            if force and self.may_be_killed:
                reach.kill()
            reach.tell(reason, cause)

    def struck(self) -> bool:
        """Whether a run in this thread is to be unwound."""
        with self._lock:
            return any(reach.is_here and reach.is_struck for reach in self._reaches.values())

    def present(self) -> Reach | None:
        """Return the run that this thread is in, the innermost if there are several."""
        with self._lock:
            here = [reach for reach in self._reaches.values() if reach.is_here]
        return here[-1] if here else None

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()

    def _forked(self) -> None:
        self._lock = threading.RLock()
        self._reaches = {}
        self.may_be_killed = False


board: Final = Board()


def listen() -> None:
    """Let interrupts reach this process; from its main thread. Whoever handled the signal before still does."""
    before = signal.getsignal(INTERRUPT)

    def unwind(number: int, frame: FrameType | None) -> None:
        if board.struck():
            raise Interrupted
        if callable(before):
            before(number, frame)

    unwind.lrp_celery = True  # type: ignore[attr-defined]
    if not hasattr(before, "lrp_celery"):
        signal.signal(INTERRUPT, unwind)


def _present_greenlet() -> Any:
    """Return the greenlet that this runs in, where threads are greenlets, as in gevent's pool; else None."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    return sys.modules["greenlet"].getcurrent()


def _from_hub(work: Callable[[], None]) -> None:
    """Do something when the greenlets of this thread all wait."""
    sys.modules["gevent"].get_hub().loop.run_callback(work)


def _hears_signals(ident: int) -> bool:
    """Whether interrupts reach a thread by `INTERRUPT`: the main thread, of a process that was told to listen."""
    return ident == threading.main_thread().ident and hasattr(signal.getsignal(INTERRUPT), "lrp_celery")


def _raise_in_thread(ident: int, kind: type[BaseException] | None) -> None:
    """Let a thread raise `kind` at its next step; None takes back what it has not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind) if kind else None)
