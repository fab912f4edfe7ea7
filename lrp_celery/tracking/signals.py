"""One receiver for each of Celery's signals: it asks who is tracked, and passes on what it was told.

No receiver ever raises an `Exception` or decides anything; what a signal means is in
`observer`, what it changes in `merge`.
"""

from __future__ import annotations

import functools
import os
import signal as os_signal
import threading
from collections.abc import Callable
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import signals

from lrp_celery.tracking import observer
from lrp_celery.tracking.handling import watch_requests
from lrp_celery.tracking.ids import sort_ids
from lrp_celery.tracking.publishing import current_schedule, name_schedules, publishing_app, watch_failures
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.tracking import tracking_of

#: Long enough for the signal's dispatch to be over, short beside any soft limit.
_REARM_AFTER: Final = 0.05

Receiver = Callable[..., None]


def connect() -> None:
    """Watch every signal that says something of a call. Doing it twice changes nothing."""
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver, weak=False, dispatch_uid=f"lrp_celery.{receiver.__name__}")
    watch_failures(_publish_failed)
    watch_requests(_hard_limit, _terminated)
    sort_ids()


def disconnect() -> None:
    """Stop watching signals."""
    for signal, receiver in _RECEIVERS:
        signal.disconnect(receiver, dispatch_uid=f"lrp_celery.{receiver.__name__}")


def _guarded(receiver: Receiver) -> Receiver:
    """Let no `Exception` out of a receiver: Celery would only log it, and at greater length.

    One that a soft time limit interrupted does its work once more: reports may be repeated.
    """

    @functools.wraps(receiver)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            try:
                receiver(*args, **kwargs)
            except SoftTimeLimitExceeded:
                receiver(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - watching must never harm the watched
            losses.add("signal", error)

    return guarded


def _before_the_end(receiver: Receiver) -> Receiver:
    """Hand on to the task's body a soft time limit that strikes a receiver; Celery would swallow it there for good."""

    @functools.wraps(receiver)
    def handing_on(*args: Any, **kwargs: Any) -> None:
        try:
            receiver(*args, **kwargs)
        except SoftTimeLimitExceeded:
            try:
                receiver(*args, **kwargs)
            finally:
                _strike_again()

    return handing_on


@_guarded
@_before_the_end
def on_before_task_publish(
    *, sender: str, headers: dict[str, Any], body: Any, routing_key: str | None = None, **_: Any
) -> None:
    """A message is about to go out."""
    app = publishing_app()
    tracking = tracking_of(app)
    if tracking is not None and isinstance(headers, dict):
        observer.publishing(tracking, app, sender, headers, body, queue=routing_key, schedule=current_schedule())


@_guarded
@_before_the_end
def on_after_task_publish(*, sender: str, headers: dict[str, Any], routing_key: str | None = None, **_: Any) -> None:
    """A message went out."""
    tracking = tracking_of(publishing_app())
    if tracking is not None and isinstance(headers, dict):
        observer.published(tracking, sender, headers, routing_key)


@_guarded
@_before_the_end
def _publish_failed(app: Any, message: Any, error: Exception) -> None:
    tracking = tracking_of(app)
    if tracking is not None and isinstance(message.headers, dict):
        observer.publish_failed(tracking, message.headers, error)


@_guarded
def on_task_received(*, request: Any, **_: Any) -> None:
    """A worker took a message."""
    if tracking_of(request.app) is not None:
        observer.received(request)


@_guarded
@_before_the_end
def on_task_prerun(*, task_id: str, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    """A run begins."""
    tracking = tracking_of(task.app)
    if tracking is not None:
        observer.starting(tracking, task, task_id, args, kwargs)


@_guarded
def on_task_success(*, sender: Any, **_: Any) -> None:
    """A task returned."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.succeeded(tracking, sender.request.id)


@_guarded
def on_task_retry(*, sender: Any, request: Any, reason: Any = None, einfo: Any = None, **_: Any) -> None:
    """A task asked for a retry; without a reason, the worker gave it up."""
    tracking = tracking_of(sender.app)
    if tracking is None:
        return
    if reason is None:
        observer.cancelled(tracking, sender, request)
    else:
        observer.retrying(tracking, sender, request, reason, einfo)


@_guarded
def on_task_failure(*, sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
    """A task raised, or its process was lost."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.failed(tracking, sender, task_id, exception, einfo)


@_guarded
def on_task_internal_error(
    *, sender: Any, task_id: str, request: Any, exception: BaseException, einfo: Any = None, **_: Any
) -> None:
    """Celery's code around a task raised."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.crashed(tracking, sender, task_id, request, exception, einfo)


@_guarded
def on_task_postrun(*, task_id: str, task: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
    """A run is over in its process."""
    _spare_what_follows()
    tracking = tracking_of(task.app)
    if tracking is not None:
        observer.ending(tracking, task, task_id, state, retval)


@_guarded
def on_task_revoked(
    *, sender: Any, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
) -> None:
    """A message was dropped, or a running task signalled."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.revoked(tracking, sender, request, terminated=terminated, signum=signum, expired=expired)


@_guarded
def on_task_unknown(*, sender: Any, message: Any, name: str, id: str, exc: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's name
    """A worker has no such task."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.unknown(tracking, sender.app, id, name, message, exc)


@_guarded
def on_task_rejected(*, sender: Any, message: Any, exc: Any = None, **_: Any) -> None:
    """A worker could not read a message."""
    tracking = tracking_of(sender.app)
    if tracking is not None:
        observer.rejected(tracking, message, exc)


@_guarded
def on_beat_init(*, sender: Any, **_: Any) -> None:
    """Beat starts."""
    name_schedules(sender.scheduler)


_RECEIVERS: Final[list[tuple[Any, Receiver]]] = [
    (signals.before_task_publish, on_before_task_publish),
    (signals.after_task_publish, on_after_task_publish),
    (signals.task_received, on_task_received),
    (signals.task_prerun, on_task_prerun),
    (signals.task_success, on_task_success),
    (signals.task_retry, on_task_retry),
    (signals.task_failure, on_task_failure),
    (signals.task_internal_error, on_task_internal_error),
    (signals.task_postrun, on_task_postrun),
    (signals.task_revoked, on_task_revoked),
    (signals.task_unknown, on_task_unknown),
    (signals.task_rejected, on_task_rejected),
    (signals.beat_init, on_beat_init),
]


@_guarded
def _hard_limit(request: Any, limit: float) -> None:
    tracking = tracking_of(request.app)
    if tracking is not None:
        observer.timed_out(tracking, request, limit)


@_guarded
def _terminated(request: Any) -> None:
    tracking = tracking_of(request.app)
    if tracking is not None:
        observer.terminated(tracking, request)


_strike: threading.Timer | None = None


def _strike_again() -> None:
    """Raise the soft time limit in this process once more, when the signal's dispatch is over."""
    global _strike  # noqa: PLW0603 - one task at a time where soft limits exist: in pool processes
    _strike = threading.Timer(_REARM_AFTER, os.kill, (os.getpid(), os_signal.SIGUSR1))
    _strike.daemon = True
    _strike.start()


def _spare_what_follows() -> None:
    """A limit that comes after its task must not strike the next one."""
    global _strike  # noqa: PLW0603 - see _strike_again
    if _strike is not None:
        _strike.cancel()
        _strike = None
