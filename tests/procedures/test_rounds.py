"""Looking after calls from outside their workers."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery, _state

from lrp_celery import LrpCelery, StoreError, procedure
from lrp_celery.core.clock import ManualClock
from lrp_celery.procedures import rounds, steadiness
from lrp_celery.procedures.relay import Relay
from lrp_celery.procedures.rounds import LookedAfter, look_after, rescue
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.owned import Delivery, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, RunFacts

app = Celery("rounds", broker="memory://", set_as_current=False)


@procedure
@app.task(name="tests.rounds.once")
def once() -> None: ...


@procedure(idempotent=True)
@app.task(name="tests.rounds.again")
def again() -> None: ...


app.finalize()


class Time:
    """One time for the store and for whoever waits."""

    def __init__(self, monkeypatch):
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.beats = []
        # Not in the module time itself: other threads use it, too.
        time = SimpleNamespace(monotonic=lambda: self.clock.now().timestamp(), sleep=self.pass_by)
        for module in (rounds, steadiness):
            monkeypatch.setattr(module, "time", time)

    def pass_by(self, seconds):
        self.clock.advance(timedelta(seconds=seconds))


@pytest.fixture
def now(monkeypatch):
    return Time(monkeypatch)


@pytest.fixture
def store(now):
    before = _state.get_current_app()
    made = MemoryTrackingStore(now.clock)
    lrp = LrpCelery(app, store=made)
    app.set_current()
    rounds._relay.cache_clear()
    yield made
    before.set_current()
    lrp.close()
    rounds._relay.cache_clear()


@pytest.fixture
def sent(monkeypatch):
    ids = []

    def send(self, call_id):
        ids.append(call_id)
        return self._store.sending(call_id) is not None

    monkeypatch.setattr(Relay, "send", send)
    return ids


def claimed(store, made):
    call_id = made.call()
    delivery = Delivery(
        call_id=call_id,
        turn=Turn(),
        generation=0,
        facts=CallFacts(task=made.name),
        terms=Terms(),
        run=RunFacts(token=f"1-b00t-7-{call_id}", worker="w", pid=7),
    )
    assert store.claim(delivery).verdict == "granted"
    return call_id


def test_what_no_run_holds_is_looked_after_and_the_rest_is_left(store, sent, now):
    waiting, late = once.call(), once.using(timeout=30).call()
    held = [claimed(store, again), claimed(store, once)]
    assert look_after(app, runtime_of(app)) == LookedAfter()
    now.pass_by(3600)
    assert look_after(app, runtime_of(app)) == LookedAfter(calls=2, sent=1, left=2)
    assert sent == [waiting]
    assert (store.look(late).status, store.look(late).reason) == ("aborted", "timeout")
    assert [store.look(call_id).status for call_id in held] == ["started", "started"]
    assert store.workers() == []


def test_what_is_left_does_not_stand_in_the_way(store, sent, monkeypatch, now):
    monkeypatch.setattr(rounds, "BATCH", 2)
    held = [claimed(store, again) for _ in range(5)]
    now.pass_by(120)
    waiting = once.call()
    now.pass_by(120)
    assert look_after(app, runtime_of(app)).left == len(held)
    assert sent == [waiting]


def test_a_rescue_judges_after_it_has_lived_for_a_lease(store, sent, now):
    idempotent, other = claimed(store, again), claimed(store, once)
    now.pass_by(11)
    began = now.clock.now()
    assert rescue(app, runtime_of(app)) == LookedAfter(calls=2, sent=1)
    assert 10 <= (now.clock.now() - began).total_seconds() < 13
    assert sent == [idempotent]
    # The other one may not run twice: it needs three leases.
    assert store.look(other).status == "started"
    now.pass_by(10)
    rescue(app, runtime_of(app))
    assert (store.look(other).status, store.look(other).reason) == ("failed", "worker_lost")
    assert store.workers() == []


def test_a_run_that_renews_meanwhile_is_not_judged(store, sent, now, monkeypatch):
    call_id = claimed(store, again)
    now.pass_by(11)

    def pass_by(seconds):
        now.pass_by(seconds)
        store.renew([(call_id, f"1-b00t-7-{call_id}")])

    monkeypatch.setattr(rounds.time, "sleep", pass_by)
    assert rescue(app, runtime_of(app)) == LookedAfter()
    assert store.look(call_id).status == "started"


def test_a_gap_in_its_own_signs_of_life_starts_the_wait_again(store, sent, now, monkeypatch):
    naps = iter([2, 2, 500, *[2] * 100])
    monkeypatch.setattr(rounds.time, "sleep", lambda _: now.pass_by(next(naps)))
    began = now.clock.now()
    rescue(app, runtime_of(app))
    assert (now.clock.now() - began).total_seconds() == 504 + 10


def test_a_store_that_is_away_judges_nobody(store, sent, monkeypatch):
    def fail(_):
        raise StoreError("away")

    monkeypatch.setattr(store, "beat", fail)
    with pytest.raises(StoreError):
        rescue(app, runtime_of(app))
