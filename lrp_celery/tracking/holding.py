"""Messages that are held back: made as Celery makes them, so that their rows can be written first.

A `StandIn` takes the place of a producer; a `Holder` is one for many messages. Celery routes a call, makes its message and sends the
signal `before_task_publish` as ever; what it then would have published is kept, and what it
would have done after that is done once the message is out (`sending`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from kombu.serialization import dumps

from lrp_celery.tracking import messages
from lrp_celery.tracking.reports import Enqueued
from lrp_celery.tracking.tracking import tracking_of

#: The rows that are to be made in this context, all at once; None: each one is made when it is heard of.
_gathered: ContextVar[list[Enqueued] | None] = ContextVar("lrp_celery_gathered", default=None)


def gathered() -> list[Enqueued] | None:
    """Return where reports of new calls are to be put in this context instead of being recorded, if anywhere."""
    return _gathered.get()


@contextmanager
def gathering() -> Iterator[list[Enqueued]]:
    """Gather the reports of calls that are asked for in this context."""
    reports: list[Enqueued] = []
    token = _gathered.set(reports)
    try:
        yield reports
    finally:
        _gathered.reset(token)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A message as Celery handed it over to be sent, before anybody could change it."""

    task: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    around: dict[str, Any]
    """What its body holds beside the arguments."""
    options: Mapping[str, Any]


class StandIn:
    """Is given to Celery for a producer, and publishes nothing."""

    sketches = False
    """Whether `sketch` is wanted of the next message."""
    sketch: Sketch | None = None

    def hold(self, send: Callable[[Any], Any], name: str, message: Any, options: Mapping[str, Any]) -> None:
        """Do what Celery does before it publishes a message, by `send(self)`."""
        if self.sketches:
            # Receivers of the signal write into what there is.
            around = dict(message.body[2]) if isinstance(message.body, tuple) else {}
            self.sketch = Sketch(name, deepcopy(message.headers), dict(message.properties), around, options)
        send(self)


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is ready to go out."""

    task: str
    body: Any
    """What the task is called with, as signals show it."""
    options: dict[str, Any]
    """What `kombu.Producer.publish` takes, the encoded body among them."""
    sent_event: dict[str, Any] | None
    """What is to be told by an event once it is out."""

    @property
    def headers(self) -> dict[str, Any]:
        """The message's headers."""
        headers: dict[str, Any] = self.options["headers"]
        return headers

    @property
    def call_id(self) -> str:
        """The call's id."""
        return str(self.headers.get("id") or self.body["id"])


class Holder(StandIn):
    """Stands in for `producer`, and keeps what is published through it.

    A body that cannot be encoded raises at once, as it would be if it went out.
    """

    def __init__(self, app: Any, producer: Any) -> None:
        self.held: list[Held] = []
        self._app = app
        self._producer = producer
        self._tracking = tracking_of(app)
        self._stamp = messages.fresh_stamp(self._tracking.clock.now()) if self._tracking is not None else {}
        self._message: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def hold(self, send: Callable[[Any], Any], name: str, message: Any, options: Mapping[str, Any]) -> None:
        """Do what Celery does before it publishes a message, and no more; its call is asked for here and now."""
        tracking = self._tracking
        if tracking is not None and messages.HEADER not in message.headers and tracking.selection.has(name):
            # All of them are asked for here and now; to find out where anew for each is dear.
            message.headers[messages.HEADER] = self._stamp
        self._message = name, message
        try:
            super().hold(send, name, message, options)
        except _Kept:
            return
        finally:
            self._message = None

    def publish(self, body: Any, **options: Any) -> Any:
        """Keep a message."""
        if self._message is None:
            return self._producer.publish(body, **options)
        name, message = self._message
        self._message = None
        kind, encoding, encoded = dumps(body, options.pop("serializer", None) or self._producer.serializer)
        options.update(body=encoded, content_type=kind, content_encoding=encoding)
        self.held.append(Held(name, body, options, message.sent_event))
        raise _Kept


class _Kept(BaseException):
    """Takes Celery out of a publish; what follows in it is for when the message is out."""


__all__: Final[Sequence[str]] = ["Held", "Holder", "Sketch", "StandIn", "gathered", "gathering"]
