"""A message goes out with what it needs, and asks the broker for that only once."""

import pytest
from amqp import exceptions
from celery import Celery
from kombu import Queue

from lrp_celery.procedures.envelope import Envelope


@pytest.fixture
def app():
    app = Celery("envelopes", broker="memory://")
    app.conf.task_queues = [Queue("kept", routing_key="kept"), Queue("brief", queue_arguments={"x-expires": 60_000})]
    app.set_current()
    yield app
    app.close()


@pytest.fixture
def declared(monkeypatch):
    """The names of the queues that were declared, in order."""
    names = []
    plain = Queue.declare

    def declare(self, *args, **kwargs):
        names.append(self.name)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Queue, "declare", declare)
    return names


def message(*queues):
    headers = {"id": "1", "task": "t"}
    options = {"exchange": "", "routing_key": queues[-1], "headers": headers, "serializer": "json"}
    return Envelope(task="t", body=((), {}, {}), queues=queues, options=options)


def test_a_queue_is_declared_once_on_a_connection_and_again_on_the_next_one(app, declared):
    for expected in (["kept"], ["kept", "kept"]):
        with app.connection_for_write() as connection, connection.Producer() as producer:
            message("kept").publish(app, producer)
            message("kept").publish(app, producer)
        assert declared == expected


def test_a_queue_that_may_be_gone_by_itself_is_declared_each_time(app, declared):
    with app.connection_for_write() as connection, connection.Producer() as producer:
        message("brief").publish(app, producer)
        message("kept", "brief").publish(app, producer)
    assert declared == ["brief", "kept", "brief"]


def test_what_is_sent_once_more_after_a_broken_connection_has_its_queue_there(app, declared, monkeypatch):
    with app.connection_for_write() as connection, connection.Producer() as producer:
        message("kept").publish(app, producer)
        channel = type(producer.channel)
        plain, broken = channel.basic_publish, []

        def breaks_once(self, *args, **kwargs):
            if not broken:
                broken.append(True)
                raise exceptions.ConnectionError("The broker is gone.")
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(channel, "basic_publish", breaks_once)
        message("kept").publish(app, producer)
    assert broken
    assert declared == ["kept", "kept"]
