"""The whole message of a call, so that it can be sent later, and again, by any process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from kombu.utils.json import dumps, loads

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.holding import StandIn
from lrp_celery.tracking.messages import OWNED

#: A connection of the pool may have broken since it was used: then once more on a new one.
_ONCE_MORE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
#: What concerns one attempt to publish, not the message.
_OF_THE_ATTEMPT: Final = frozenset({"retry", "retry_policy", "timeout", "confirm_timeout", "declare"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A task message as Celery was about to publish it."""

    task: str
    body: Any
    queues: tuple[str, ...]
    options: dict[str, Any]
    """What `kombu.Producer.publish` takes beside the body: exchange, routing key, headers, properties."""

    @property
    def headers(self) -> dict[str, Any]:
        """The message's headers."""
        headers: dict[str, Any] = self.options["headers"]
        return headers

    @property
    def args(self) -> list[Any]:
        """The task's positional arguments."""
        return list(self.body[0])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The task's keyword arguments."""
        return dict(self.body[1])

    def to_json(self) -> str:
        """Return the form in which stores keep it."""
        return dumps({"task": self.task, "body": self.body, "queues": self.queues, "options": self.options})

    @classmethod
    def from_json(cls, text: str) -> Envelope:
        """Return what `to_json` wrote."""
        stored = loads(text)
        return cls(task=stored["task"], body=stored["body"], queues=tuple(stored["queues"]), options=stored["options"])

    def of_generation(self, generation: int) -> Envelope:
        """Return the message as it is sent: of an owned call, in this generation of its id."""
        return replace(self, options={**self.options, "headers": {**self.headers, OWNED: generation}})

    def without_expiry(self) -> Envelope:
        """Return the message of a call that has begun in time: Celery would drop a copy that comes after it."""
        return replace(self, options={**self.options, "headers": {**self.headers, "expires": None}})

    def publish(self, app: Any, producer: Any = None) -> None:
        """Send it: whoever sends decides what to do if that fails. Raises what the broker's client raises."""
        with app.producer_or_acquire(producer) as sender, sender.connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery's own apply_async does
            message = self.message(app)
            sender.publish(**{**message, "declare": _Undeclared(message["declare"], sender)})

    def message(self, app: Any) -> dict[str, Any]:
        """Return what `kombu.Producer.publish` takes to send it."""
        queues = [app.amqp.queues[name] for name in self.queues]
        body = tuple(self.body)
        return {"body": body, "declare": queues, "retry": True, "retry_policy": dict(_ONCE_MORE), **self.options}


class _Undeclared(list[Any]):
    """The queues that a message needs; gone through, only those that its connection has not declared.

    That is what kombu does, too, but to find it out it makes a copy of each queue, every time. A connection that was
    lost has declared none, so that they are looked at again when the message is sent once more.
    """

    def __init__(self, queues: Iterable[Any], producer: Any) -> None:
        super().__init__(queues)
        self._producer = producer

    def __iter__(self) -> Iterator[Any]:
        declared = self._producer.connection.declared_entities
        return (queue for queue in super().__iter__() if hash(queue) not in declared)


def capture(publish: Callable[[StandIn], Any]) -> Envelope:
    """Return the message that `publish(producer)` would have sent; nothing goes out.

    Celery's signals around publishing are sent all the same: what their receivers write into
    the headers belongs to the message.
    """
    catcher = _Catcher()
    publish(catcher)
    if catcher.envelope is None:
        raise ConfigurationError("Celery published no message for this call; is its task replaced by another app?")
    return catcher.envelope


class _Catcher(StandIn):
    """Keeps the first message: an event about it may follow."""

    def __init__(self) -> None:
        self.envelope: Envelope | None = None
        self.connection = self

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def publish(self, body: Any, *_: Any, declare: Any = None, headers: Any = None, **options: Any) -> None:
        if self.envelope is not None:
            return
        kept = {key: value for key, value in options.items() if key not in _OF_THE_ATTEMPT and value is not None}
        kept["exchange"] = getattr(kept.get("exchange"), "name", kept.get("exchange", ""))
        kept["headers"] = dict(headers or {})
        names = tuple(queue.name for queue in declare or ())
        self.envelope = Envelope(task=str(kept["headers"].get("task")), body=body, queues=names, options=kept)
