"""Callers, against a procedure that counts what is asked of it, and against real ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, assert_type

import pytest
from celery import Celery, _state

from lrp_celery import (
    AbortController,
    AbortSignal,
    CallAborted,
    CalledInTask,
    Caller,
    CallNotCommitted,
    CallNotFound,
    CallState,
    CallTimedOut,
    ConfigurationError,
    LongRunningProcedure,
    LrpCelery,
    PollingCaller,
    procedure,
)
from lrp_celery.procedures.stores import MemoryStore
from lrp_celery.tracking import MemoryTrackingStore
from tests.conformance.grounds import worker_in_thread
from tests.conformance.item_store import until

WITHIN = 20


class Stub:
    """A procedure that only counts. It settles with `outcome` after `work` ms, by `clock`."""

    def __init__(self, outcome: Any = "done", work: int = 0, clock: Clock | None = None) -> None:
        self.outcome, self.work, self.clock = outcome, work, clock or Clock()
        self.counts: Counter[str] = Counter()
        self.order: list[str] = []
        self.aborted = threading.Event()
        self.waits = threading.Event()
        self.failing: dict[str, Exception] = {}
        self.on_call: Callable[[], None] = lambda: None
        self.reasons: list[str | None] = []

    def call(self, *args: Any, **kwargs: Any) -> str:
        self._note("call")
        self.arguments = args, kwargs
        self.on_call()
        return "id-1"

    def get_state(self, call_id: str) -> CallState:
        self._note("get_state", call_id)
        return CallState.SETTLED if self.clock.millis >= self.work else CallState.PENDING

    def get_result(self, call_id: str) -> Any:
        self._note("get_result", call_id)
        self.waits.set()
        if self.outcome is Stub:
            assert self.aborted.wait(WITHIN)
            raise CallAborted(self.reasons[0], call_id=call_id)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def abort(self, call_id: str, reason: str | None = None) -> None:
        self._note("abort", call_id)
        self.reasons.append(reason)
        self.aborted.set()

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        assert when_settled
        self._note("remove", call_id)

    def _note(self, name: str, call_id: str = "id-1") -> None:
        assert call_id == "id-1"
        self.counts[name] += 1
        self.order.append(name)
        if name in self.failing:
            raise self.failing[name]


class Twins(Stub):
    """One with async twins, which are all that may be used then."""

    def __getattr__(self, name: str) -> Any:
        plain = getattr(Stub, name[1:], None) if name.startswith("a") else None
        if plain is None:
            raise AttributeError(name)

        async def twin(*args: Any, **kwargs: Any) -> Any:
            if name == "aget_result" and self.outcome is Stub:
                self.waits.set()
                while not self.aborted.is_set():  # noqa: ASYNC110 - it is set in another thread
                    await asyncio.sleep(0)
            return plain(self, *args, **kwargs)

        return twin


class Clock(AbortSignal):
    """A signal whose waits take no time, but move it; at `abort_at` ms it is raised."""

    def __init__(self, abort_at: int | None = None) -> None:
        super().__init__()
        self.millis = 0
        self.waits: list[float | None] = []
        self.abort_at = abort_at

    def wait(self, seconds: float | None = None) -> bool:
        self.waits.append(seconds)
        assert seconds is not None
        self.millis += round(seconds * 1000)
        if self.abort_at is not None and self.millis >= self.abort_at:
            self._raise("enough", timed_out=False)
        return self.aborted


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(work())
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


# --- Caller


def test_lrp_36_a_call_that_succeeds_costs_one_of_each() -> None:
    stub = Stub("done")
    assert Caller(stub).call(1, b=2) == "done"
    assert stub.order == ["call", "get_result", "remove"]
    assert stub.arguments == ((1,), {"b": 2})


def test_lrp_36_a_call_that_fails_costs_the_same_and_raises_its_error() -> None:
    error = KeyError("x")
    stub = Stub(error)
    with pytest.raises(KeyError) as caught:
        Caller(stub).call()
    assert caught.value is error
    assert stub.order == ["call", "get_result", "remove"]


def test_lrp_35_a_signal_that_is_raised_already_costs_nothing() -> None:
    controller = AbortController()
    controller.abort("too late")
    stub = Stub()
    for caller in (
        Caller(stub, signal=controller.signal),
        PollingCaller(stub, polling_interval=1, signal=controller.signal),
    ):
        with pytest.raises(CallAborted, match="too late"):
            caller.call()
        with pytest.raises(CallAborted, match="too late"):
            asyncio.run(caller.acall())
    assert stub.order == []


def test_lrp_37_an_abort_while_it_waits_costs_one_abort() -> None:
    controller, stub = AbortController(), Stub(Stub)
    thread, ends = in_thread(lambda: Caller(stub, signal=controller.signal).call())
    assert stub.waits.wait(WITHIN)
    controller.abort("wrong month")
    controller.abort("again")
    thread.join(WITHIN)
    (error,) = ends
    assert type(error) is CallAborted
    assert (error.message, stub.reasons) == ("wrong month", ["wrong month"])
    assert stub.order == ["call", "get_result", "abort", "remove"]


def test_lrp_38_a_signal_raised_while_the_id_is_obtained_is_heard_at_once() -> None:
    controller, stub = AbortController(), Stub(Stub)
    stub.on_call = lambda: controller.abort("changed my mind")
    with pytest.raises(CallAborted, match="changed my mind"):
        Caller(stub, signal=controller.signal).call()
    assert stub.order == ["call", "abort", "get_result", "remove"]


def test_a_call_that_could_not_be_made_is_not_removed() -> None:
    stub = Stub()
    stub.failing["call"] = TypeError("no such argument")
    for caller in (Caller(stub), PollingCaller(stub, polling_interval=1)):
        with pytest.raises(TypeError, match="no such argument"):
            caller.call()
    assert stub.order == ["call", "call"]


@pytest.mark.parametrize("outcome", ["done", ValueError("primary")])
def test_what_goes_wrong_in_clearing_up_hides_nothing(outcome: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "lrp_celery")
    stub = Stub(outcome)
    stub.failing["remove"] = RuntimeError("the store is away")
    for caller in (Caller(stub), PollingCaller(stub, polling_interval=1)):
        if outcome == "done":
            assert caller.call() == "done"
        else:
            with pytest.raises(ValueError, match="primary"):
                caller.call()
    assert "id-1 could not be removed: RuntimeError: the store is away" in caplog.text


def test_an_abort_that_fails_does_not_hit_whoever_asked_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "lrp_celery")
    controller, stub = AbortController(), Stub("done")
    stub.failing["abort"] = RuntimeError("the store is away")
    stub.on_call = controller.abort
    assert Caller(stub, signal=controller.signal).call() == "done"
    assert stub.order == ["call", "abort", "get_result", "remove"]
    assert "could not be aborted" in caplog.text


def test_callers_leave_the_signal_as_it_was() -> None:
    controller = AbortController()
    for stub in (Stub("done"), Stub(ValueError("x"))):
        for caller in (
            Caller(stub, signal=controller.signal),
            PollingCaller(stub, polling_interval=1, signal=controller.signal),
        ):
            for run in (caller.call, lambda caller=caller: asyncio.run(caller.acall())):
                in_thread(run)[0].join(WITHIN)
    assert controller.signal._listeners == []
    before = stub.counts["abort"]
    controller.abort()
    assert stub.counts["abort"] == before == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CalledInTask(), CallNotCommitted(call_id="id-1")])
def test_a_call_that_nobody_waits_for_any_more_is_aborted(error):
    for caller in (Caller, lambda stub: PollingCaller(stub, polling_interval=1)):
        stub = Stub(error)
        with pytest.raises(type(error)):
            caller(stub).call()
        assert stub.order[-3:] == ["get_result", "abort", "remove"]


# --- PollingCaller


@pytest.mark.parametrize("outcome", ["done", ValueError("bad")])
def test_lrp_41_a_second_of_work_is_eleven_polls_at_a_tenth(outcome: Any) -> None:
    clock = Clock()
    stub = Stub(outcome, work=1000, clock=clock)
    caller = PollingCaller(stub, polling_interval=0.1, signal=clock)
    if outcome == "done":
        assert caller.call("x") == "done"
    else:
        with pytest.raises(ValueError, match="bad"):
            caller.call("x")
    assert stub.counts == {"call": 1, "get_state": 11, "get_result": 1, "remove": 1}
    assert clock.waits == [0.1] * 10


def test_lrp_41_it_polls_at_once() -> None:
    clock = Clock()
    stub = Stub(clock=clock)
    assert PollingCaller(stub, polling_interval=timedelta(minutes=1), signal=clock).call() == "done"
    assert (stub.order, clock.waits) == (["call", "get_state", "get_result", "remove"], [])


def test_lrp_42_an_abort_after_half_a_second_is_at_most_six_polls() -> None:
    clock = Clock(abort_at=500)
    stub = Stub(work=1000, clock=clock)
    with pytest.raises(CallAborted, match="enough") as caught:
        PollingCaller(stub, polling_interval=0.1, signal=clock).call()
    assert caught.value.call_id == "id-1"
    assert stub.counts == {"call": 1, "get_state": 5, "abort": 1, "remove": 1}
    assert stub.order[-2:] == ["abort", "remove"]


def test_lrp_42_the_pause_ends_with_the_abort() -> None:
    controller, stub = AbortController(), Stub(work=1)
    thread, ends = in_thread(lambda: PollingCaller(stub, polling_interval=3600, signal=controller.signal).call())
    until(lambda: stub.counts["get_state"] == 1)
    controller.abort(timed_out=True)
    thread.join(WITHIN)
    assert type(ends[0]) is CallTimedOut
    assert stub.order == ["call", "get_state", "abort", "remove"]


def test_lrp_38_a_polling_caller_whose_signal_was_raised_meanwhile_never_polls() -> None:
    controller, stub = AbortController(), Stub()
    stub.on_call = controller.abort
    with pytest.raises(CallAborted):
        PollingCaller(stub, polling_interval=1, signal=controller.signal).call()
    assert stub.order == ["call", "abort", "remove"]


def test_lrp_43_a_call_that_has_vanished_surfaces() -> None:
    stub = Stub()
    stub.failing["get_state"] = CallNotFound(call_id="id-1")
    with pytest.raises(CallNotFound):
        PollingCaller(stub, polling_interval=1).call()
    assert stub.order == ["call", "get_state", "remove"]


@pytest.mark.parametrize("bad", [None, 0, -1, timedelta(0), "1", True])
def test_an_interval_is_above_zero(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="polling_interval"):
        PollingCaller(Stub(), polling_interval=bad)


# --- Async twins

KINDS = pytest.mark.parametrize("kind", [Stub, Twins])


@KINDS
@pytest.mark.parametrize("outcome", ["done", ValueError("bad")])
def test_the_async_twins_cost_the_same(kind: type[Stub], outcome: Any) -> None:
    blocking, polling = kind(outcome), kind(outcome, work=0)
    for caller in (Caller(blocking), PollingCaller(polling, polling_interval=1)):
        if outcome == "done":
            assert asyncio.run(caller.acall(1)) == "done"
        else:
            with pytest.raises(ValueError, match="bad"):
                asyncio.run(caller.acall(1))
    assert blocking.order == ["call", "get_result", "remove"]
    assert polling.order == ["call", "get_state", "get_result", "remove"]


@KINDS
def test_an_async_polling_caller_polls_as_often(kind: type[Stub]) -> None:
    stub: Any = kind(work=10)
    polls = stub.get_state

    def get_state(call_id: str) -> CallState:
        stub.clock.millis += 1
        state: CallState = polls(call_id)
        return state

    stub.get_state = get_state
    stub.aget_state = _async(get_state)
    assert asyncio.run(PollingCaller(stub, polling_interval=0.001).acall()) == "done"
    assert stub.counts == {"call": 1, "get_state": 10, "get_result": 1, "remove": 1}


@KINDS
def test_lrp_37_an_async_caller_is_aborted_from_another_thread(kind: type[Stub]) -> None:
    controller, stub = AbortController(), kind(Stub)
    thread, ends = in_thread(lambda: asyncio.run(Caller(stub, signal=controller.signal).acall()))
    assert stub.waits.wait(WITHIN)
    controller.abort("wrong month")
    thread.join(WITHIN)
    assert [type(end) for end in ends] == [CallAborted]
    assert stub.counts == {"call": 1, "get_result": 1, "abort": 1, "remove": 1}
    assert stub.order[-1] == "remove"
    assert controller.signal._listeners == []


@KINDS
def test_lrp_38_an_async_caller_hears_at_once(kind: type[Stub]) -> None:
    controller, stub = AbortController(), kind(Stub)
    stub.on_call = lambda: controller.abort("changed my mind")
    with pytest.raises(CallAborted, match="changed my mind"):
        asyncio.run(Caller(stub, signal=controller.signal).acall())
    assert stub.counts == {"call": 1, "get_result": 1, "abort": 1, "remove": 1}


@KINDS
def test_lrp_42_an_async_pause_ends_with_the_abort(kind: type[Stub]) -> None:
    controller, stub = AbortController(), kind(work=1)

    async def scenario() -> None:
        caller = asyncio.create_task(PollingCaller(stub, polling_interval=3600, signal=controller.signal).acall())
        while stub.counts["get_state"] == 0:  # noqa: ASYNC110 - it may be asked in another thread
            await asyncio.sleep(0)
        controller.abort("enough")
        await caller

    with pytest.raises(CallAborted, match="enough"):
        asyncio.run(scenario())
    assert stub.order == ["call", "get_state", "abort", "remove"]


@KINDS
def test_a_cancelled_async_caller_aborts_and_removes_its_call(kind: type[Stub]) -> None:
    stub = kind(Stub)

    async def scenario() -> None:
        task = asyncio.create_task(Caller(stub).acall())
        while not stub.waits.is_set():  # noqa: ASYNC110 - it may be set in another thread
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert stub.order[-2:] == ["abort", "remove"]


def _async(work: Callable[..., Any]) -> Callable[..., Any]:
    async def twin(*args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    return twin


# --- Real procedures (and, for mypy, their types)

app = Celery("callers", broker="memory://", backend="cache+memory://")
app.conf.update(broker_connection_retry_on_startup=True)


@procedure(grace=0.2)
@app.task
def double(signal: AbortSignal, number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    if number == 0:
        signal.wait(WITHIN)
        signal.raise_if_aborted()
    return 2 * number


@procedure(store=MemoryStore(), grace=0.2)
def double_here(signal: AbortSignal, number: int) -> int:
    done: int = double._behind.function(signal, number)
    return done


@pytest.fixture(scope="module")
def calls() -> Iterator[MemoryTrackingStore]:
    store = MemoryTrackingStore()
    lrp = LrpCelery(app, store=store)
    with contextlib.closing(lrp), worker_in_thread(app, pool="solo", concurrency=1):
        yield store


def typed_by_their_procedure(made: LongRunningProcedure[[int], str]) -> None:
    """Read by mypy, never run."""
    assert_type(Caller(made).call(1), str)
    assert_type(PollingCaller(made, polling_interval=1).call(1), str)
    assert_type(Caller(double_here).call(1), int)
    assert_type(Caller(Stub()).call("anything"), Any)
    Caller(made).call("no number")  # type: ignore[arg-type]


def test_a_call_inside_a_task_is_taken_back(calls: MemoryTrackingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "get_current_worker_task", lambda: double)
    with pytest.raises(CalledInTask):
        Caller(double).call(0)
    until(lambda: not [record for record in calls._records.values() if record.status.is_open])
