"""What signals do not tell of publishing: which app publishes, which schedule asks, and whether it failed.

Celery sends `before_task_publish` and, if all went well, `after_task_publish`; an exception
in between reaches only the caller. So the one function through which every message of an
app goes is wrapped; it behaves as before.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from celery._state import get_current_app
from celery.app.amqp import AMQP

from lrp_celery.tracking.holding import StandIn

#: Called as (send, producer, Celery's task message) instead of `send(producer)`; it may call that, or not.
Diversion = Callable[[Callable[[Any], Any], Any, Any], Any]

_app: ContextVar[Any] = ContextVar("lrp_celery_publishing_app", default=None)
_schedule: ContextVar[str | None] = ContextVar("lrp_celery_schedule", default=None)
_diversion: ContextVar[Diversion | None] = ContextVar("lrp_celery_diversion", default=None)

#: Called as (app, Celery's task message, error) when a publish raised. Must not raise.
OnFailure = Callable[[Any, Any, Exception], None]


class Unpublished:
    """The calls whose last publish raised in this process; of very many, the newest."""

    MOST: Final = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, None] = {}

    def add(self, call_id: str) -> None:
        """Remember a call whose publish raised."""
        with self._lock:
            self._ids[call_id] = None
            if len(self._ids) > self.MOST:
                del self._ids[next(iter(self._ids))]

    def remove(self, call_id: str) -> bool:
        """Forget a call; return whether it was remembered."""
        # Nearly always there is none, and then a publish must not pay for the lock.
        if call_id not in self._ids:
            return False
        with self._lock:
            return self._ids.pop(call_id, self) is None


unpublished: Final = Unpublished()


def publishing_app() -> Any:
    """Return the app whose message is going out in this context, else the current one."""
    return _app.get() or get_current_app()


@contextmanager
def publishing_as(app: Any) -> Iterator[None]:
    """Let this app be the one whose messages go out in this context."""
    token = _app.set(app)
    try:
        yield
    finally:
        _app.reset(token)


def current_schedule() -> str | None:
    """Return the name of the beat entry that is being sent in this context."""
    return _schedule.get()


@contextmanager
def diverting(diversion: Diversion) -> Iterator[None]:
    """Hand every message that is published in this context to `diversion`."""
    token = _diversion.set(diversion)
    try:
        yield
    finally:
        _diversion.reset(token)


def watch_failures(on_failure: OnFailure) -> None:
    """Have `on_failure` called whenever a publish raises, in apps that have not published before."""
    amqp: Any = AMQP
    original = amqp._create_task_sender  # noqa: SLF001 - the one door that every message goes through
    if hasattr(original, "lrp_celery"):
        return

    @functools.wraps(original)
    def create(self: Any) -> Callable[..., Any]:
        send = original(self)

        @functools.wraps(send)
        def send_task_message(producer: Any, name: str, message: Any, *args: Any, **kwargs: Any) -> Any:
            token = _app.set(self.app)
            try:
                if isinstance(producer, StandIn):
                    return producer.hold(lambda to: send(to, name, message, *args, **kwargs), name, message, kwargs)
                diversion = _diversion.get()
                if diversion is None:
                    return send(producer, name, message, *args, **kwargs)
                return diversion(lambda to: send(to, name, message, *args, **kwargs), producer, message)
            except Exception as error:
                on_failure(self.app, message, error)
                raise
            finally:
                _app.reset(token)

        return send_task_message

    create.lrp_celery = True  # type: ignore[attr-defined]
    amqp._create_task_sender = create  # noqa: SLF001 - see above


def name_schedules(scheduler: Any) -> None:
    """Let `current_schedule` name the entry that `scheduler` sends: the message itself does not."""
    original = scheduler.apply_async
    if hasattr(original, "lrp_celery"):
        return

    @functools.wraps(original)
    def apply_async(entry: Any, *args: Any, **kwargs: Any) -> Any:
        with _naming(getattr(entry, "name", None)):
            return original(entry, *args, **kwargs)

    apply_async.lrp_celery = True  # type: ignore[attr-defined]
    scheduler.apply_async = apply_async


@contextmanager
def _naming(schedule: str | None) -> Iterator[None]:
    token = _schedule.set(schedule)
    try:
        yield
    finally:
        _schedule.reset(token)
