"""Waiting for a call, and what comes of it.

Whoever waits subscribes first and looks then, so that no news falls in between. Where a
store cannot tell, he looks again and again: soon at first, for most calls are short.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from celery import _state

from lrp_celery.core import codec
from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import CalledInTask, CallNotCommitted, CallNotFound, LrpError, ResultTimeout
from lrp_celery.procedures import failures
from lrp_celery.procedures.runtime import Runtime, runtime_of
from lrp_celery.tracking import owned
from lrp_celery.tracking.callstore import Payload
from lrp_celery.tracking.news import Watch
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.status import CallStatus

#: Seconds between two looks: at first, soon after, and after `_PATIENT_AFTER`.
_SHORTEST: Final = 0.004
_EAGER: Final = 0.05
_PATIENT: Final = 0.25
_PATIENT_AFTER: Final = 5.0
_TOLD: Final = 2.0
#: Who has waited for so long asks to be told: that is one write.
_BRIEF: Final = 0.015


class Asked(Protocol):
    """The procedure whose result is asked for."""

    @property
    def task(self) -> Any:
        """Its task."""
        ...


#: A call as it stands, and what is kept of its end.
News = tuple[CallRecord, Payload]
#: Looks off the event loop.
Apart = Callable[[Callable[[], News | None]], Awaitable[News | None]]


class Waiting:
    """One wait for one call of a task.

    `is_outside`: whoever waits is in no transaction, so what he does not see is not there.
    `is_watched_over`: where the store does not tell, somebody else looks for all who wait, and tells them.
    """

    def __init__(
        self,
        runtime: Runtime,
        task: str,
        call_id: str,
        wait: timedelta | float | None,
        *,
        allow_in_task: bool = False,
        is_outside: bool = False,
        is_watched_over: bool = False,
    ) -> None:
        self._runtime = runtime
        self._task = task
        self._call_id = call_id
        self._began = time.monotonic()
        self._until = until(wait)
        self._is_allowed = allow_in_task or _state.get_current_worker_task() is None
        self._is_outside = is_outside
        self._is_watched_over = is_watched_over
        self._pause = _SHORTEST
        self._is_awaited = False
        self._deadline: datetime | None = None

    def look(self) -> News | None:
        """Return how the call stands if it has ended or its end was asked for, None while it goes on.

        Raises `CallNotFound`, `ResultTimeout` when the wait is over, and `CalledInTask` and `CallNotCommitted`
        for a wait that would not end.
        """
        record, payload = self._seen()
        if owned.is_news(record):
            return record, payload
        if not self._is_allowed:
            raise CalledInTask
        if self._runtime.is_alone():
            raise CallNotCommitted(call_id=self._call_id)
        if time.monotonic() >= self._until:
            raise ResultTimeout(call_id=self._call_id)
        # A timeout must not need a worker: whoever waits settles what is overdue.
        self._deadline = record.deadline_at
        if record.deadline_at is not None:
            self._runtime.own.attend(self._call_id)
        if not self._is_awaited and self._runtime.own.tells and self._waited > _BRIEF:
            self._is_awaited = True
            if not self._runtime.own.await_end(self._call_id):
                # It has come meanwhile.
                return self.look()
        return None

    def watching(self) -> AbstractContextManager[Watch]:
        """Be told of news within this context, where the store can tell."""
        return self._runtime.own.watching(self._call_id)

    def pause(self) -> float:
        """Return for how long to wait for news before the next look."""
        longest = _EAGER if self._waited < _PATIENT_AFTER else _PATIENT
        if self._is_awaited if self._runtime.own.tells else self._is_watched_over:
            # Only in case that news gets lost.
            longest = _TOLD
        self._pause = longest if longest == _TOLD else min(self._pause * 1.5, longest)
        return max(0.0, min(self._pause, self._until - time.monotonic(), self._left))

    @property
    def _left(self) -> float:
        """For how long the call's own timeout tells no news; nobody else may notice when it has passed."""
        if self._deadline is None:
            return float("inf")
        return max((self._deadline - datetime.now(UTC)).total_seconds(), _EAGER)

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._began

    def _seen(self) -> News:
        """Return the row as everybody sees it, whatever transaction the caller is in, and what it ended with."""
        found = self._runtime.own.look_with_result(self._call_id)
        if found is None and not self._is_outside and self._runtime.callers.look(self._call_id) is not None:
            # Unless it has just been committed, by somebody else.
            found = self._runtime.own.look_with_result(self._call_id)
            if found is None:
                raise CallNotCommitted(call_id=self._call_id)
        if found is None or found[0].task != self._task:
            raise CallNotFound(call_id=self._call_id)
        return found


def outcome(record: CallRecord, payload: Payload, raises: tuple[type[BaseException], ...] = ()) -> Any:
    """Return the JSON tree that the call returned, or raise what became of it."""
    if record.status.is_open:
        raise failures.of_abort(record.stop_reason, record.abort_reason, record.call_id)
    if record.status is CallStatus.SUCCEEDED:
        return None if payload.result is None else codec.loads(payload.result)
    raised = failures.of_record(record, payload.error, raises)
    raise raised or LrpError(f"Call {record.call_id!r} ended in no known way.")


def wait_for_result(procedure: Asked, call_id: str, wait: timedelta | float | None, *, allow_in_task: bool) -> Any:
    """Return the JSON tree that the call returned, or raise what became of it."""
    task = procedure.task
    waiting = Waiting(runtime_of(task.app), task.name, call_id, wait, allow_in_task=allow_in_task)
    news = waiting.look()
    if news is None:
        with waiting.watching() as watch:
            while (news := waiting.look()) is None:
                watch.wait(waiting.pause())
    return outcome(*news, tuple(task.throws or ()))


async def await_result(procedure: Asked, call_id: str, wait: timedelta | float | None, *, allow_in_task: bool) -> Any:
    """Async twin of `wait_for_result`: it holds no thread while it waits."""
    task = procedure.task
    runtime = runtime_of(task.app)
    waiting = Waiting(runtime, task.name, call_id, wait, allow_in_task=allow_in_task)
    return outcome(*await await_news(waiting, runtime.apart), tuple(task.throws or ()))


async def await_news(waiting: Waiting, apart: Apart) -> News:
    """Return how the call stands once it has ended or its end was asked for; raises what `Waiting.look` raises."""
    found = await apart(waiting.look)
    if found is not None:
        return found
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    with waiting.watching() as watch:

        def wake() -> None:
            # Whoever tells must not fail because a loop was closed in the middle of this wait.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

        watch.on_news(wake)
        while True:
            news.clear()
            if (found := await apart(waiting.look)) is not None:
                return found
            await _either(news, waiting.pause())


async def _either(news: asyncio.Event, seconds_: float) -> None:
    try:
        await asyncio.wait_for(news.wait(), seconds_)
    except TimeoutError:
        return


def until(wait: timedelta | float | None) -> float:
    """Return the monotonic instant at which a wait ends; 0, which has passed, where one looks once."""
    if wait is None:
        return float("inf")
    if not isinstance(wait, bool) and wait in (0, timedelta(0)):
        return 0.0
    return time.monotonic() + (seconds(wait, "wait") or 0.0)
