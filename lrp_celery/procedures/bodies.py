"""What runs inside a procedure: the user's function, sync or async."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from lrp_celery.procedures.aborts import Interrupted, Reach, board


def make_plain(task: Any) -> None:
    """Let the function of a task be called like any other, also if it is async.

    Done to what Celery's automatic retries wrap, so that they see what the coroutine raises.
    """
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"
    function = getattr(task, name)
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        setattr(task, name, _run_in_loop(function))


def _run_in_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(_within_reach(function(*args, **kwargs), board.present()))

    return run


async def _within_reach(coroutine: Coroutine[Any, Any, Any], reach: Reach | None) -> Any:
    """Await `coroutine`; an interrupt cancels it."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if reach is None or task is None:
        return await coroutine

    def cancel() -> None:
        loop.call_soon_threadsafe(task.cancel)

    with reach.struck_through(cancel):
        try:
            return await coroutine
        except asyncio.CancelledError:
            if reach.is_struck:
                raise Interrupted from None
            raise
