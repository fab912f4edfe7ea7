"""Who looks for observed calls of which nothing more is heard, and when."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery

from lrp_celery import LrpCelery, StoreError
from lrp_celery.core.clock import ManualClock
from lrp_celery.core.errors import ConfigurationError, StoreUnavailable
from lrp_celery.procedures import caretaker, rounds, steadiness
from lrp_celery.procedures.caretaker import Caretaker
from lrp_celery.procedures.patience import patience_of
from lrp_celery.procedures.rounds import LookedAfter, look_after, rescue
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.redelivery import redelivery_window, visibility_timeout
from lrp_celery.tracking.reports import CallFacts, Enqueued, RunFacts, Started

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400
DEAD, OURS = "dddddddddddd", "aaaaaaaaaaaa"

app = Celery("observed", broker="memory://", set_as_current=False)


class Idle:
    def runs(self):
        return []


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock(BEGIN)
    # Not in the module time itself: other threads use it, too.
    time = SimpleNamespace(
        monotonic=lambda: clock.now().timestamp(), sleep=lambda seconds: clock.advance(timedelta(seconds=seconds))
    )
    for module in (caretaker, rounds, steadiness):
        monkeypatch.setattr(module, "time", time)
    return clock


@pytest.fixture
def store(clock):
    made = MemoryTrackingStore(clock)
    lrp = LrpCelery(app, store=made)
    yield made
    lrp.close()


def facts(boot_id):
    return WorkerFacts(boot_id=boot_id, name=boot_id, host="h", pid=1, pool="prefork")


def running_in(store, boot_id, call_id):
    assert store.report(Enqueued(call_id=call_id, facts=CallFacts(task="t")))
    run = RunFacts(token=f"{1:014x}-{boot_id}-1-1", worker=boot_id, pid=1)
    assert store.report(Started(call_id=call_id, run=run))


def stands(store, call_id):
    record = store.look(call_id)
    return record.status.value, record.reason


def live(caring, clock, seconds):
    for _ in range(seconds):
        clock.advance(timedelta(seconds=1))
        caring.round()


def test_a_worker_that_has_just_come_back_to_the_store_judges_nobody_for_a_lease(store, clock):
    store.beat(facts(DEAD))
    running_in(store, DEAD, "x")
    clock.advance(timedelta(seconds=100))
    caring = Caretaker(app, runtime_of(app), facts(OURS), Idle())
    live(caring, clock, 9)
    assert stands(store, "x") == ("started", None)
    # Whoever was away as long as the others cannot tell who was.
    clock.advance(timedelta(seconds=20))
    live(caring, clock, 9)
    assert stands(store, "x") == ("started", None)
    live(caring, clock, 10)
    assert stands(store, "x") == ("failed", "worker_lost")


def test_one_call_that_cannot_be_written_does_not_stand_in_the_way(store, clock, monkeypatch):
    store.beat(facts(DEAD))
    for call_id in ("torn", "x"):
        running_in(store, DEAD, call_id)
    conclude = store.conclude

    def torn(judged, report):
        if judged.call_id == "torn":
            raise StoreError("torn")
        return conclude(judged, report)

    monkeypatch.setattr(store, "conclude", torn)
    live(Caretaker(app, runtime_of(app), facts(OURS), Idle()), clock, 60)
    assert (stands(store, "torn"), stands(store, "x")) == (("started", None), ("failed", "worker_lost"))


def test_a_store_that_goes_away_costs_the_right_to_judge(store, clock, monkeypatch):
    store.beat(facts(DEAD))
    running_in(store, DEAD, "x")
    caring = Caretaker(app, runtime_of(app), facts(OURS), Idle())

    asked, suspects = [], store.suspects

    def away_at_first(*given):
        asked.append(clock.now())
        if len(asked) == 1:
            raise StoreUnavailable("away")
        return suspects(*given)

    monkeypatch.setattr(store, "suspects", away_at_first)
    live(caring, clock, 60)
    assert asked[1] - asked[0] >= timedelta(seconds=10)
    assert stands(store, "x") == ("failed", "worker_lost")


def test_a_rescue_from_outside_judges_observed_calls_and_a_mere_look_does_not(store, clock):
    assert store.report(Enqueued(call_id="silent", facts=CallFacts(task="t")))
    clock.advance(timedelta(seconds=DAY))
    assert look_after(app, runtime_of(app)) == LookedAfter()
    assert stands(store, "silent") == ("submitted", None)
    assert rescue(app, runtime_of(app)) == LookedAfter(judged=1)
    assert stands(store, "silent") == ("discarded", "lost")


def test_workers_do_not_all_look_at_once(store, clock):
    looks = []
    for _ in range(20):
        caring = Caretaker(app, runtime_of(app), facts(OURS), Idle())
        caring._rescuer = SimpleNamespace(round=lambda seconds: looks.append(clock.now()))
        began = clock.now()
        while not looks or looks[-1] < began:
            live(caring, clock, 1)
        looks[-1] -= began - BEGIN
    assert len(set(looks)) > 3


def test_workers_count_what_has_ended_now_and_then_and_in_portions(store, clock, monkeypatch):
    left, asked = [2_500], []

    def count_ended(limit):
        asked.append(clock.now())
        counted = min(limit, left[0])
        left[0] -= counted
        return counted

    monkeypatch.setattr(store, "count_ended", count_ended)
    caring = Caretaker(app, runtime_of(app), facts(OURS), Idle())
    live(caring, clock, 1)
    assert (left, len(asked)) == ([0], 3)
    live(caring, clock, 60)
    assert 3 + 2 <= len(asked) <= 3 + 8


def test_counts_that_cannot_be_written_cost_nobody_the_right_to_judge(store, clock, monkeypatch):
    def busy(limit):
        raise StoreUnavailable("database is locked")

    monkeypatch.setattr(store, "count_ended", busy)
    store.beat(facts(DEAD))
    running_in(store, DEAD, "x")
    clock.advance(timedelta(seconds=100))
    live(Caretaker(app, runtime_of(app), facts(OURS), Idle()), clock, 30)
    assert stands(store, "x") == ("failed", "worker_lost")


def test_counting_leaves_time_for_renewing_leases(store, clock, monkeypatch):
    rounds = []

    def slow(limit):
        rounds.append(clock.now())
        clock.advance(timedelta(seconds=0.7))
        return limit

    monkeypatch.setattr(store, "count_ended", slow)
    Caretaker(app, runtime_of(app), facts(OURS), Idle()).round()
    assert len(rounds) == 3


def test_silence_after_which_a_call_is_given_up_can_be_set_without_django(store):
    LrpCelery(app, store=store, silent_after=timedelta(hours=2)).close()
    lrp = LrpCelery(app, store=store, silent_after=5)
    assert patience_of(app, runtime_of(app)).silent == timedelta(seconds=5)
    lrp.close()
    with pytest.raises(ConfigurationError, match="silent_after"):
        LrpCelery(app, store=store, silent_after=0)


@pytest.mark.parametrize(
    ("broker", "options", "visible", "window"),
    [
        ("redis://", {}, 3600, 3900),
        ("rediss://", {"visibility_timeout": 60}, 60, 360),
        ("sentinel://a;sentinel://b", {"visibility_timeout": 60.5}, 60.5, 360.5),
        ("amqp://", {"visibility_timeout": 60}, None, 60),
        ("pyamqp://a;pyamqp://b", {}, None, 60),
        ("memory://", {}, None, 3900),
    ],
)
def test_when_a_message_comes_back_is_read_off_the_settings(broker, options, visible, window):
    made = Celery("window", broker=broker, set_as_current=False)
    made.conf.broker_transport_options = options
    assert (visibility_timeout(made), redelivery_window(made)) == (visible, window)
