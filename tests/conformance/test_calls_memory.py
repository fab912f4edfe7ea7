"""The suite of owned calls in memory, and what only a clock that can be set shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lrp_celery.core.clock import ManualClock
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import WorkerFacts
from tests.conformance.call_store import (
    DAY,
    PAST,
    TICK,
    CallStoreConformance,
    ended,
    fresh_id,
    held,
    new,
    removed,
)
from tests.conformance.racing import Racers, ThreadRacers

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class TestMemory(CallStoreConformance):
    store_name = "memory"
    can_tell = True

    @pytest.fixture
    def store(self) -> MemoryTrackingStore:
        return MemoryTrackingStore()

    @pytest.fixture
    def racers(self, store: MemoryTrackingStore) -> Racers:
        return ThreadRacers(store)

    @pytest.fixture
    def leave(self) -> Callable[[], None]:
        return lambda: None


def test_a_time_to_live_ends_at_its_very_instant() -> None:
    clock = ManualClock(NOW)
    store = MemoryTrackingStore(clock)
    call_id = ended(store, time_to_live=60)
    clock.advance(timedelta(seconds=60) - TICK)
    assert store.look(call_id) is not None
    assert store.purge_terminal(PAST) == 0
    assert store.payload(call_id) is not None
    clock.advance(TICK)
    assert (store.look(call_id), store.get_status(call_id)) == (None, None)
    assert store.purge_terminal(PAST) == 0
    assert store.payload(call_id) is None
    clock.advance(DAY)
    assert store.purge_terminal(PAST) == 0
    clock.advance(TICK)
    assert store.purge_terminal(PAST) == 1


def test_a_call_is_due_at_its_very_instant() -> None:
    clock = ManualClock(NOW)
    store = MemoryTrackingStore(clock)
    waiting, running = new(store), held(store)
    clock.advance(timedelta(seconds=10) - TICK)
    assert store.due(10) == []
    clock.advance(TICK)
    assert store.due(10) == [running]
    clock.advance(timedelta(seconds=50))
    assert store.due(10) == [running, waiting]
    assert store.due(1) == [running]


def test_the_purge_forgets_workers_that_have_been_silent_for_a_day() -> None:
    clock = ManualClock(NOW)
    store = MemoryTrackingStore(clock)
    for name in ("silent", "alive"):
        store.beat(WorkerFacts(boot_id=name, name=name, host="h", pid=1, pool="solo"))
    clock.advance(DAY)
    store.beat(WorkerFacts(boot_id="alive", name="alive", host="h", pid=1, pool="solo"))
    store.purge_terminal(PAST)
    assert [worker.boot_id for worker in store.workers()] == ["alive", "silent"]
    clock.advance(TICK)
    store.purge_terminal(PAST)
    assert [worker.boot_id for worker in store.workers()] == ["alive"]


def test_nothing_is_left_of_a_call_that_was_purged() -> None:
    clock = ManualClock(NOW)
    store = MemoryTrackingStore(clock)
    removed(store)
    assert store.record_enqueue(fresh_id(), "t")
    clock.advance(2 * DAY)
    assert store.purge_terminal(PAST) == 1
    assert (len(store._records), store._attempts, store._payloads) == (1, {}, {})
