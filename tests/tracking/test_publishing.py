"""What a publisher says of its own publishes: that one failed, that one went out after all."""

import pytest
from celery import Celery
from kombu import Producer

from lrp_celery import LrpCelery
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.publishing import Unpublished


@pytest.fixture
def add():
    app = Celery("publishing", broker="memory://", set_as_current=False)
    tracked = LrpCelery(app, MemoryTrackingStore())

    @app.task(name="publishing.add", shared=False)
    def add(a, b):
        return a + b

    add.find = lambda call_id: tracked.store._find(call_id, None).record
    yield add
    tracked.close()
    app.close()


def publish_in_vain(add, call_id):
    def refuse(*_, **__):
        raise OSError("no broker")

    with pytest.MonkeyPatch.context() as away, pytest.raises(OSError, match="no broker"):
        away.setattr(Producer, "publish", refuse)
        add.apply_async((1, 2), task_id=call_id)


def test_a_publish_that_succeeds_after_one_that_raised_leaves_a_row_like_any_other(add):
    publish_in_vain(add, "again")
    assert (add.find("again").published_at, add.find("again").last_error) == (None, "no broker")
    add.apply_async((1, 2), task_id="again")
    row = add.find("again")
    assert row.published_at is not None
    assert (row.status, row.last_error, row.error_type) == ("submitted", None, None)


def test_a_publish_that_raises_twice_is_shown_until_one_succeeds(add):
    publish_in_vain(add, "twice")
    publish_in_vain(add, "twice")
    assert add.find("twice").published_at is None
    add.apply_async((1, 2), task_id="twice")
    assert add.find("twice").published_at is not None


def test_a_plain_publish_writes_its_row_once(add):
    add.apply_async((1, 2), task_id="plain")
    assert add.find("plain").version == 0


def test_what_is_remembered_of_failures_is_bounded_and_keeps_the_newest():
    remembered = Unpublished()
    for number in range(remembered.MOST + 1):
        remembered.add(str(number))
    assert not remembered.remove("0")
    assert remembered.remove("1")
    assert not remembered.remove("1")
    assert remembered.remove(str(remembered.MOST))
