"""Procedures of this process: what they do to a bare store, and what the conformance suite does not ask."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from lrp_celery import (
    AbortSignal,
    CallAborted,
    CallFailed,
    CallNotFound,
    CallPending,
    CallState,
    ConfigurationError,
    NotEncodable,
    StoreError,
    current_call,
    procedure,
)
from lrp_celery.core.clock import ManualClock
from lrp_celery.procedures.local import LocalProcedure
from lrp_celery.procedures.rows import RowStore
from lrp_celery.procedures.stores import Item, MemoryStore, Pending, Rejected, Resolved
from lrp_celery.tracking import MemoryTrackingStore
from tests.conformance.item_store import until

WAIT = 20


class Noting(MemoryStore):
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        super().__init__(self.clock)
        self.writes: list[tuple[Any, ...]] = []
        self.failing = 0

    def set(self, id: str, item: Item, ttl: timedelta | float | None = None) -> None:  # noqa: A002
        if self.failing:
            self.failing -= 1
            raise StoreError("away")
        self.writes.append(("set", id, item, ttl))
        super().set(id, item, ttl)

    def delete(self, id: str) -> None:  # noqa: A002
        self.writes.append(("delete", id))
        super().delete(id)


class Gate:
    """Holds a function until the test lets it go."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.entered.set()
        assert self.open.wait(WAIT)


@pytest.fixture
def store():
    return Noting()


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


def settled(made: LocalProcedure[Any, Any], call_id: str) -> bool:
    return made.get_state(call_id) is CallState.SETTLED


def test_lrp_01_the_signal_comes_in_by_its_annotation(store):
    @procedure(store=store)
    def add(signal: AbortSignal, a: int, b: int = 2) -> tuple[bool, int]:
        return signal.aborted, a + b

    assert add(1) == (False, 3)
    assert add.get_result(add.call(1, b=5)) == (False, 6)
    assert store.writes[0][0] == "set"
    with pytest.raises(TypeError, match="missing"):
        add.call()


def test_lrp_04_and_06_a_call_is_two_writes(store, gate):
    @procedure(store=store, timeout=100, time_to_live=timedelta(minutes=1), grace=1)
    def hold() -> str:
        gate.hold()
        return "held"

    call_id = hold.call()
    assert store.get(call_id) == Pending()
    assert hold.get_state(call_id) is CallState.PENDING
    gate.open.set()
    assert hold.get_result(call_id, wait=WAIT) == "held"
    assert hold.get_result(call_id) == "held"
    assert hold.get_state(call_id) is CallState.SETTLED
    (_, _, pending, timeout), (_, _, resolved, live) = store.writes
    assert (pending, resolved, live) == (Pending(), Resolved("held"), 60)
    assert 101 < timeout < 110
    store.clock.advance(timedelta(seconds=60))
    with pytest.raises(CallNotFound):
        hold.get_state(call_id)


def test_lrp_04_no_call_without_its_pending_item(store):
    store.failing, runs = 1, []

    @procedure(store=store)
    def note() -> None:
        runs.append(1)

    with pytest.raises(StoreError):
        note.call()
    assert (runs, note._running) == ([], {})


def test_lrp_08_an_outcome_without_its_item_is_dropped(store, gate):
    @procedure(store=store, timeout=3600)
    def hold() -> None:
        gate.hold()

    call_id = hold.call()
    store.clock.advance(timedelta(days=1))
    with pytest.raises(CallNotFound):
        hold.get_state(call_id)
    gate.open.set()
    until(lambda: not hold._running)
    assert [write[0] for write in store.writes] == ["set"]
    assert store.get(call_id) is None


def test_a_function_that_outlasts_its_grace_is_settled_without_it(store, gate):
    @procedure(store=store, grace=0.01)
    def deaf() -> str:
        gate.hold()
        return "done"

    call_id = deaf.call()
    assert gate.entered.wait(WAIT)
    deaf.abort(call_id, "now")
    until(lambda: settled(deaf, call_id))
    gate.open.set()
    with pytest.raises(CallAborted, match="now"):
        deaf.get_result(call_id)
    assert len(store.writes) == 2


