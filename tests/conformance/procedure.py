"""What every procedure promises: the rows LRP-01 to LRP-29 and LRP-34 to LRP-43 of docs/conformance.md.

A ground joins by a class that inherits `ProcedureConformance`, says its `ground_name`, and has
a fixture `ground`: where the procedures of the suite are called and run. LRP-30 to LRP-33 are
those of bare stores, see `item_store`. The last seven tests are named after the faults of the
implementation that these promises were read from: none of them may come back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest

import lrp_celery
from lrp_celery import (
    AbortController,
    CallAborted,
    Caller,
    CallFailed,
    CallNotFound,
    CallPending,
    CallState,
    CallTimedOut,
    ConfigurationError,
    LrpError,
    PollingCaller,
    ResultTimeout,
    StoreError,
    procedure,
)
from lrp_celery.procedures import stores
from lrp_celery.procedures.stores import MemoryStore
from tests.conformance.grounds import WAIT, Counted, Ground, Ticks
from tests.conformance.item_store import fresh_id, until
from tests.conformance.procedure_tasks import TOLD

#: A timeout or a time to live that a test waits for.
SHORT = 0.3
#: What is due is done within so many seconds, also by a worker that looks only now and then.
SOON = 10.0


class ProcedureConformance:
    ground_name: ClassVar[str]
    #: Rows that cannot arise on this ground, e.g. {"LRP-05": "why"}: their tests are left out, and the account says so.
    not_applicable: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def let_go(self, ground: Ground) -> Iterator[None]:
        """Let whatever a test still holds go on: others use the same worker."""
        yield
        ground.let_go()

    # --- LRP-01 to LRP-08: calls, and what becomes of them

    def test_lrp_01_a_function_gets_its_callers_arguments_and_a_signal(self, ground: Ground) -> None:
        greet = ground.procedures.greet
        assert ground.ask(greet, "ho") == [False, "hoho"]
        assert ground.ask(greet, "ho", times=3) == [False, "hohoho"]
        assert greet("ho", 1) == [False, "ho"]
        for args, wrong in (((), {}), (("ho", 1, 1), {}), (("ho",), {"signal": AbortController().signal})):
            with pytest.raises(TypeError):
                greet.call(*args, **wrong)

    def test_lrp_02_durations_are_seconds_or_timedeltas_and_none_is_unlimited(self, ground: Ground) -> None:
        used = ground.procedures.left_to_run
        for minute, hour in ((60, 3600), (timedelta(minutes=1), timedelta(hours=1))):
            call_id = ground.start(used.using(timeout=minute, time_to_live=hour))
            assert 50 < used.get_result(call_id, wait=WAIT) <= 60
            assert 3590 < ground.lives_for(used, call_id) <= 3600
        call_id = ground.start(used.using(timeout=None, time_to_live=None))
        assert used.get_result(call_id, wait=WAIT) is None
        assert ground.lives_for(used, call_id) is None

    def test_lrp_03_a_call_returns_a_fresh_id_without_waiting_for_the_function(self, ground: Ground) -> None:
        give, hold = ground.procedures.give, ground.procedures.hold
        ids = [give.call(1) for _ in range(5)]
        assert len(set(ids)) == 5
        assert all(isinstance(call_id, str) and call_id for call_id in ids)
        if ground.settles_in_call:
            # The function runs inside its call, so that it has settled when the id is there.
            assert give.get_state(ids[0]) is CallState.SETTLED
            return
        call_id = hold.call()
        assert hold.get_state(call_id) is CallState.PENDING

    def test_lrp_04_a_call_is_stored_before_anybody_has_its_id(self, ground: Ground) -> None:
        asks = ground.procedures.ask_for_itself
        for _ in range(10):
            call_id = ground.start(asks, "ask_for_itself")
            assert asks.get_state(call_id) in CallState
            assert asks.get_result(call_id, wait=WAIT) == "pending"

    def test_lrp_04_what_cannot_be_stored_is_not_called(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        used = ground.procedures.give.using(call_id=fresh_id())
        with monkeypatch.context() as patched:
            ground.refuse_new_calls(patched)
            with pytest.raises(StoreError):
                used.call("lost")
        call_id = used._call_options.call_id
        assert not ground.is_known(used, call_id)
        assert ground.ask(used, "found") == "found"
        assert ground.count(call_id) == 1

    def test_lrp_05_a_call_runs_and_settles_once_however_often_it_comes(self, ground: Ground) -> None:
        hold = ground.procedures.hold.using(call_id=fresh_id())
        call_id = ground.running(hold)
        assert ground.start(hold) == call_id
        ground.deliver_again(hold, call_id)
        ground.release(call_id)
        assert hold.get_result(call_id, wait=WAIT) == "held"
        ground.deliver_again(hold, call_id)
        # What is asked for later is done later: by then the copies have come, too.
        for _ in range(2 * ground.processes):
            ground.ask(ground.procedures.give, 1)
        assert hold.get_result(call_id) == "held"
        assert ground.count(call_id) == 1

    def test_lrp_06_a_value_that_is_returned_is_kept_for_its_time_to_live(self, ground: Ground) -> None:
        for used in (ground.procedures.give, ground.procedures.give_later):
            call_id = ground.start(used.using(time_to_live=600), {"rows": [1, None]})
            assert used.get_result(call_id, wait=WAIT) == {"rows": [1, None]}
            assert used.get_state(call_id) is CallState.SETTLED
            assert 590 < ground.lives_for(used, call_id) <= 600

    def test_lrp_07_an_error_that_is_raised_is_kept_for_its_time_to_live(self, ground: Ground) -> None:
        fail = ground.procedures.fail
        call_id = ground.start(fail.using(time_to_live=600), "OwnError", "no such month")
        with pytest.raises(CallFailed) as caught:
            fail.get_result(call_id, wait=WAIT)
        error: Any = caught.value
        assert (error.call_id, error.message, error.reason) == (call_id, "no such month", None)
        assert error.type.endswith("procedure_tasks.OwnError")
        assert "in fail" in error.traceback
        assert 590 < ground.lives_for(fail, call_id) <= 600

    def test_lrp_08_an_outcome_whose_call_is_gone_is_dropped(self, ground: Ground) -> None:
        for used in (ground.procedures.hold, ground.procedures.hold_and_fail):
            call_id = ground.running(used)
            ground.take_away(call_id)
            assert not ground.is_known(used, call_id)
            ground.release(call_id)
            ground.until_over(call_id)
            assert not ground.is_known(used, call_id)
            with pytest.raises(CallNotFound):
                used.get_result(call_id, wait=WAIT)

    # --- LRP-09 and LRP-10: the state

    def test_lrp_09_there_are_two_states_and_every_end_is_settled(self, ground: Ground) -> None:
        used = ground.procedures
        assert set(CallState) == {CallState.PENDING, CallState.SETTLED}
        held, asked = ground.running(used.hold), ground.running(used.reluctant)
        used.reluctant.abort(asked)
        assert used.hold.get_state(held) is CallState.PENDING
        assert used.reluctant.get_state(asked) is CallState.PENDING
        ground.release(held, asked)
        for made, call_id in (
            (used.hold, held),
            (used.reluctant, asked),
            (used.fail, ground.start(used.fail, "KeyError", "x")),
            (used.polite, ground.start(used.polite.using(timeout=SHORT))),
        ):
            ground.until_settled(made, call_id)

    def test_lrp_10_the_state_of_what_is_not_there_is_call_not_found(self, ground: Ground) -> None:
        give = ground.procedures.give
        removed = ground.settled(give, 1)
        give.remove(removed)
        expired = ground.start(give.using(time_to_live=SHORT), 1)
        ground.until_gone(give, expired)
        for call_id in (fresh_id(), removed, expired):
            with pytest.raises(CallNotFound) as caught:
                give.get_state(call_id)
            assert caught.value.call_id == call_id

    def test_lrp_10_what_cannot_be_read_is_another_error(self, ground: Ground) -> None:
        give = ground.procedures.give
        call_id = ground.settled(give, 1)
        ground.spoil(call_id)
        with pytest.raises(LrpError) as caught:
            give.get_result(call_id, wait=WAIT)
        assert not isinstance(caught.value, CallNotFound | ResultTimeout)

    # --- LRP-11 to LRP-15: the result

    def test_lrp_11_a_wait_ends_with_the_call_and_gives_what_is_stored(self, ground: Ground) -> None:
        report = ground.procedures.report
        call_id = ground.running(report, 2)
        waiter = ground.in_thread(lambda: report.get_result(call_id, wait=WAIT))
        for wait in (0, 0.05, timedelta(seconds=0.05)):
            with pytest.raises(ResultTimeout):
                report.get_result(call_id, wait=wait)
        assert not waiter.is_over
        ground.release(call_id)
        assert waiter.end() == "reported"
        # A tuple is stored as a list: whoever waits gets no other thing than whoever comes later.
        give = ground.procedures.give
        call_id = ground.start(give, (1, [2]))
        assert give.get_result(call_id, wait=WAIT) == give.get_result(call_id) == [1, [2]]

    def test_lrp_12_many_may_read_a_result_again_and_again(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id = ground.running(hold)
        waiters = [ground.in_thread(lambda: hold.get_result(call_id, wait=WAIT)) for _ in range(4)]
        ground.release(call_id)
        assert [waiter.end() for waiter in waiters] == ["held"] * 4
        assert [hold.get_result(call_id) for _ in range(3)] == ["held"] * 3

    @pytest.mark.parametrize("value", [None, False, "", []], ids=repr)
    def test_lrp_12_a_result_that_is_nothing_is_a_result(self, ground: Ground, value: Any) -> None:
        give = ground.procedures.give
        call_id = ground.start(give, value)
        for _ in range(2):
            assert give.get_result(call_id, wait=WAIT) == value
        assert give.get_state(call_id) is CallState.SETTLED

    def test_lrp_13_a_rejected_call_raises_its_own_error_each_time(self, ground: Ground) -> None:
        fail = ground.procedures.fail
        for kind in (KeyError, ValueError, ZeroDivisionError):
            call_id = ground.start(fail, kind.__name__, "october")
            for _ in range(2):
                with pytest.raises(kind) as caught:
                    fail.get_result(call_id, wait=WAIT)
                assert type(caught.value) is kind
                assert caught.value.args == ("october",)
                assert isinstance(caught.value.__cause__, CallFailed)

    def test_lrp_14_there_is_nothing_to_wait_for_where_there_is_no_call(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        began = time.monotonic()
        with pytest.raises(CallNotFound):
            hold.get_result(fresh_id())
        assert time.monotonic() - began < SOON
        call_id = ground.running(hold)
        waiter = ground.in_thread(lambda: hold.get_result(call_id, wait=WAIT))
        ground.take_away(call_id)
        ground.release(call_id)
        assert type(waiter.end()) is CallNotFound

    def test_lrp_15_an_abort_releases_whoever_waits_without_the_function(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id = ground.running(hold)
        waiters = [ground.in_thread(lambda: hold.get_result(call_id)) for _ in range(2)]
        hold.abort(call_id, "wrong month")
        for waiter in waiters:
            error = waiter.end()
            assert type(error) is CallAborted
            assert (error.call_id, error.message, error.reason) == (call_id, "wrong month", "aborted")
        with pytest.raises(CallAborted, match="wrong month"):
            hold.get_result(call_id)
        assert hold.get_state(call_id) is CallState.PENDING
        ground.release(call_id)
        ground.until_settled(hold, call_id)
        assert hold.get_result(call_id) == "held"

    # --- LRP-16 to LRP-20: the abort

    def test_lrp_16_an_abort_raises_the_signal_and_the_function_settles(self, ground: Ground) -> None:
        reluctant = ground.procedures.reluctant
        call_id = ground.running(reluctant)
        assert ground.count(call_id, TOLD) == 0
        reluctant.abort(call_id, "wrong month")
        ground.until_it(call_id, TOLD)
        assert reluctant.get_state(call_id) is CallState.PENDING
        ground.release(call_id)
        ground.until_settled(reluctant, call_id)
        with pytest.raises(CallAborted, match="wrong month"):
            reluctant.get_result(call_id)

    def test_lrp_16_a_function_that_goes_on_is_settled_after_its_grace(self, ground: Ground) -> None:
        deaf = ground.procedures.deaf
        call_id = ground.running(deaf)
        deaf.abort(call_id, "now")
        ground.until_settled(deaf, call_id)
        ground.release(call_id)
        ground.until_over(call_id)
        with pytest.raises(CallAborted, match="now"):
            deaf.get_result(call_id)

    def test_lrp_17_a_function_that_returns_has_succeeded_and_one_that_obeys_is_aborted(self, ground: Ground) -> None:
        hold, polite = ground.procedures.hold, ground.procedures.polite
        ignoring, obeying = ground.running(hold), ground.running(polite)
        for made, call_id in ((hold, ignoring), (polite, obeying)):
            made.abort(call_id)
        ground.release(ignoring)
        ground.until_settled(hold, ignoring)
        ground.until_settled(polite, obeying)
        assert hold.get_result(ignoring) == "held"
        with pytest.raises(CallAborted):
            polite.get_result(obeying)

    def test_lrp_18_an_abort_right_after_the_call_ends_it_as_aborted(self, ground: Ground) -> None:
        polite = ground.procedures.polite
        ids = [ground.start(polite) for _ in range(3)]
        for call_id in ids:
            polite.abort(call_id, "changed my mind")
        for call_id in ids:
            ground.until_settled(polite, call_id)
            with pytest.raises(CallAborted, match="changed my mind"):
                polite.get_result(call_id)
            # It never began, or it was told.
            assert ground.count(call_id) == ground.count(call_id, TOLD) <= 1

    def test_lrp_19_the_abort_of_a_settled_call_changes_nothing(self, ground: Ground) -> None:
        give, fail = ground.procedures.give, ground.procedures.fail
        done, failed = ground.settled(give, 1), ground.settled(fail, "KeyError", "x")
        give.abort(done, "too late")
        fail.abort(failed, "too late")
        assert give.get_result(done) == 1
        with pytest.raises(KeyError):
            fail.get_result(failed)

    def test_lrp_20_a_second_abort_and_one_of_an_unknown_call_are_silent(self, ground: Ground) -> None:
        reluctant = ground.procedures.reluctant
        reluctant.abort(fresh_id(), "whatever")
        call_id = ground.running(reluctant)
        reluctant.abort(call_id, "first")
        ground.until_it(call_id, TOLD)
        reluctant.abort(call_id, "second")
        with pytest.raises(CallAborted, match="first"):
            reluctant.get_result(call_id)
        ground.release(call_id)
        ground.until_settled(reluctant, call_id)
        reluctant.abort(call_id, "third")
        with pytest.raises(CallAborted, match="first"):
            reluctant.get_result(call_id)
        assert ground.count(call_id, TOLD) == 1

    # --- LRP-21 to LRP-24: the removal

    def test_lrp_21_a_settled_call_is_removed_with_all_that_was_kept_of_it(self, ground: Ground) -> None:
        used = ground.procedures
        aborted = ground.running(used.polite)
        used.polite.abort(aborted)
        calls = [
            (used.give, ground.start(used.give, 1)),
            (used.fail, ground.start(used.fail, "KeyError", "x")),
            (used.polite, aborted),
        ]
        for made, call_id in calls:
            ground.until_settled(made, call_id)
            assert ground.traces(call_id)
            made.remove(call_id)
            assert ground.traces(call_id) == []
            for ask in (made.get_state, made.get_result):
                with pytest.raises(CallNotFound):
                    ask(call_id)

    def test_lrp_22_a_pending_call_is_not_removed(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id, later = ground.running(hold), ground.running(hold)
        with pytest.raises(CallPending) as caught:
            hold.remove(call_id)
        assert caught.value.call_id == call_id
        hold.remove(later, when_settled=True)
        assert hold.get_state(call_id) is hold.get_state(later) is CallState.PENDING
        ground.release(call_id, later)
        assert hold.get_result(call_id, wait=WAIT) == "held"
        ground.until_gone(hold, later)
        assert ground.traces(later) == []

    def test_lrp_23_removing_what_is_not_there_is_silent(self, ground: Ground) -> None:
        give = ground.procedures.give
        call_id = ground.settled(give, 1)
        for _ in range(2):
            give.remove(call_id)
            give.remove(fresh_id(), when_settled=True)
        assert not ground.is_known(give, call_id)

    def test_lrp_24_with_a_call_go_its_signal_its_waiters_and_its_timers(self, ground: Ground) -> None:
        polite = ground.procedures.polite
        call_id = ground.running(polite.using(timeout=600))
        waiter = ground.in_thread(lambda: polite.get_result(call_id))
        assert not waiter.is_over
        polite.abort(call_id)
        waiter.end()
        ground.until_over(call_id)
        ground.until_settled(polite, call_id)
        polite.remove(call_id)
        until(lambda: ground.waiting() == 0)
        ground.until_nothing_is_left(call_id)

    # --- LRP-25 to LRP-28: time

    def test_lrp_25_a_timeout_ends_a_call_with_nobody_waiting(self, ground: Ground) -> None:
        polite, deaf = ground.procedures.polite, ground.procedures.deaf
        obeying = ground.start(polite.using(timeout=SHORT))
        # Asking for it would help it along.
        ground.until_over(obeying)
        assert ground.count(obeying, TOLD) == 1
        ignoring = ground.running(deaf.using(timeout=SHORT))
        ground.until_settled(deaf, ignoring)
        for made, call_id in ((polite, obeying), (deaf, ignoring)):
            assert made.get_state(call_id) is CallState.SETTLED
            with pytest.raises(CallTimedOut) as caught:
                made.get_result(call_id)
            assert (caught.value.call_id, caught.value.reason) == (call_id, "timeout")

    def test_lrp_25_a_timeout_releases_whoever_waits(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id = ground.start(hold.using(timeout=SHORT))
        with pytest.raises(CallTimedOut):
            hold.get_result(call_id, wait=WAIT)
        ground.release(call_id)
        ground.until_settled(hold, call_id)

    def test_lrp_26_a_time_to_live_begins_with_the_settlement(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id = ground.start(hold.using(time_to_live=SHORT))
        called = time.monotonic()
        until(lambda: time.monotonic() > called + 1.2 * SHORT)
        assert hold.get_state(call_id) is CallState.PENDING
        released = time.monotonic()
        ground.release(call_id)
        ground.until_gone(hold, call_id)
        assert time.monotonic() - released >= SHORT
        ground.sweep()
        assert ground.traces(call_id) == []

    def test_lrp_26_without_one_a_call_is_kept_until_it_is_removed(self, ground: Ground) -> None:
        give = ground.procedures.give
        call_id = ground.settled(give.using(time_to_live=None), 1)
        ground.sweep()
        assert ground.lives_for(give, call_id) is None
        assert give.get_result(call_id) == 1

    def test_lrp_27_what_is_due_is_done_soon_after_and_never_before(self, ground: Ground) -> None:
        polite = ground.procedures.polite
        for timeout in (SHORT, 2 * SHORT):
            called = time.monotonic()
            call_id = ground.start(polite.using(timeout=timeout))
            with pytest.raises(CallTimedOut):
                polite.get_result(call_id, wait=WAIT)
            assert timeout <= time.monotonic() - called < timeout + SOON
            ground.until_settled(polite, call_id)

    @pytest.mark.parametrize("bad", [0, -1, timedelta(0), timedelta(seconds=-1), float("nan"), True, "1"], ids=repr)
    def test_lrp_28_a_duration_is_above_zero(self, ground: Ground, bad: Any) -> None:
        give = ground.procedures.give
        decorator: Any = procedure
        for name in ("timeout", "time_to_live"):
            with pytest.raises(ConfigurationError, match=name):
                give.using(**{name: bad})
            for options in ({}, {"store": MemoryStore()}):
                with pytest.raises(ConfigurationError, match=name):
                    decorator(**{name: bad}, **options)(lambda: None)
        call_id = ground.settled(give, 1)
        if bad not in (0, timedelta(0)) or bad is False:
            with pytest.raises(ConfigurationError, match="wait"):
                give.get_result(call_id, wait=bad)

    def test_lrp_28_a_wait_of_zero_looks_once(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        call_id = ground.running(hold)
        for zero in (0, timedelta(0)):
            with pytest.raises(ResultTimeout):
                hold.get_result(call_id, wait=zero)
        ground.release(call_id)
        ground.until_settled(hold, call_id)
        assert hold.get_result(call_id, wait=0) == "held"

    # --- LRP-29: names, and async twins

    def test_lrp_29_everything_has_a_public_name(self, ground: Ground) -> None:
        names = {"CallState", "CallStatus", "Procedure", "Caller", "PollingCaller", "procedure", "AbortSignal"}
        names |= {
            "AbortController",
            "CallNotFound",
            "CallPending",
            "CallAborted",
            "CallTimedOut",
            "LongRunningProcedure",
        }
        assert names <= set(lrp_celery.__all__)
        assert {"Store", "MemoryStore", "Pending", "Resolved", "Rejected"} <= set(stores.__all__)
        for method in ("call", "get_state", "get_result", "abort", "remove"):
            assert callable(getattr(ground.procedures.give, method))
            assert asyncio.iscoroutinefunction(getattr(ground.procedures.give, f"a{method}"))

    def test_lrp_29_the_async_twins_mean_the_same(self, ground: Ground) -> None:
        give, polite = ground.procedures.give, ground.procedures.polite

        async def scenario() -> None:
            call_id = await give.acall([1])
            assert await give.aget_result(call_id, wait=WAIT) == [1]
            assert await give.aget_state(call_id) is CallState.SETTLED
            await give.aremove(call_id)
            with pytest.raises(CallNotFound):
                await give.aget_state(call_id)
            with pytest.raises(CallNotFound):
                await give.aget_result(call_id)
            running = await asyncio.to_thread(ground.in_thread(lambda: ground.running(polite)).end)
            with pytest.raises(ResultTimeout):
                await polite.aget_result(running, wait=0.02)
            with pytest.raises(CallPending):
                await polite.aremove(running)
            waiter = asyncio.create_task(polite.aget_result(running))
            await polite.aremove(running, when_settled=True)
            await polite.aabort(running, "enough")
            with pytest.raises((CallAborted, CallNotFound)):
                await asyncio.wait_for(waiter, WAIT)
            await asyncio.to_thread(ground.in_thread(lambda: ground.until_gone(polite, running)).end)

        self.run(ground, scenario)

    @staticmethod
    def run(ground: Ground, scenario: Callable[[], Any]) -> None:
        """Run a coroutine, in a loop of its own."""

        async def and_leave() -> None:
            try:
                await scenario()
            finally:
                await ground.leave_loop()

        asyncio.run(and_leave())

    # --- LRP-34 to LRP-43: callers

    def test_lrp_34_a_caller_calls_waits_and_returns_the_result(self, ground: Ground) -> None:
        signal, greet = AbortController().signal, ground.procedures.greet
        callers: list[Any] = [
            Caller(greet, signal=signal),
            Caller(greet),
            PollingCaller(greet, polling_interval=0.01, signal=signal),
        ]
        for caller in callers:
            assert caller.call("ho", times=3) == [False, "hohoho"]

        async def scenario() -> None:
            assert [await caller.acall("ho") for caller in callers] == [[False, "hoho"]] * 3

        self.run(ground, scenario)

    def test_lrp_35_a_signal_that_is_raised_already_keeps_a_caller_from_calling(self, ground: Ground) -> None:
        controller = AbortController()
        controller.abort("too late")
        counted = Counted(ground, ground.procedures.give)
        for caller in (
            Caller(counted, signal=controller.signal),
            PollingCaller(counted, polling_interval=1, signal=controller.signal),
        ):
            with pytest.raises(CallAborted, match="too late"):
                caller.call(1)
        assert (counted.order, counted.ids) == ([], [])

    def test_lrp_36_a_caller_calls_waits_and_removes_once(self, ground: Ground) -> None:
        counted = Counted(ground, ground.procedures.give)
        assert Caller(counted).call("x") == "x"
        assert counted.order == ["call", "get_result", "remove"]
        failing = Counted(ground, ground.procedures.fail)
        with pytest.raises(KeyError, match="x"):
            Caller(failing).call("KeyError", "x")
        assert failing.order == ["call", "get_result", "remove"]

    def test_lrp_37_a_caller_that_is_aborted_aborts_its_call_and_removes_it(self, ground: Ground) -> None:
        controller = AbortController()
        counted = Counted(ground, ground.procedures.reluctant)
        caller = ground.in_thread(lambda: Caller(counted, signal=controller.signal).call())
        until(lambda: counted.counts["get_result"] == 1)
        (call_id,) = counted.ids
        ground.until_it(call_id, "started")
        controller.abort("wrong month")
        controller.abort("again")
        error = caller.end()
        assert type(error) is CallAborted
        assert error.message == "wrong month"
        assert counted.order == ["call", "get_result", "abort", "remove"]
        # The function goes on; the call is removed once that has ended.
        ground.until_it(call_id, TOLD)
        assert ground.procedures.reluctant.get_state(call_id) is CallState.PENDING
        ground.release(call_id)
        ground.until_gone(ground.procedures.reluctant, call_id)

    def test_lrp_38_a_signal_that_is_raised_while_the_id_comes_is_heard(self, ground: Ground) -> None:
        for poll in (None, 0.01):
            controller = AbortController()
            counted = Counted(ground, ground.procedures.polite)
            counted.after["call"] = partial(controller.abort, "changed my mind")
            caller: Any = Caller(counted, signal=controller.signal)
            if poll is not None:
                caller = PollingCaller(counted, polling_interval=poll, signal=controller.signal)
            with pytest.raises(CallAborted, match="changed my mind"):
                caller.call()
            assert counted.order[:2] == ["call", "abort"]
            assert (counted.counts["abort"], counted.counts["remove"]) == (1, 1)
            ground.until_gone(ground.procedures.polite, counted.ids[0])

    def test_lrp_39_a_caller_removes_its_call_whatever_comes_of_it(
        self, ground: Ground, caplog: pytest.LogCaptureFixture
    ) -> None:
        used = ground.procedures
        signal = AbortController()
        ends = [
            (Counted(ground, used.give), AbortController(), ("x",), None),
            (Counted(ground, used.fail), AbortController(), ("KeyError", "x"), KeyError),
            (Counted(ground, used.polite), signal, (), CallAborted),
        ]
        ends[2][0].after["call"] = signal.abort
        for counted, controller, args, raised in ends:
            caller = Caller(counted, signal=controller.signal)
            if raised is None:
                assert caller.call(*args) == "x"
            else:
                with pytest.raises(raised):
                    caller.call(*args)
            assert counted.counts["remove"] == 1
            ground.until_gone(counted._procedure, counted.ids[0])
        caplog.set_level(logging.WARNING, "lrp_celery")
        stubborn = Counted(ground, used.fail)
        stubborn.failing["remove"] = RuntimeError("the store is away")
        with pytest.raises(KeyError):
            Caller(stubborn).call("KeyError", "x")
        assert f"{stubborn.ids[0]} could not be removed: RuntimeError: the store is away" in caplog.text

    def test_lrp_40_a_caller_knows_five_methods_only(self, ground: Ground) -> None:
        polling: Any = PollingCaller
        kinds: tuple[Callable[[Any], Any], ...] = (Caller, partial(polling, polling_interval=0.01))
        for kind in kinds:
            assert kind(Remote(ground, "give")).call([1, "x"]) == [1, "x"]
            with pytest.raises(RemoteError, match="KeyError"):
                kind(Remote(ground, "fail")).call("KeyError", "x")
        controller, remote = AbortController(), Remote(ground, "polite")
        caller = ground.in_thread(lambda: Caller(remote, signal=controller.signal).call())
        until(lambda: "get_result" in remote.asked)
        controller.abort("enough")
        assert type(caller.end()) is RemoteError
        assert remote.asked == ["call", "get_result", "abort", "remove"]

    def test_lrp_41_a_polling_caller_asks_at_once_and_then_after_each_interval(self, ground: Ground) -> None:
        hold = ground.procedures.hold
        counted = Counted(ground, hold)

        def come_to_an_end(_: Ticks) -> None:
            ground.release(*counted.ids)
            ground.until_settled(hold, counted.ids[0])

        ticks = Ticks({10: come_to_an_end})
        assert PollingCaller(counted, polling_interval=0.1, signal=ticks).call() == "held"
        assert counted.counts == {"call": 1, "get_state": 11, "get_result": 1, "remove": 1}
        assert ticks.waits == [0.1] * 10
        failing = Counted(ground, ground.procedures.fail)
        failing.after["call"] = lambda: ground.until_settled(ground.procedures.fail, failing.ids[0])
        with pytest.raises(KeyError):
            PollingCaller(failing, polling_interval=60).call("KeyError", "x")
        assert failing.order == ["call", "get_state", "get_result", "remove"]

    def test_lrp_42_a_polling_caller_that_is_aborted_asks_no_more(self, ground: Ground) -> None:
        polite = ground.procedures.polite
        counted = Counted(ground, polite)
        with pytest.raises(CallAborted, match="enough"):
            PollingCaller(counted, polling_interval=0.1, signal=Ticks({5: Ticks.abort})).call()
        assert counted.counts == {"call": 1, "get_state": 5, "abort": 1, "remove": 1}
        ground.until_gone(polite, counted.ids[0])
        # A pause of an hour ends with the abort.
        controller, counted = AbortController(), Counted(ground, polite)
        caller = ground.in_thread(PollingCaller(counted, polling_interval=3600, signal=controller.signal).call)
        until(lambda: counted.counts["get_state"] == 1)
        controller.abort()
        assert type(caller.end()) is CallAborted
        assert counted.order == ["call", "get_state", "abort", "remove"]

    def test_lrp_43_a_polling_caller_tells_that_its_call_has_vanished(self, ground: Ground) -> None:
        counted = Counted(ground, ground.procedures.hold)
        ticks = Ticks({3: lambda _: ground.take_away(counted.ids[0])})
        with pytest.raises(CallNotFound):
            PollingCaller(counted, polling_interval=0.1, signal=ticks).call()
        assert counted.counts == {"call": 1, "get_state": 4, "remove": 1}

    # --- the faults of the original

    def test_fault_1_a_timeout_aborts_for_real_and_nobody_hangs(self, ground: Ground) -> None:
        reluctant = ground.procedures.reluctant
        call_id = ground.running(reluctant.using(timeout=SHORT))
        waiter = ground.in_thread(lambda: reluctant.get_result(call_id))
        assert type(waiter.end()) is CallTimedOut
        ground.until_it(call_id, TOLD)
        assert reluctant.get_state(call_id) is CallState.PENDING
        ground.release(call_id)
        ground.until_settled(reluctant, call_id)
        with pytest.raises(CallTimedOut):
            reluctant.get_result(call_id)
        ground.until_over(call_id)
        ground.until_nothing_is_left(call_id)

    def test_fault_2_removing_what_goes_on_hides_no_abort_and_is_made_up_for(
        self, ground: Ground, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "lrp_celery")
        hold, controller = ground.procedures.hold, AbortController()
        counted = Counted(ground, hold)
        caller = ground.in_thread(lambda: Caller(counted, signal=controller.signal).call())
        until(lambda: counted.counts["get_result"] == 1)
        (call_id,) = counted.ids
        ground.until_it(call_id, "started")
        controller.abort("wrong month")
        error = caller.end()
        assert (type(error), error.message) == (CallAborted, "wrong month")
        assert hold.get_state(call_id) is CallState.PENDING
        ground.release(call_id)
        ground.until_gone(hold, call_id)
        assert "could not be removed" not in caplog.text

    def test_fault_3_what_settles_between_reading_and_waiting_is_noticed(
        self, ground: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hold = ground.procedures.hold
        for nth in range(1, ground.looks + 1):
            call_id = ground.running(hold)
            settled: list[float] = []

            def settle(call_id: str = call_id, settled: list[float] = settled) -> None:
                ground.release(call_id)
                ground.until_over(call_id)
                settled.append(time.monotonic())

            with monkeypatch.context() as patched:
                ground.after_reading(patched, nth, settle)
                assert hold.get_result(call_id, wait=WAIT) == "held"
            # Sooner than somebody would look who only looks again now and then.
            assert time.monotonic() - settled[0] < 1.5

    def test_fault_4_a_call_can_be_asked_for_and_aborted_from_elsewhere(
        self, ground: Ground, caplog: pytest.LogCaptureFixture
    ) -> None:
        used = ground.procedures
        call_id, failing = ground.running(used.hold), ground.settled(used.fail, "KeyError", "x")
        assert ground.meddle(used.hold, call_id, "state") == "pending"
        with pytest.raises(LrpError, match="has not settled yet"):
            ground.meddle(used.hold, call_id, "remove")
        ground.release(call_id)
        assert ground.meddle(used.hold, call_id, "result") == "held"
        with pytest.raises(KeyError):
            ground.meddle(used.fail, failing, "result")
        caplog.set_level(logging.WARNING, "lrp_celery")
        running = ground.running(used.polite)
        ground.meddle(used.polite, running, "abort")
        if not ground.reaches_across:
            # A bare store holds no request: that it cannot be passed on is said aloud.
            assert f"{running} is not aborted: it does not run in this process" in caplog.text
            used.polite.abort(running, "from elsewhere")
        with pytest.raises(CallAborted, match="from elsewhere"):
            used.polite.get_result(running, wait=WAIT)
        ground.until_settled(used.polite, running)
        assert ground.count(running, TOLD) == 1
        if ground.processes > 1:
            assert ground.lines(running)[0].pid != os.getpid()

    def test_fault_5_no_failure_leaves_a_call_pending(self, ground: Ground) -> None:
        stumble, fail_later, fail = ground.procedures.stumble, ground.procedures.fail_later, ground.procedures.fail
        assert ground.ask(stumble, 2) == "stumbled"
        for made, args in ((fail_later, ("at once",)), (fail, ("ValueError", "at once"))):
            with pytest.raises(ValueError, match="at once"):
                ground.ask(made, *args)

    def test_fault_6_neither_calls_nor_callers_leave_anything_behind(self, ground: Ground) -> None:
        give, controller = ground.procedures.give, AbortController()
        # As long as callers may take on a machine that stands still now and then.
        counted = Counted(ground, give.using(time_to_live=WAIT, timeout=600))
        for _ in range(5):
            assert Caller(counted, signal=controller.signal).call(1) == 1
            assert PollingCaller(counted, polling_interval=0.01, signal=controller.signal).call(1) == 1
        assert controller.signal._listeners == []
        controller.abort("much later")
        assert counted.counts["abort"] == 0
        # One that expires leaves no more behind than one that is removed.
        expired = ground.start(give.using(time_to_live=SHORT, timeout=600), 1)
        ground.until_gone(give, expired)
        ground.until_over(expired)
        until(lambda: ground.waiting() == 0)
        ground.until_nothing_is_left(expired)

    def test_fault_7_errors_are_texts_aborts_have_reasons_and_ids_can_be_fixed(self, ground: Ground) -> None:
        used = ground.procedures
        with pytest.raises(CallFailed) as caught:
            ground.ask(used.fail, "OwnError", "mine")
        kept = caught.value
        assert json.loads(json.dumps([kept.type, kept.message, kept.traceback])) == [
            "tests.conformance.procedure_tasks.OwnError",
            "mine",
            kept.traceback,
        ]
        fixed = used.give.using(call_id=fresh_id())
        assert ground.start(fixed, "first") == ground.start(fixed, "second") == fixed._call_options.call_id
        assert fixed.get_result(fixed._call_options.call_id, wait=WAIT) == "first"


class OverRowsConformance(ProcedureConformance):
    """What is promised of calls that have a row, and a Celery app, besides."""

    def test_lrp_01_a_task_called_in_place_is_no_call(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        # Only what is done here counts: calls of earlier tests may still be about to note that they are over.
        give, own_id = ground.procedures.give, ground.procedures.own_id
        with monkeypatch.context() as patched:
            ground.refuse_new_calls(patched)
            assert give("x") == "x"
            assert own_id() == ""
        call_id = ground.start(own_id)
        assert own_id.get_result(call_id, wait=WAIT) == call_id

    def test_lrp_10_a_procedure_knows_its_own_calls_only(self, ground: Ground) -> None:
        call_id = ground.settled(ground.procedures.give, 1)
        with pytest.raises(CallNotFound):
            ground.procedures.greet.get_state(call_id)
        ground.procedures.greet.remove(call_id)
        assert ground.procedures.give.get_result(call_id) == 1

    def test_lrp_09_a_status_says_more_than_a_state(self, ground: Ground) -> None:
        used = ground.procedures
        aborted = ground.running(used.polite)
        used.polite.abort(aborted)
        ends = [
            (used.give, ground.start(used.give, 1), ("succeeded", None)),
            (used.fail, ground.start(used.fail, "KeyError", "x"), ("failed", None)),
            (used.polite, aborted, ("aborted", "aborted")),
            (used.polite, ground.start(used.polite.using(timeout=SHORT)), ("aborted", "timeout")),
        ]
        for made, call_id, expected in ends:
            ground.until_settled(made, call_id)
            call = made.get_call(call_id)
            assert (call.status, call.reason) == expected

    def test_fault_7_a_call_has_an_owner_and_tells_how_far_it_is(self, ground: Ground) -> None:
        report = ground.procedures.report
        call_id = ground.running(report.using(owner="ada"), 2)
        until(lambda: report.get_call(call_id).progress is not None)
        call = report.get_call(call_id)
        assert (call.owner, call.status, call.attempt) == ("ada", "started", 1)
        assert (call.progress.done, call.progress.total, call.progress.text) == (1, 2, "begun")
        ground.release(call_id)
        assert report.get_result(call_id, wait=WAIT) == "reported"


class RemoteError(Exception):
    """What another service answers when a call has failed: nothing but a text."""


class Remote:
    """A procedure as another service's client might have it: written by hand, and all that passes is JSON."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._name = ground, name
        self.asked: list[str] = []

    def call(self, *args: Any) -> str:
        return str(self._send("call", *args))

    def get_state(self, call_id: str) -> CallState:
        return CallState(self._send("get_state", call_id))

    def get_result(self, call_id: str) -> Any:
        return self._send("get_result", call_id)

    def abort(self, call_id: str, reason: str | None = None) -> None:
        self._send("abort", call_id, reason)

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        self._send("remove", call_id, when_settled)

    def _send(self, method: str, *args: Any) -> Any:
        self.asked.append(method)
        answer = json.loads(self._serve(json.dumps([method, args])))
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["value"]

    def _serve(self, request: str) -> str:
        """The other side."""
        method, args = json.loads(request)
        served = getattr(self._ground.procedures, self._name)
        try:
            if method == "call":
                value = self._ground.start(served, *args)
            elif method == "remove":
                value = served.remove(args[0], when_settled=args[1])
            else:
                value = getattr(served, method)(*args)
        except Exception as error:
            return json.dumps({"error": f"{type(error).__name__}: {error}"})
        return json.dumps({"value": value})
