"""What signals do not tell of publishing: which app publishes, which schedule asks, and that it failed.

Celery sends `before_task_publish` and, if all went well, `after_task_publish`; an exception
in between reaches only the caller. So the one function through which every message of an
app goes is wrapped; it behaves as before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery._state import get_current_app
from celery.app.amqp import AMQP

_app: ContextVar[Any] = ContextVar("lrp_celery_publishing_app", default=None)
_schedule: ContextVar[str | None] = ContextVar("lrp_celery_schedule", default=None)

#: Called as (app, Celery's task message, error) when a publish raised. Must not raise.
OnFailure = Callable[[Any, Any, Exception], None]


def publishing_app() -> Any:
    """Return the app whose message is going out in this context, else the current one."""
    return _app.get() or get_current_app()


def current_schedule() -> str | None:
    """Return the name of the beat entry that is being sent in this context."""
    return _schedule.get()


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
                return send(producer, name, message, *args, **kwargs)
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
