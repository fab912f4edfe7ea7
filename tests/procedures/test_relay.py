"""What the relay sends."""

from datetime import timedelta

import pytest
from celery import Celery

from lrp_celery.core.clock import ManualClock
from lrp_celery.core.values import replace
from lrp_celery.procedures import relay
from lrp_celery.procedures.envelope import Envelope, capture
from lrp_celery.procedures.relay import Relay
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.owned import Care, Delivery, Order, Terms, Timing
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, RunFacts
from tests.tracking.test_merge import NOON

app = Celery("relayed", broker="memory://", set_as_current=False)
FACTS = CallFacts(task="relayed.work")


@app.task(name="relayed.work")
def work() -> None: ...


@pytest.fixture
def published(monkeypatch):
    envelopes = []
    # A machine that is busy may take longer to ask even a broker in memory.
    monkeypatch.setattr(relay, "_LONGEST", 60.0)
    monkeypatch.setattr(Envelope, "publish", lambda self, app: envelopes.append(self))
    return envelopes


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_call_that_has_begun_in_time_does_not_expire_when_it_is_sent_again(published, has_begun):
    clock = ManualClock(NOON)
    store = MemoryTrackingStore(clock, Timing(lease=300))
    envelope = capture(lambda producer: work.apply_async(task_id="x", producer=producer, expires=5))
    terms = Terms(idempotent=True)
    store.insert(Order(call_id="x", facts=FACTS, terms=terms, message=envelope.to_json()))
    if has_begun:
        run = RunFacts(token="1-boot-7-1", worker="w", pid=7)
        store.claim(Delivery(call_id="x", turn=Turn(), generation=0, facts=FACTS, terms=terms, run=run))
        store.attend("x", is_dead=True)
    else:
        store.not_sent("x")
    clock.advance(timedelta(minutes=10))
    assert Relay(app, store).send("x")
    (sent,) = published
    assert (sent.headers["expires"] is None) is has_begun


@pytest.mark.parametrize("is_claimed", [False, True], ids=["lost", "taken just now"])
def test_rule_16_what_a_worker_claims_just_after_its_queue_was_empty_is_not_sent_again(published, is_claimed):
    clock = ManualClock(NOON)
    store = MemoryTrackingStore(clock, Timing(lease=300))
    # One of its own: all brokers in memory are one, and others may have left something in theirs.
    envelope = capture(lambda producer: work.apply_async(task_id="x", producer=producer, queue="relayed"))
    facts = replace(FACTS, queue="relayed")
    store.insert(Order(call_id="x", facts=facts, terms=Terms(), message=envelope.to_json()))
    clock.advance(timedelta(minutes=10))
    assert store.attend("x") is Care.SEND

    def pause(seconds):
        if is_claimed:
            run = RunFacts(token="1-boot-7-1", worker="w", pid=7)
            store.claim(Delivery(call_id="x", turn=Turn(), generation=0, facts=facts, terms=Terms(), run=run))

    assert Relay(app, store, pause=pause).send("x") is not is_claimed
    assert len(published) == (not is_claimed)
