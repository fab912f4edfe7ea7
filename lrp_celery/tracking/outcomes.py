"""What an exception that left a task means for its call. Pure."""

from __future__ import annotations

from operator import attrgetter
from types import TracebackType
from typing import Final

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.app.task import Task
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject

from lrp_celery.core.redaction import Redactor
from lrp_celery.core.text import clean, dotted_name
from lrp_celery.tracking.reports import ErrorFacts, Outcome
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import MAX_ERROR, MAX_NAME, MAX_TRACEBACK

_HTTP: Final = range(100, 600)
#: Where requests, httpx, aiohttp, urllib and others keep it.
_STATUS_PATHS: Final = tuple(
    map(attrgetter, ("status_code", "response.status_code", "response.status", "status", "code"))
)


def of_failure(exception: BaseException, error: ErrorFacts) -> Outcome:
    """Return how a call ended whose task raised `exception` and is not tried again."""
    if isinstance(exception, Reject):
        return Outcome(status=CallStatus.DISCARDED, reason=Reason.REJECTED, error=error)
    if retries_exhausted(exception):
        return Outcome(status=CallStatus.PARKED, reason=Reason.MAX_RETRIES, error=error)
    return Outcome(status=CallStatus.FAILED, reason=_why(exception), error=error)


def retries_exhausted(exception: BaseException) -> bool:
    """Whether `exception` came out of `Task.retry`, which raises it when no retry is left."""
    return isinstance(exception, MaxRetriesExceededError) or _passed_retry(exception.__traceback__)


def is_replacement(ignored: object) -> bool:
    """Whether a task ended by `Task.replace`: then the call goes on as another task."""
    return isinstance(ignored, Ignore) and ignored.args == ("Replaced by new task",)


def error_facts(
    exception: BaseException | None,
    traceback: object,
    redactor: Redactor,
    secrets: frozenset[str] = frozenset(),
) -> ErrorFacts:
    """Return an exception as bounded, redacted text. Never raises, whatever the exception's own methods do."""
    return ErrorFacts(
        type=None if exception is None else clean(dotted_name(type(exception)), MAX_NAME),
        message=None if exception is None else redactor.text(_message(exception), secrets, MAX_ERROR),
        traceback=redactor.tail(traceback, secrets, MAX_TRACEBACK) if isinstance(traceback, str) else None,
        http_status=None if exception is None else http_status(exception),
    )


def http_status(exception: BaseException) -> int | None:
    """Return the HTTP status that an exception of a common client carries."""
    for path in _STATUS_PATHS:
        try:
            status: object = path(exception)
        except Exception:  # noqa: BLE001, S112 - foreign attributes may raise anything
            continue
        if isinstance(status, int) and status in _HTTP:
            return int(status)
    return None


def _why(exception: BaseException) -> Reason | None:
    if isinstance(exception, SoftTimeLimitExceeded | TimeLimitExceeded):
        return Reason.TIME_LIMIT
    return Reason.WORKER_LOST if isinstance(exception, WorkerLostError) else None


def _passed_retry(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_code is Task.retry.__code__:
            return True
        traceback = traceback.tb_next
    return False


def _message(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:  # noqa: BLE001 - an exception's own str may raise anything
        return f"<{type(exception).__name__} that cannot be shown>"
