"""Procedures of this process, as seed 000 has them: calls run in threads, over a bare `Store`, without Celery."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Generic, ParamSpec, TypeVar

from lrp_celery.core.clock import SystemClock
from lrp_celery.core.errors import (
    CallAborted,
    CallNotFound,
    CallPending,
    ConfigurationError,
    ResultTimeout,
    StoreError,
)
from lrp_celery.core.ids import new_id
from lrp_celery.procedures import context
from lrp_celery.procedures.arguments import Parameters
from lrp_celery.procedures.context import CurrentCall
from lrp_celery.procedures.failures import of_abort
from lrp_celery.procedures.options import UNSET, CallOptions, ProcedureOptions, Unset
from lrp_celery.procedures.reporter import Unkept
from lrp_celery.procedures.results import until
from lrp_celery.procedures.runtime import Limits
from lrp_celery.procedures.signal import AbortController, AbortSignal, never
from lrp_celery.procedures.state import CallState
from lrp_celery.procedures.stores import Item, Pending, Rejected, Resolved, Store
from lrp_celery.tracking.status import Reason

logger = logging.getLogger("lrp_celery.procedures")

P = ParamSpec("P")
R = TypeVar("R")
Duration = timedelta | float | None

#: Seconds between two looks where nobody tells: for a call of another process, or from an event loop, which begins with the shortest.
_PAUSE: Final = 0.05
_SHORTEST: Final = 0.004
#: A pending item outlives its call by so many seconds: it is there to be settled, and goes if nobody is left to do it.
_MARGIN: Final = 5.0
_LIMITS: Final = Limits()
#: What `@procedure(store=...)` can be told besides; the rest concerns messages, workers and rows.
_OPTIONS: Final = ("store", "timeout", "time_to_live", "grace")


class LocalProcedure(Generic[P, R]):
    """A procedure whose calls run in threads of this process, with one item of a bare `Store` for each (LRP-01 to LRP-33).

    Two writes in a call's life: pending before it starts, and its outcome; progress and log lines
    are not kept. Its end is asked for
    by its signal only: a function that goes on after `grace` is settled without it, but not
    stopped. Other processes that share the store see its state and result, and cannot abort it.
    Calls end with the process, whatever they are at, and nothing takes them up again: where that
    matters, decorate a Celery task, without `store`.
    """

    def __init__(self, function: Callable[..., Any], options: ProcedureOptions) -> None:
        if not isinstance(options.store, Store):
            raise ConfigurationError(
                f"store is {options.store!r:.100}: pass a Store with set, get and delete, such as MemoryStore(). "
                "The store of procedures that workers run is given to LrpCelery, or by the settings of Django."
            )
        _refuse_others(options)
        self.options = options
        self.parameters = Parameters.of(function, bound=False, signal_type=AbortSignal)
        self._function = function
        self._call_options = CallOptions()
        self._store: Store = options.store
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in place, with a signal that never fires; no call is made."""
        self.parameters.check(args, kwargs)
        signal = never()
        with context.in_place(signal):
            result: R = self._perform(args, kwargs, signal)
        return result

    def __repr__(self) -> str:
        return f"<procedure {self._function.__module__}.{self._function.__qualname__} of this process>"

    # --- calling

    def call(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Start a call in a thread of its own and return its id (LRP-03, LRP-04).

        Arguments are passed as they are, without a copy. `TypeError` for arguments that the
        function does not take, `StoreError` when the pending item cannot be written; then there
        is no call. A fixed id that the store has an item for changes nothing and is returned
        again; only within this process that is exact.
        """
        self.parameters.check(args, kwargs)
        running = _Running(self._call_options.call_id or new_id(), self._grace, self._settle)
        timeout = _chosen(self._call_options.timeout, self.options.timeout)
        if not self._place(running, timeout):
            return running.call_id
        running.live = _chosen(self._call_options.time_to_live, _chosen(self.options.time_to_live, None))
        call = running.as_current(timeout)
        thread = threading.Thread(
            target=self._run, args=(running, call, args, kwargs), name=f"lrp_celery-call-{running.call_id}", daemon=True
        )
        if timeout is not None:
            running.after(timeout, lambda: running.stop(None, Reason.TIMEOUT))
        try:
            thread.start()
        except RuntimeError as error:
            # There are too many threads: the call fails, as one that has begun would.
            self._settle(running, Rejected.of(error))
        return running.call_id

    def using(
        self,
        *,
        call_id: str | Unset | None = UNSET,
        timeout: Duration | Unset = UNSET,
        time_to_live: Duration | Unset = UNSET,
    ) -> LocalProcedure[P, R]:
        """Return a copy whose calls are made with these options, and which shares the calls of this one."""
        given = {"call_id": call_id, "timeout": timeout, "time_to_live": time_to_live}
        copy: LocalProcedure[P, R] = object.__new__(LocalProcedure)
        copy.__dict__.update(self.__dict__)
        copy._call_options = self._call_options.merged(
            **{name: value for name, value in given.items() if value is not UNSET}
        )
        return copy

    def _place(self, running: _Running, timeout: float | None) -> bool:
        """Store the pending item; False: there is a call with this id."""
        live = None if timeout is None else timeout + running.grace + _MARGIN
        with self._lock:
            is_fixed = self._call_options.call_id is not None
            if is_fixed and (running.call_id in self._running or self._store.get(running.call_id) is not None):
                return False
            self._store.set(running.call_id, Pending(), live)
            self._running[running.call_id] = running
        return True

    @property
    def _grace(self) -> float:
        return _LIMITS.grace if isinstance(self.options.grace, Unset) else self.options.grace

    # --- asking

    def get_state(self, call_id: str) -> CallState:
        """Return whether the call has settled; `CallNotFound` if the store has no item for it (LRP-09, LRP-10)."""
        item = self._store.get(call_id)
        if item is None:
            raise CallNotFound(call_id=call_id)
        return CallState.PENDING if isinstance(item, Pending) else CallState.SETTLED

    def get_result(self, call_id: str, *, wait: Duration = None) -> R:
        """Return what the call returned, waiting until it has settled (LRP-11 to LRP-15).

        `wait`: at most this long, in seconds or as a timedelta, then `ResultTimeout`; None waits
        for ever, 0 looks once. What the function raised is raised again: as itself if it is a
        builtin `Exception`, else as `CallFailed`. `CallAborted` as soon as somebody has asked for
        the end of a pending call, `CallTimedOut` when its timeout has passed. `CallNotFound` if
        the store has no item for it.
        """
        end = until(wait)
        while True:
            # Asked before the store is: what settles in between has been written by then.
            running = self._running.get(call_id)
            item = self._store.get(call_id)
            if not isinstance(item, Pending):
                return self._outcome(call_id, item)
            if running is not None and (stopped := running.stopped()) is not None:
                raise stopped
            left = end - time.monotonic()
            if left <= 0:
                raise ResultTimeout(call_id=call_id)
            if running is None:
                time.sleep(min(_PAUSE, left))
            else:
                running.released.wait(min(left, threading.TIMEOUT_MAX))

    def _outcome(self, call_id: str, item: Item | None) -> R:
        match item:
            case Resolved(value):
                result: R = self.parameters.decode_result(value)
                return result
            case Rejected():
                raise item.exception(call_id=call_id)
        raise CallNotFound(call_id=call_id)

    def abort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Ask for the end of a call; silent if it has settled, or is unknown (LRP-16 to LRP-20).

        Only the process that runs the call can; elsewhere this is logged, and changes nothing.
        `by` is not kept.
        """
        running = self._running.get(call_id)
        if running is not None:
            running.stop(reason, Reason.ABORTED)
        elif isinstance(self._store.get(call_id), Pending):
            logger.warning("Call %s is not aborted: it does not run in this process.", call_id)

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Forget a settled call (LRP-21 to LRP-24); silent if it is unknown, `CallPending` if it is open.

        `when_settled`: an open one is forgotten once it has settled, if it runs in this process.
        """
        running = self._running.get(call_id)
        if not isinstance(self._store.get(call_id), Pending):
            self._store.delete(call_id)
        elif running is None or not running.remove(self._store, when_settled=when_settled):
            raise CallPending(call_id=call_id)

    # --- the same for event loops

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Async twin of `call`."""
        return await asyncio.to_thread(lambda: self.call(*args, **kwargs))

    async def aget_state(self, call_id: str) -> CallState:
        """Async twin of `get_state`."""
        return await asyncio.to_thread(self.get_state, call_id)

    async def aget_result(self, call_id: str, *, wait: Duration = None) -> R:
        """Async twin of `get_result`; it holds no thread while it waits."""
        end, pause = until(wait), _SHORTEST
        while True:
            try:
                return await asyncio.to_thread(self.get_result, call_id, wait=0)
            except ResultTimeout:
                left = end - time.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSE)

    async def aabort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Async twin of `abort`."""
        await asyncio.to_thread(self.abort, call_id, reason, by=by)

    async def aremove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Async twin of `remove`."""
        await asyncio.to_thread(self.remove, call_id, when_settled=when_settled)

    # --- running

    def _run(self, running: _Running, call: CurrentCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        token = context.entered(call)
        item: Item
        try:
            item = Resolved(self.parameters.encode_result(self._perform(args, kwargs, call.signal)))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the call (LRP-07)
            item = Rejected.of(running.stopped() or error)
        finally:
            context.left(token)
        self._settle(running, item)

    def _perform(self, args: tuple[Any, ...], kwargs: dict[str, Any], signal: AbortSignal) -> Any:
        full_args, full_kwargs = self.parameters.inject(args, kwargs, signal)
        value = self._function(*full_args, **full_kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _settle(self, running: _Running, item: Item) -> None:
        try:
            running.settle(self._store, item)
        except StoreError:
            logger.exception("Call %s has ended, which could not be recorded.", running.call_id)
        finally:
            self._running.pop(running.call_id, None)
            running.released.set()


class _Running:
    """One call that runs in this process."""

    def __init__(self, call_id: str, grace: float, settle: Callable[[_Running, Item], None]) -> None:
        self.call_id = call_id
        self.grace = grace
        self.live: float | None = None
        self.released = threading.Event()
        """Set when waiters have something to look at: the call was stopped, or has settled."""
        self._settle = settle
        self._controller = AbortController()
        self._lock = threading.Lock()
        self._why: tuple[Reason, str | None] | None = None
        self._has_settled = False
        self._is_to_be_removed = False
        self._timers: list[threading.Timer] = []

    def as_current(self, timeout: float | None) -> CurrentCall:
        """Return what `current_call` tells its code."""
        deadline = None if timeout is None else SystemClock().now() + timedelta(seconds=timeout)
        return CurrentCall(
            id=self.call_id, attempt=1, signal=self._controller.signal, deadline=deadline, reporter=Unkept()
        )

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do `work` later, unless the call has settled by then."""
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def stopped(self) -> CallAborted | None:
        """Return what waiters get once somebody has asked for the end."""
        return None if self._why is None else of_abort(*self._why, self.call_id)

    def stop(self, said: str | None, cause: Reason) -> None:
        """Raise the signal and release the waiters; after `grace`, settle without the function. Once."""
        with self._lock:
            if self._has_settled or self._why is not None:
                return
            self._why = cause, said
            self.after(self.grace, lambda: self._settle(self, Rejected.of(of_abort(cause, said, self.call_id))))
        self.released.set()
        self._controller.abort(said, timed_out=cause is Reason.TIMEOUT)

    def settle(self, store: Store, item: Item) -> None:
        """Write the outcome: the first one, if the pending item is still there (LRP-06 to LRP-08)."""
        with self._lock:
            if self._has_settled:
                return
            self._has_settled = True
            for timer in self._timers:
                timer.cancel()
            _insisting(lambda: self._write(store, item))

    def _write(self, store: Store, item: Item) -> None:
        if store.get(self.call_id) is None:
            return
        if self._is_to_be_removed:
            store.delete(self.call_id)
        else:
            store.set(self.call_id, item, self.live)

    def remove(self, store: Store, *, when_settled: bool) -> bool:
        """Forget the call, or see to it that it is forgotten; False: it is open, and is to stay."""
        with self._lock:
            if self._has_settled:
                store.delete(self.call_id)
            else:
                self._is_to_be_removed |= when_settled
            return self._has_settled or when_settled


def _insisting(write: Callable[[], None]) -> None:
    """Do `write`, again and again while the store is away, for as long as a worker would."""
    end = time.monotonic() + _LIMITS.settle_wait
    while True:
        try:
            return write()
        except StoreError:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def _chosen(value: Any, otherwise: Any) -> float | None:
    found: float | None = otherwise if value is UNSET else value
    return found


def _refuse_others(options: ProcedureOptions) -> None:
    plain = ProcedureOptions()
    for name in ProcedureOptions.__slots__:
        if name not in _OPTIONS and getattr(options, name) != getattr(plain, name):
            raise ConfigurationError(
                f"{name} is for procedures that workers run; with a store of its own one takes {', '.join(_OPTIONS)}."
            )
