"""Many messages over AMQP whose broker confirms them: all are sent before the first confirmation is awaited.

py-amqp awaits each one, which is a round trip for every message. So a channel of our own sends
without awaiting; the confirmations that come then tell by number which messages the broker has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqp import Channel


def confirms(producer: Any) -> bool:
    """Whether the producer's channel awaits the broker's word for each message, and ours could await it for many."""
    channel = producer.channel
    return isinstance(channel, Channel) and bool(getattr(channel.connection, "confirm_publish", False))


class ConfirmedChannel:
    """A channel that sends without awaiting confirmations, and counts those that come."""

    def __init__(self, producer: Any) -> None:
        self._connection = producer.connection
        self._channel = self._connection.channel()
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self._count = 0
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._heard(refused=False))
        self._channel.events["basic_nack"].add(self._heard(refused=True))
        # What the class sends by; the instance has the one that awaits.
        self._channel.basic_publish = self._publish
        self._send: Callable[..., Any] = Channel.basic_publish
        self.producer = type(producer)(self._channel, serializer=producer.serializer, auto_declare=False)

    def _publish(self, *args: Any, **kwargs: Any) -> Any:
        self._count += 1
        self._open.add(self._count)
        return self._send(self._channel, *args, **kwargs)

    def _heard(self, *, refused: bool) -> Callable[[int, bool], None]:
        def hear(tag: int, multiple: bool) -> None:  # noqa: FBT001 - as py-amqp calls it
            meant = {each for each in self._open if each <= tag} if multiple else {tag}
            if refused:
                self._refused |= meant
            else:
                self._open -= meant

        return hear

    @property
    def certain(self) -> int:
        """How many messages, from the first on, the broker has said to have."""
        return min(self._open, default=self._count + 1) - 1

    def await_all(self, timeout: float | None) -> None:
        """Return when the broker has confirmed all of them; `OSError`, once it has spoken of each, if it refused one."""
        # A refusal may come before the confirmation of what was sent earlier.
        while self._open - self._refused:
            self._connection.drain_events(timeout=timeout)
        if self._refused:
            raise ConnectionRefusedError("the broker refused a message (basic.nack)")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
