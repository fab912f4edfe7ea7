"""What signals do not tell of a worker's main process: which request it is dealing with.

There `task_failure` often comes without the request (always on Celery 5.6), and when a hard
time limit strikes Celery 5.6 sends no signal at all. Nor is there one when a run that was told
to end by a revoke has ended. So the two methods that deal with a request's bad end are wrapped;
they behave as before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from billiard.exceptions import Terminated
from celery.worker import state
from celery.worker.request import Request

_handled: ContextVar[Any] = ContextVar("lrp_celery_handled_request", default=None)

#: Called as (request, limit in seconds) when a hard time limit strikes. Must not raise.
OnHardLimit = Callable[[Any, float], None]
#: Called as (request) when a run has ended by the signal that a revoke sent. Must not raise.
OnTerminated = Callable[[Any], None]


def handled_request(call_id: str) -> dict[str, Any] | None:
    """Return the message's own data of the request that is being dealt with, if it is of this call."""
    request = _handled.get()
    return request.request_dict if request is not None and request.id == call_id else None


def is_unasked_end(call_id: str) -> bool:
    """Whether the end of a run's process that is being dealt with is said to be that of a revoke, but nobody asked for one.

    The pool remembers for good that a process was once sent a signal, also of one that lived on, and takes
    whatever ends it later for that.
    """
    return handled_request(call_id) is not None and call_id not in state.revoked


def watch_requests(on_hard_limit: OnHardLimit, on_terminated: OnTerminated) -> None:
    """Know the request while its failure or time limit is dealt with. Doing it twice changes nothing."""
    request: Any = Request
    if hasattr(request.on_timeout, "lrp_celery"):
        return
    on_timeout, on_failure = request.on_timeout, request.on_failure

    @functools.wraps(on_timeout)
    def timed_out(self: Any, soft: bool, timeout: float) -> Any:  # noqa: FBT001 - Celery's own signature
        if not soft:
            on_hard_limit(self, timeout)
        return _while_handling(self, on_timeout, soft, timeout)

    @functools.wraps(on_failure)
    def failed(self: Any, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        answer = _while_handling(self, on_failure, exc_info, *args, **kwargs)
        if _was_terminated(self, exc_info):
            on_terminated(self)
        return answer

    timed_out.lrp_celery = True  # type: ignore[attr-defined]
    request.on_timeout, request.on_failure = timed_out, failed


def _was_terminated(request: Any, exc_info: Any) -> bool:
    """Whether what is dealt with is the end of a run that was revoked, not given up for its broker's sake."""
    error = getattr(exc_info, "exception", None)
    error = getattr(error, "exc", error)
    is_revoked = getattr(request, "_already_revoked", False) and not getattr(request, "_already_cancelled", False)
    return is_revoked and isinstance(error, Terminated | SystemExit | KeyboardInterrupt)


def _while_handling(request: Any, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = _handled.set(request)
    try:
        return method(request, *args, **kwargs)
    finally:
        _handled.reset(token)
