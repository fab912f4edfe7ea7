"""Sending many messages: in one pipeline where the transport has such, else one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import signals
from kombu import exceptions

from lrp_celery.tracking.confirming import ConfirmedChannel, confirms
from lrp_celery.tracking.holding import Held

#: Kombu's, where it has pipelines.
_BATCH_FAILED: Final = getattr(exceptions, "BatchPublishError", ())
#: More than any batch has: a part of one that went out would be one that nobody asked for.
_WHOLE: Final = 10**9


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of messages, in their order: the first ones went out, of some nobody knows, the rest did not go out."""

    certain: int
    doubtful: int = 0
    error: Exception | None = None
    """Why not all of them went out."""


def send_all(producer: Any, messages: Sequence[dict[str, Any]]) -> Sent:
    """Send messages, each as `kombu.Producer.publish` takes it. Never raises what the broker's client raises.

    In a pipeline none is sent again: of one that broke nobody knows what got through. So the
    connection is tried before, as often as the first message's policy says.
    """
    if not messages:
        return Sent(0)
    try:
        way = _way(producer, messages[0])
    except Exception as error:  # noqa: BLE001 - to find out, the broker may have to be asked
        return Sent(0, error=_librarys(producer, error))
    return way(producer, messages)


def _way(producer: Any, message: dict[str, Any]) -> Callable[[Any, Sequence[dict[str, Any]]], Sent]:
    if getattr(producer, "supports_batch_publish", False):
        return _in_one
    # To ask a channel, it has to be opened.
    if _insisting(producer, message, lambda: confirms(producer)):
        return _confirmed_together
    return _in_turn


def _insisting(producer: Any, message: dict[str, Any], work: Callable[[], Any]) -> Any:
    """Do `work` with the broker, as often as the message's policy says."""
    if message.get("retry"):
        work = producer.connection.ensure(producer, work, **(message.get("retry_policy") or {}))
    return work()


def _confirmed_together(producer: Any, messages: Sequence[dict[str, Any]]) -> Sent:
    sent = 0
    try:
        own = _insisting(producer, messages[0], lambda: ConfirmedChannel(producer))
    except Exception as error:  # noqa: BLE001 - told by what is returned
        return Sent(0, error=_librarys(producer, error))
    try:
        for message in messages:
            own.producer.publish(**{**message, "retry": False})
            sent += 1
        own.await_all(messages[0].get("confirm_timeout") or messages[0].get("timeout"))
        own.close()
    except Exception as error:  # noqa: BLE001 - told by what is returned
        # The one at which it broke may have got through, too.
        doubtful = min(sent + 1, len(messages)) - own.certain
        # A connection has only so many, and this one may go on.
        with contextlib.suppress(Exception):
            own.close()
        return Sent(own.certain, doubtful, _librarys(producer, error))
    return Sent(len(messages))


def _in_one(producer: Any, messages: Sequence[dict[str, Any]]) -> Sent:
    is_complete = False
    try:
        _reach(producer, messages)
        with producer.batch(max_size=_WHOLE):
            for message in messages:
                producer.publish(**{**message, "retry": False, "declare": None})
            is_complete = True
    except Exception as error:  # noqa: BLE001 - told by what is returned
        return Sent(0, len(messages) if is_complete else 0, _librarys(producer, error))
    return Sent(len(messages))


def _reach(producer: Any, messages: Sequence[dict[str, Any]]) -> None:
    """Make sure that the broker answers, and that it has what the messages need."""
    needed = {id(entity): entity for message in messages for entity in message.get("declare") or ()}

    def look() -> None:
        with producer.channel.conn_or_acquire() as client:
            client.ping()
        for entity in needed.values():
            producer.maybe_declare(entity)

    _insisting(producer, messages[0], look)


def _in_turn(producer: Any, messages: Sequence[dict[str, Any]]) -> Sent:
    for count, message in enumerate(messages):
        try:
            producer.publish(**message)
        except Exception as error:  # noqa: BLE001 - told by what is returned
            return Sent(count, 1, _librarys(producer, error))
    return Sent(len(messages))


def _librarys(producer: Any, error: Exception) -> Exception:
    """Return the error as Celery's own `apply_async` raises it: kombu's, and not the transport's."""
    cause = error.__cause__ if isinstance(error, _BATCH_FAILED) else None
    try:
        with producer.connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery does
            raise cause if isinstance(cause, Exception) else error  # noqa: TRY301 - what it makes of it is asked for
    except Exception as raised:  # noqa: BLE001 - see above
        return raised


def tell(app: Any, held: Held, producer: Any) -> None:
    """Do what Celery does once a message is out."""
    options, headers, body = held.options, held.headers, held.body
    exchange, routing_key = options.get("exchange"), options.get("routing_key")
    signals.after_task_publish.send(
        sender=held.task, body=body, headers=headers, exchange=exchange, routing_key=routing_key
    )
    if held.sent_event is None:
        return
    queue = next((queue.name for queue in options.get("declare") or ()), routing_key)
    where = {"queue": queue, "exchange": getattr(exchange, "name", exchange), "routing_key": routing_key}
    how = {"retry": options.get("retry"), "retry_policy": options.get("retry_policy")}
    dispatcher = app.amqp._event_dispatcher  # noqa: SLF001 - what Celery itself tells by
    dispatcher.publish("task-sent", {**held.sent_event, **where}, producer, **how)