def test_a_result_without_a_json_form_fails_the_call(store):
    @procedure(store=store)
    def bad() -> Any:
        return threading.Lock()

    with pytest.raises(CallFailed) as caught:
        bad.get_result(bad.call())
    assert caught.value.type.endswith(NotEncodable.__name__)


@dataclass(frozen=True)
class Month:
    first: date
    days: int


def test_results_travel_by_their_annotations(store):
    @procedure(store=store)
    async def month() -> list[Month]:
        return [Month(date(2026, 10, 1), 31)]

    @procedure(store=store)
    def anything() -> Any:
        return {"on": date(2026, 10, 1), "__type__": "date", "__value__": 1}

    assert month.get_result(month.call()) == [Month(date(2026, 10, 1), 31)]
    assert anything.get_result(anything.call()) == {"on": date(2026, 10, 1), "__type__": "date", "__value__": 1}


def test_the_running_call_knows_itself(store):
    @procedure(store=store, timeout=60)
    def me() -> list[Any]:
        call = current_call()
        call.progress(1, 2, "half")
        call.log("a line")
        return [call.id, call.attempt, call.deadline is not None]

    call_id = me.call()
    assert me.get_result(call_id) == [call_id, 1, True]


def test_a_fixed_id_is_the_idempotency_key(store):
    runs = []

    @procedure(store=store)
    def note(what: str) -> str:
        runs.append(what)
        return what

    fixed = note.using(call_id="mine", time_to_live=60)
    assert fixed.call("first") == "mine"
    assert note.get_result("mine", wait=WAIT) == "first"
    assert fixed.call("second") == "mine"
    assert (note.get_result("mine"), runs) == ("first", ["first"])
    assert store.writes[-1][3] == 60
    with pytest.raises(TypeError):
        note.using(queue="slow")


def test_a_store_that_is_away_for_a_while_costs_no_outcome(store, gate):
    @procedure(store=store)
    def hold() -> str:
        gate.hold()
        return "held"

    call_id = hold.call()
    store.failing = 2
    gate.open.set()
    assert hold.get_result(call_id, wait=WAIT) == "held"


def test_what_runs_in_another_process_is_seen_but_not_reached(store, caplog):
    @procedure(store=store)
    def mine() -> None: ...

    caplog.set_level(logging.WARNING, "lrp_celery")
    store.set("elsewhere", Pending())
    mine.abort("elsewhere")
    assert "does not run in this process" in caplog.text
    for when_settled in (False, True):
        with pytest.raises(CallPending):
            mine.remove("elsewhere", when_settled=when_settled)
    timer = threading.Timer(0.05, store.set, ("elsewhere", Rejected.of(ValueError("theirs"))))
    timer.start()
    with pytest.raises(ValueError, match="theirs"):
        mine.get_result("elsewhere", wait=WAIT)
    timer.join()


def test_any_conforming_store_will_do():
    @procedure(store=RowStore(MemoryTrackingStore()), time_to_live=60)
    def add(a: int, b: int) -> int:
        return a + b

    assert add.get_result(add.call(1, 2)) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"store": MemoryTrackingStore()},
        {"store": "memory"},
        {"store": MemoryStore(), "idempotent": True},
        {"store": MemoryStore(), "sensitive": ("a",)},
        {"store": MemoryStore(), "keep_result": False},
    ],
)
def test_what_does_not_fit_is_refused_at_decoration(options):
    with pytest.raises(ConfigurationError):
        procedure(**options)(lambda a: a)


def test_a_task_is_none_of_this_process():
    def nothing() -> None: ...

    with pytest.raises(ConfigurationError, match="plain function"):
        procedure(store=MemoryStore())(Celery("local").task(nothing))


def test_many_calls_at_once_leave_nothing_behind(store):
    @procedure(store=store, timeout=60)
    def double(number: int) -> int:
        return 2 * number

    began = time.monotonic()
    ids = [double.call(number) for number in range(50)]
    assert [double.get_result(call_id, wait=WAIT) for call_id in ids] == [2 * number for number in range(50)]
    until(lambda: not double._running)
    until(lambda: not any(thread.name.startswith("lrp_celery-call") for thread in threading.enumerate()))
    assert time.monotonic() - began < WAIT
