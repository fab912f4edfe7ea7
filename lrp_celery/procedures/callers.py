"""Calling a procedure as if it were a function: call, wait, take the result, remove the call.

Callers know of a procedure only what `Procedure` says, so it may be one of ours, of another
process, or of another service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import CalledInTask, CallNotCommitted, ConfigurationError
from lrp_celery.procedures.signal import AbortSignal, never
from lrp_celery.procedures.state import CallState

logger = logging.getLogger("lrp_celery.procedures")

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Raised by a wait that never began: nobody will ever ask for the outcome of that call.
_NEVER_WAITED = (CallNotCommitted, CalledInTask)


class Procedure(Protocol[P, R_co]):
    """What callers need of a procedure (seed 000); any object with these methods will do (LRP-40).

    Where it also has `acall`, `aget_state`, `aget_result`, `aabort` and `aremove`, async callers
    await those; otherwise they run these methods in threads.
    """

    def call(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Ask for a call; return its id without waiting for it."""
        ...

    def get_state(self, call_id: str) -> CallState:
        """Return whether the call has settled; `CallNotFound`."""
        ...

    def get_result(self, call_id: str) -> R_co:
        """Wait until the call has settled, or its end is asked for; return its result or raise."""
        ...

    def abort(self, call_id: str, reason: str | None = None) -> object:
        """Ask for the end of a call, and release whoever waits for it; silent if it has settled."""
        ...

    def remove(self, call_id: str, *, when_settled: bool = False) -> object:
        """Forget a call; an open one once it has settled, if `when_settled`, else `CallPending`."""
        ...


class _Calling(Generic[P, R]):
    """What both callers do; how they wait, they say themselves."""

    def __init__(self, procedure: Procedure[P, R], *, signal: AbortSignal | None = None) -> None:
        self._procedure = procedure
        self._signal = signal or never()

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call, wait for its end, remove it, and return its result or raise what it raised.

        When the signal is raised the call is aborted, and `CallAborted` raised. A signal that is
        raised already raises it before anything is called (LRP-35). The call is removed in
        every case, one that is still open once it has settled; that this fails is logged and
        hides neither the result nor the error (LRP-39).
        """
        self._signal.raise_if_aborted()
        call_id = self._procedure.call(*args, **kwargs)
        try:
            return self._wait(call_id)
        except BaseException as error:
            if _is_abandoned(error):
                self._abort(call_id, None)
            raise
        finally:
            self._forget(call_id)

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Async twin of `call`; cancelling it aborts the call."""
        self._signal.raise_if_aborted()
        call_id: str = await self._twin("call")(*args, **kwargs)
        try:
            return await self._await(call_id)
        except BaseException as error:
            if _is_abandoned(error):
                await asyncio.shield(self._aabort(call_id, None))
            raise
        finally:
            await asyncio.shield(self._aforget(call_id))

    def _wait(self, call_id: str) -> R:
        raise NotImplementedError

    async def _await(self, call_id: str) -> R:
        raise NotImplementedError

    def _abort(self, call_id: str, reason: str | None) -> None:
        """Ask for the end of the call. Never raises: something else is to be raised, or somebody else would get it."""
        with _logged("aborted", call_id):
            self._procedure.abort(call_id, reason)

    async def _aabort(self, call_id: str, reason: str | None) -> None:
        with _logged("aborted", call_id):
            await self._twin("abort")(call_id, reason)

    def _forget(self, call_id: str) -> None:
        with _logged("removed", call_id):
            self._procedure.remove(call_id, when_settled=True)

    async def _aforget(self, call_id: str) -> None:
        with _logged("removed", call_id):
            await self._twin("remove")(call_id, when_settled=True)

    def _twin(self, name: str) -> Callable[..., Awaitable[Any]]:
        twin: Callable[..., Awaitable[Any]] | None = getattr(self._procedure, f"a{name}", None)
        return twin or partial(asyncio.to_thread, getattr(self._procedure, name))


class Caller(_Calling[P, R]):
    """Calls a procedure and blocks until its result is there, which arrives as soon as it can (LRP-34 to LRP-40).

    One call, one wait for the result, one removal; one abort when `signal` is raised meanwhile, by
    whoever raises it, in his thread.
    """

    def _wait(self, call_id: str) -> R:
        # Raised before, it is heard at once; and the wait ends by the abort.
        with self._signal.listening(lambda: self._abort(call_id, self._signal.reason)):
            return self._procedure.get_result(call_id)

    async def _await(self, call_id: str) -> R:
        async with self._hearing(call_id):
            result: R = await self._twin("get_result")(call_id)
            return result

    @contextlib.asynccontextmanager
    async def _hearing(self, call_id: str) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        aborts: list[asyncio.Task[None]] = []
        is_over = False

        def abort() -> None:
            if not is_over:
                aborts.append(loop.create_task(self._aabort(call_id, self._signal.reason)))

        with self._signal.listening(lambda: _soon(loop, abort)):
            if self._signal.aborted:
                # Let it be heard before anything is waited for.
                await asyncio.sleep(0)
            try:
                yield
            finally:
                is_over = True
                for task in aborts:
                    await asyncio.shield(task)


class PollingCaller(_Calling[P, R]):
    """Calls a procedure and asks for its state again and again: at once, then after each interval (LRP-41 to LRP-43).

    `polling_interval`: seconds or a timedelta. The result arrives up to one interval late, and
    most of the questions are asked in vain; for channels that do not bear a long wait. When
    `signal` is raised it is not asked again.
    """

    def __init__(
        self,
        procedure: Procedure[P, R],
        *,
        polling_interval: timedelta | float,
        signal: AbortSignal | None = None,
    ) -> None:
        super().__init__(procedure, signal=signal)
        interval = seconds(polling_interval, "polling_interval")
        if interval is None:
            raise ConfigurationError("polling_interval is None: pass a timedelta or a number of seconds above 0.")
        self._interval = interval

    def _wait(self, call_id: str) -> R:
        is_raised = self._signal.aborted
        while not is_raised and self._procedure.get_state(call_id) == CallState.PENDING:
            is_raised = self._signal.wait(self._interval)
        if is_raised:
            self._abort(call_id, self._signal.reason)
            raise self._signal.error(call_id)
        return self._procedure.get_result(call_id)

    async def _await(self, call_id: str) -> R:
        loop, raised = asyncio.get_running_loop(), asyncio.Event()
        with self._signal.listening(lambda: _soon(loop, raised.set)):
            is_raised = self._signal.aborted
            while not is_raised and await self._twin("get_state")(call_id) == CallState.PENDING:
                with contextlib.suppress(TimeoutError):
                    is_raised = await asyncio.wait_for(raised.wait(), self._interval)
        if is_raised:
            await self._aabort(call_id, self._signal.reason)
            raise self._signal.error(call_id)
        result: R = await self._twin("get_result")(call_id)
        return result


def _soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Do `work` in the loop's own thread, whichever thread this is."""
    loop.call_soon_threadsafe(work)


def _is_abandoned(error: BaseException) -> bool:
    """Whether nobody waits for the call any more, although it may be open: the wait was interrupted, or never began."""
    return isinstance(error, _NEVER_WAITED) or not isinstance(error, Exception)


@contextlib.contextmanager
def _logged(what: str, call_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it must not hide what the call returned or raised
        logger.warning("Call %s could not be %s: %s: %s", call_id, what, type(error).__name__, error)
