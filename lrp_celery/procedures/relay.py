"""Sending the messages that did not get out, or that nobody has claimed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kombu.transport import virtual

from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.publishing import BrokerAway, Publisher
from lrp_celery.tracking.callstore import CallStore, Payload
from lrp_celery.tracking.record import CallRecord

logger = logging.getLogger("lrp_celery.relay")

#: Seconds for which an answer about a queue is believed at most.
_BELIEVED: Final = 5.0
#: Seconds that the broker may take to answer: whoever relays renews leases, too.
_LONGEST: Final = 1.0
#: Seconds from a message's leaving its queue until a worker that has nothing else to do has claimed its call.
_TAKEN: Final = 0.2
#: What AMQP says of a queue that is not there.
_NOT_FOUND: Final = "404"


class Relay:
    """Sends calls' messages again, at the pace at which their queues are worked off.

    A message that nobody has claimed for long need not be lost: its queue may be long. It is
    sent again only if a call that was asked for later has been started, or if the queue is
    empty. Whatever is sent once too often is refused when it is claimed. A broker that is away
    is left alone for a while. `pause` waits for so many seconds.
    """

    def __init__(self, app: Any, store: CallStore, *, pause: Callable[[float], object] = time.sleep) -> None:
        self._app = app
        self._store = store
        self._pause = pause
        self._broker = Publisher()
        self._within = min(_LONGEST, store.timing.lease / 5)
        # A queue that was empty so long ago does not hold what was sent before.
        self._queues = _Answers(self._is_empty, min(_BELIEVED, store.timing.resend_after))

    def send(self, call_id: str) -> bool:
        """Send the message of a call whose time to be sent has come; return whether it was sent."""
        record = self._store.look(call_id)
        if record is None or not self._broker.may_try():
            return False
        try:
            if self._may_still_wait(record):
                self._store.put_off(call_id)
                return False
        except BrokerAway:
            return False
        sending = self._store.sending(call_id)
        if sending is None:
            return False
        # Written first, sent then: if it dies in between, the next time comes; the other way round it might come at once.
        envelope = Envelope.from_json(sending[1]).of_generation(sending[0].generation)
        if sending[0].runs:
            envelope = envelope.without_expiry()
        try:
            self._broker.do(partial(envelope.publish, self._app), self._within)
        except BrokerAway:
            self._store.not_sent(call_id)
            return False
        logger.info("Call %s was sent again (%d).", call_id, sending[0].sends)
        return True

    def _may_still_wait(self, record: CallRecord) -> bool:
        """Whether its message is out, and may well stand in its queue."""
        if record.published_at is None or record.queue is None:
            return False
        return not self._store.is_overtaken(record) and not all(map(self._queues.ask, self._queues_of(record)))

    def _queues_of(self, record: CallRecord) -> tuple[str, ...]:
        """Return the queues that its message was sent to: by its exchange these need not be called like its routing key."""
        message = (self._store.payload(record.call_id) or Payload()).message
        named = () if message is None else Envelope.from_json(message).queues
        return named or (str(record.queue),)

    def _is_empty(self, queue: str) -> bool:
        is_empty = self._broker.do(partial(self._look_into, queue), self._within)
        if is_empty:
            # The last message may have been taken out just now. What is claimed by then is not sent.
            self._pause(_TAKEN)
        return is_empty

    def _look_into(self, queue: str) -> bool:
        with self._app.connection_for_write() as connection:
            channel = connection.default_channel
            if isinstance(channel, virtual.Channel):
                # Redis and the like. A passive declaration there does not find what has a prefix, nor what is empty.
                return bool(channel._size(queue) == 0)  # noqa: SLF001 - what queue_declare answers by
            try:
                declared = channel.queue_declare(queue=queue, passive=True)
            except connection.channel_errors as error:
                return str(getattr(error, "reply_code", None)) == _NOT_FOUND
            return int(declared.message_count) == 0


class _Answers:
    """Remembers answers for a while."""

    def __init__(self, question: Callable[[str], bool], believed: float) -> None:
        self._question = question
        self._believed = believed
        self._known: dict[str, tuple[float, bool]] = {}

    def ask(self, about: str) -> bool:
        now = time.monotonic()
        at, answer = self._known.get(about, (0.0, False))
        if about not in self._known or now - at > self._believed:
            answer = self._question(about)
            self._known[about] = now, answer
        return answer
