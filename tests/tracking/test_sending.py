"""What is left of sending many messages that the broker does not take."""

from typing import Any

import pytest

from lrp_celery.tracking import sending


class Refusing:
    """A channel of our own whose broker refuses what it has been sent."""

    made: list["Refusing"] = []

    def __init__(self, producer: Any) -> None:
        self.producer, self.certain, self.is_open = producer, 1, True
        self.made.append(self)

    def await_all(self, timeout: float | None) -> None:
        raise ConnectionRefusedError("the broker refused a message (basic.nack)")

    def close(self) -> None:
        self.is_open = False


class Producer:
    """Publishes into the void."""

    def __init__(self) -> None:
        self.connection = self

    def publish(self, **message: Any) -> None:
        pass

    def _reraise_as_library_errors(self) -> Any:
        return pytest.MonkeyPatch.context()


def test_a_channel_whose_messages_were_refused_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "confirms", lambda _: True)
    monkeypatch.setattr(sending, "ConfirmedChannel", Refusing)
    sent = sending.send_all(Producer(), [{"retry": False}] * 3)
    assert (sent.certain, sent.doubtful) == (1, 2)
    assert isinstance(sent.error, ConnectionRefusedError)
    assert [each.is_open for each in Refusing.made] == [False]
