"""What every tracking store promises, one or more tests for each row of docs/conformance.md.

A store joins by a class that inherits `TrackingStoreConformance`, says its `store_name`, and
has two fixtures: `store` (a store under test; others may share its database) and `racers`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
from celery.signals import before_task_publish
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrp_celery.core.clock import ManualClock
from lrp_celery.core.errors import ConfigurationError, InvalidStatus
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.record import AttemptOutcome, CallRecord
from lrp_celery.tracking.reports import (
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NeverSent,
    Outcome,
    Report,
    RunFacts,
    Started,
    Told,
)
from lrp_celery.tracking.retention import DEFAULT_RETENTION
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.status import OPEN, TERMINAL, CallStatus, Reason
from lrp_celery.tracking.steps import Merged
from lrp_celery.tracking.store import MergingStore, TrackingStore
from tests.conformance import racing
from tests.conformance.racing import Racers, move
from tests.tracking.histories import CALL_ID, History, any_history, arrivals

#: Rounds of a race. Enough that a store which reads first and writes then is caught.
ROUNDS = racing.ROUNDS or 200
#: So long ago that no other test's rows are as old.
PAST = datetime(2001, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
TICK = timedelta(microseconds=1)

ENDS = sorted(TERMINAL)
every_end = pytest.mark.parametrize("end", ENDS)


def fresh_id(name: str = "call") -> str:
    return f"{name}-{uuid.uuid4().hex}"


def some_call(store: TrackingStore) -> str:
    """A call that was enqueued with all that can be said."""
    call_id = fresh_id()
    assert store.record_enqueue(call_id, "tasks.send", "to=ada", "host-1", "shop.views:buy", "gen1@host-1")
    return call_id


def ended_call(store: TrackingStore, end: CallStatus = CallStatus.FAILED) -> str:
    call_id = some_call(store)
    assert store.record_attempt(call_id, "retrying", 2, "slow", 503)
    assert store.record_terminal(call_id, end, "gone", 410)
    return call_id


def seen(store: TrackingStore, call_id: str) -> CallSnapshot:
    snapshot = store.get_status(call_id)
    assert snapshot is not None
    return snapshot


def rewrite(store: MergingStore, call_id: str, **values: Any) -> None:
    """Pretend that something happened at another time: the store's clock cannot be set."""
    record = store._find(call_id, None).record
    assert record is not None
    assert store._write(Merged(replace(record, **values)), record)


def call_that_ended_at(store: MergingStore, instant: datetime) -> str:
    call_id = ended_call(store)
    rewrite(store, call_id, terminal_at=instant)
    return call_id


def old_row(store: MergingStore, terminal_at: datetime) -> None:
    """An ended call, written in one go."""
    record = CallRecord(
        call_id=fresh_id("old"),
        task="t",
        status=CallStatus.SUCCEEDED,
        enqueued_at=terminal_at,
        updated_at=terminal_at,
        terminal_at=terminal_at,
    )
    assert store._write(Merged(record), None)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def forget_old_rows(store: MergingStore) -> None:
    """Take away the ended rows that other tests have left: purges are counted."""
    store.purge_terminal(datetime(2010, 1, 1, tzinfo=UTC))


_looked_for = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ],
)


def _age(report: Report, now: datetime) -> timedelta:
    """How long ago a run began: whoever tells a report late knows that."""
    started_at = report.run.started_at if isinstance(report, Started) else None
    return timedelta() if started_at is None else now - started_at


@st.composite
def _mixtures(draw: st.DrawFn, lengths: list[int]) -> list[int]:
    """The places of several sequences laid end to end, mixed so that each keeps its order."""
    owners = draw(st.permutations([owner for owner, length in enumerate(lengths) for _ in range(length)]))
    nexts = [sum(lengths[:owner]) for owner in range(len(lengths))]
    places = []
    for owner in owners:
        places.append(nexts[owner])
        nexts[owner] += 1
    return places


class TrackingStoreConformance:
    """The suite. Rows are in docs/conformance.md."""

    store_name: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _nothing_old(self, store: MergingStore) -> None:
        forget_old_rows(store)

    # --- TRK-01 ... TRK-04: the row --------------------------------------------------

    def test_trk_01_each_id_has_a_row_of_its_own_compared_byte_by_byte(self, store: MergingStore) -> None:
        base = fresh_id()
        alike = [
            base,
            base.upper(),
            f"{base} ",
            f" {base}",
            f"{base}e\u0301",
            f"{base}\u00e9",
            f"{base}e",
            f"{base}\u00df",
        ]
        for number, call_id in enumerate(alike):
            assert store.record_enqueue(call_id, f"task-{number}"), repr(call_id)
        assert [seen(store, call_id).task for call_id in alike] == [f"task-{number}" for number in range(len(alike))]
        assert [seen(store, call_id).call_id for call_id in alike] == alike

    def test_trk_01_any_id_of_1_to_200_characters_is_kept_whole(self, store: MergingStore) -> None:
        longest = fresh_id().ljust(200, "\U0001f40d")
        assert store.record_enqueue(longest, "t")
        assert seen(store, longest).call_id == longest
        assert store.get_status(longest[:-1]) is None

    @pytest.mark.parametrize("call_id", ["", "x" * 201, "nul\x00", "lone\ud800", None, 7])
    def test_trk_01_what_cannot_be_an_id_is_refused(self, store: MergingStore, call_id: Any) -> None:
        refused: list[Callable[[], object]] = [
            lambda: store.record_enqueue(call_id, "t"),
            lambda: store.record_attempt(call_id, "started", 0),
            lambda: store.record_terminal(call_id, "failed"),
            lambda: store.get_status(call_id),
        ]
        for attempt in refused:
            with pytest.raises(ConfigurationError):
                attempt()

    def test_trk_02_what_was_written_is_what_everybody_reads_at_once(self, store: MergingStore, racers: Racers) -> None:
        call_id = ended_call(store)
        ((one, other),) = racers.race([move("get_status", call_id)], [move("get_status", call_id)])
        assert one == other == store.get_status(call_id)

    def test_trk_02_the_store_publishes_nothing(self, store: MergingStore) -> None:
        published: list[object] = []

        def receiver(**signal: object) -> None:
            published.append(signal)

        before_task_publish.connect(receiver)
        try:
            ended_call(store)
        finally:
            before_task_publish.disconnect(receiver)
        assert published == []

    @every_end
    def test_trk_03_a_submitted_call_may_end_directly(self, store: MergingStore, end: CallStatus) -> None:
        call_id = some_call(store)
        assert seen(store, call_id).status is CallStatus.SUBMITTED
        assert store.record_terminal(call_id, end)
        assert seen(store, call_id).status is end

    @every_end
    def test_trk_03_a_call_may_be_retried_many_times_and_then_end(self, store: MergingStore, end: CallStatus) -> None:
        call_id = some_call(store)
        for retries in range(4):
            assert store.record_attempt(call_id, "started", retries)
            assert seen(store, call_id).status is CallStatus.STARTED
            assert store.record_attempt(call_id, "retrying", retries + 1)
            assert seen(store, call_id).status is CallStatus.RETRYING
        assert store.record_terminal(call_id, end)
        assert seen(store, call_id).status is end

    @every_end
    def test_trk_04_nothing_changes_a_call_that_has_ended(self, store: MergingStore, end: CallStatus) -> None:
        call_id = ended_call(store, end)
        before = seen(store, call_id)
        assert not store.record_enqueue(call_id, "other")
        for status in sorted(OPEN):
            assert not store.record_attempt(call_id, status, 99, "late", 1)
        for status in ENDS:
            assert not store.record_terminal(call_id, status, "late", 1, reason="lost")
        assert seen(store, call_id) == before

    @every_end
    def test_trk_04_not_even_the_reports_of_a_late_run_do(self, store: MergingStore, end: CallStatus) -> None:
        call_id = ended_call(store, end)
        before = seen(store, call_id)
        late = RunFacts(token="late", worker="w9", pid=9)
        store.report(Started(call_id=call_id, turn=None, run=late))
        store.report(Ended(call_id=call_id, turn=None, run=late, outcome=Outcome(status=CallStatus.SUCCEEDED)))
        assert replace(seen(store, call_id), updated_at=before.updated_at) == before
        assert [(kept.run, kept.late) for kept in store.attempts(call_id)] == [("late", True)]

    # --- TRK-05 ... TRK-07: enqueue --------------------------------------------------

    def test_trk_05_enqueue_inserts_a_submitted_row_with_all_it_was_told(self, store: MergingStore) -> None:
        before = store._now()
        call_id = some_call(store)
        snapshot = seen(store, call_id)
        assert snapshot == CallSnapshot(
            call_id=call_id,
            task="tasks.send",
            status=CallStatus.SUBMITTED,
            target_summary="to=ada",
            source_instance_id="host-1",
            source_script="shop.views:buy",
            source_node="gen1@host-1",
            enqueued_at=snapshot.enqueued_at,
            updated_at=snapshot.updated_at,
        )
        assert snapshot.retries == 0
        assert before <= snapshot.enqueued_at <= snapshot.updated_at <= store._now()

    def test_trk_05_only_the_task_is_required(self, store: MergingStore) -> None:
        call_id = fresh_id()
        assert store.record_enqueue(call_id, "t")
        snapshot = seen(store, call_id)
        assert (snapshot.target_summary, snapshot.source_instance_id) == (None, None)
        assert (snapshot.source_script, snapshot.source_node) == (None, None)
        with pytest.raises(TypeError):
            store.record_enqueue(fresh_id())  # type: ignore[call-arg]

    def test_trk_05_texts_that_databases_refuse_are_cleaned_and_bounded(self, store: MergingStore) -> None:
        call_id = fresh_id()
        assert store.record_enqueue(call_id, "t\x00" * 300, "\ud800s\U0001f40d" * 1000, "i" * 999, "c" * 999, "n" * 999)
        assert store.record_attempt(call_id, "retrying", 1, "e\x00\udfff\U0001f40d" * 5000)
        snapshot = seen(store, call_id)
        texts = (snapshot.task, snapshot.target_summary, snapshot.source_instance_id, snapshot.source_script)
        for text in (*texts, snapshot.source_node, snapshot.last_error):
            assert text is not None
            assert text.endswith("…")
            assert "\x00" not in text

    @pytest.mark.parametrize("state", ["submitted", "started", "retrying", *ENDS])
    @pytest.mark.parametrize("task", ["tasks.send", "another.task"])
    def test_trk_06_enqueueing_again_changes_nothing_whatever_the_state(
        self, store: MergingStore, state: str, task: str
    ) -> None:
        call_id = some_call(store)
        if state in TERMINAL:
            assert store.record_terminal(call_id, state, "why", 500)
        elif state != "submitted":
            assert store.record_attempt(call_id, state, 3, "why", 500)
        before = seen(store, call_id)
        assert not store.record_enqueue(call_id, task, "other target", "other", "other", "other")
        assert seen(store, call_id) == before

    def test_trk_07_of_two_that_enqueue_at_once_one_inserts_and_neither_fails(
        self, store: MergingStore, racers: Racers
    ) -> None:
        ids = [fresh_id("race") for _ in range(ROUNDS)]
        results = racers.race(
            [move("record_enqueue", call_id, "one", "one") for call_id in ids],
            [move("record_enqueue", call_id, "other", "other") for call_id in ids],
        )
        for call_id, (one, other) in zip(ids, results, strict=True):
            assert {one, other} == {True, False}, results
            snapshot = seen(store, call_id)
            assert (snapshot.task, snapshot.target_summary) == (("one", "one") if one else ("other", "other"))

    # --- TRK-08 ... TRK-12: attempts -------------------------------------------------

    def test_trk_08_an_attempt_overwrites_status_count_error_and_code(self, store: MergingStore) -> None:
        call_id = some_call(store)
        before = seen(store, call_id)
        assert store.record_attempt(call_id, "retrying", 2, "timeout", 504)
        after = seen(store, call_id)
        assert (after.status, after.retries, after.last_error, after.http_status) == ("retrying", 2, "timeout", 504)
        kept = {
            "call_id",
            "task",
            "target_summary",
            "source_instance_id",
            "source_script",
            "source_node",
            "enqueued_at",
        }
        assert all(getattr(after, name) == getattr(before, name) for name in kept)
        assert after.updated_at >= before.updated_at

    def test_trk_08_none_clears_the_error_and_the_code_of_before(self, store: MergingStore) -> None:
        call_id = some_call(store)
        assert store.record_attempt(call_id, "retrying", 1, "timeout", 504)
        assert store.record_attempt(call_id, "started", 1)
        assert (seen(store, call_id).last_error, seen(store, call_id).http_status) == (None, None)

    @every_end
    def test_trk_09_an_attempt_after_the_end_is_dropped(self, store: MergingStore, end: CallStatus) -> None:
        call_id = ended_call(store, end)
        before = seen(store, call_id)
        assert not store.record_attempt(call_id, "retrying", 7, "late", 500)
        assert seen(store, call_id) == before

    def test_trk_10_an_attempt_of_an_unknown_call_makes_no_row(self, store: MergingStore) -> None:
        call_id = fresh_id()
        assert store.record_attempt(call_id, "started", 0) is False
        assert store.get_status(call_id) is None

    def test_trk_11_the_count_is_absolute_so_a_replay_adds_nothing(self, store: MergingStore) -> None:
        call_id = some_call(store)
        for _ in range(3):
            assert store.record_attempt(call_id, "retrying", 2, "slow", 503)
            assert seen(store, call_id).retries == 2

    def test_trk_11_the_count_never_goes_back(self, store: MergingStore) -> None:
        call_id = some_call(store)
        assert store.record_attempt(call_id, "retrying", 2, "second", 503)
        assert not store.record_attempt(call_id, "retrying", 1, "first", 500)
        assert not store.record_attempt(call_id, "submitted", 2)
        snapshot = seen(store, call_id)
        assert (snapshot.status, snapshot.retries, snapshot.last_error) == ("retrying", 2, "second")
        with pytest.raises(ConfigurationError):
            store.record_attempt(call_id, "retrying", -1)

    @pytest.mark.parametrize("status", [*ENDS, "delivered", "", "STARTED"])
    def test_trk_12_an_attempt_takes_no_terminal_and_no_unknown_status(self, store: MergingStore, status: str) -> None:
        call_id = some_call(store)
        before = seen(store, call_id)
        with pytest.raises(InvalidStatus):
            store.record_attempt(call_id, status, 1)
        assert seen(store, call_id) == before

    # --- TRK-13 ... TRK-16: the end --------------------------------------------------

    @every_end
    def test_trk_13_the_end_sets_status_error_code_reason_and_time(self, store: MergingStore, end: CallStatus) -> None:
        call_id = some_call(store)
        assert store.record_attempt(call_id, "retrying", 2, "slow", 503)
        before = store._now()
        assert store.record_terminal(call_id, end, "gone", 410, reason="max_retries")
        snapshot = seen(store, call_id)
        assert (snapshot.status, snapshot.last_error, snapshot.http_status) == (end, "gone", 410)
        assert (snapshot.reason, snapshot.retries, snapshot.is_terminal) == (Reason.MAX_RETRIES, 2, True)
        assert snapshot.terminal_at is not None
        assert before <= snapshot.terminal_at <= store._now()

    @every_end
    def test_trk_14_the_first_end_stands(self, store: MergingStore, end: CallStatus) -> None:
        call_id = ended_call(store, CallStatus.FAILED)
        before = seen(store, call_id)
        assert not store.record_terminal(call_id, end, "second", 500, reason="lost")
        assert seen(store, call_id) == before

    def test_trk_14_of_two_equal_ends_at_once_one_applies(self, store: MergingStore, racers: Racers) -> None:
        ids = [some_call(store) for _ in range(ROUNDS)]
        moves = [move("record_terminal", call_id, "succeeded") for call_id in ids]
        for one, other in racers.race(moves, moves):
            assert {one, other} == {True, False}

    def test_trk_15_of_two_different_ends_at_once_one_applies_whole(self, store: MergingStore, racers: Racers) -> None:
        ids = [some_call(store) for _ in range(ROUNDS)]
        results = racers.race(
            [move("record_terminal", call_id, "succeeded", reason=None) for call_id in ids],
            [move("record_terminal", call_id, "failed", "late", 500, reason="lost") for call_id in ids],
        )
        for call_id, (one, other) in zip(ids, results, strict=True):
            assert {one, other} == {True, False}, results
            snapshot = seen(store, call_id)
            got = (snapshot.status, snapshot.last_error, snapshot.http_status, snapshot.reason)
            assert got == (("succeeded", None, None, None) if one else ("failed", "late", 500, "lost"))

    def test_trk_15_an_end_is_on_top_of_an_attempt_that_comes_at_once(
        self, store: MergingStore, racers: Racers
    ) -> None:
        ids = [some_call(store) for _ in range(ROUNDS)]
        results = racers.race(
            [move("record_attempt", call_id, "retrying", 1, "again", 503) for call_id in ids],
            [move("record_terminal", call_id, "parked", "end", 410) for call_id in ids],
        )
        for call_id, (attempted, ended) in zip(ids, results, strict=True):
            assert attempted in {True, False}
            assert ended is True, results
            snapshot = seen(store, call_id)
            assert (snapshot.status, snapshot.last_error, snapshot.http_status) == ("parked", "end", 410)
            assert snapshot.retries == int(attempted)

    @pytest.mark.parametrize("status", [*sorted(OPEN), "done", ""])
    def test_trk_16_the_end_takes_no_open_and_no_unknown_status(self, store: MergingStore, status: str) -> None:
        call_id = some_call(store)
        before = seen(store, call_id)
        with pytest.raises(InvalidStatus):
            store.record_terminal(call_id, status)
        assert seen(store, call_id) == before

    def test_trk_16_the_end_of_an_unknown_call_makes_no_row(self, store: MergingStore) -> None:
        call_id = fresh_id()
        assert store.record_terminal(call_id, "failed") is False
        assert store.get_status(call_id) is None

    # --- TRK-17, TRK-18: reading -----------------------------------------------------

    def test_trk_17_a_call_never_recorded_and_one_purged_read_alike(self, store: MergingStore) -> None:
        call_id = call_that_ended_at(store, PAST - TICK)
        assert seen(store, call_id).is_terminal
        store.purge_terminal(PAST)
        assert store.get_status(call_id) is None
        assert store.get_status(fresh_id()) is None

    def test_trk_18_a_snapshot_cannot_be_changed_and_does_not_follow(self, store: MergingStore) -> None:
        call_id = some_call(store)
        snapshot = seen(store, call_id)
        with pytest.raises(FrozenInstanceError):
            snapshot.status = CallStatus.FAILED  # type: ignore[misc]
        assert store.record_terminal(call_id, "failed")
        assert (snapshot.status, snapshot.is_terminal) == (CallStatus.SUBMITTED, False)

    def test_trk_18_a_snapshot_holds_all_that_the_store_knows(self, store: MergingStore) -> None:
        call_id = some_call(store)
        shown = {field.name for field in fields(CallSnapshot)}
        texts = {"queue", "worker", "owner", "error_type", "root_id", "parent_id", "group_id", "schedule", "rerun_of"}
        times = {"started_at", "deadline_at", "expires_at", "purge_at", "abort_requested_at"}
        values: dict[str, Any] = {name: f"the {name}" for name in texts} | dict.fromkeys(times, PAST)
        rewrite(store, call_id, **values, attempt=3)
        assert store.record_attempt(call_id, "retrying", 2, "slow", 503)
        snapshot = seen(store, call_id)
        cleared = {"error_type": None}
        assert {name: getattr(snapshot, name) for name in values} == values | cleared
        unset = {name for name in shown if getattr(snapshot, name) is None}
        assert unset == {"reason", "progress", "terminal_at", "error_type"}

    # --- TRK-19 ... TRK-21: purge ----------------------------------------------------

    def test_trk_19_purge_deletes_what_ended_strictly_before(self, store: MergingStore) -> None:
        before, at, after = (call_that_ended_at(store, PAST + TICK * shift) for shift in (-1, 0, 1))
        assert store.purge_terminal(PAST) == 1
        assert store.get_status(before) is None
        assert seen(store, at).terminal_at == PAST
        assert seen(store, after).terminal_at == PAST + TICK
        assert store.purge_terminal(PAST + TICK * 2) == 2

    def test_trk_19_purge_deletes_the_attempts_too_and_the_id_is_free_again(self, store: MergingStore) -> None:
        call_id = fresh_id()
        self.run_and_fail(store, call_id)
        assert len(store.attempts(call_id)) == 1
        rewrite(store, call_id, terminal_at=PAST)
        assert store.purge_terminal(PAST + TICK) == 1
        assert store.attempts(call_id) == ()
        assert store.record_enqueue(call_id, "t")
        assert store.attempts(call_id) == ()

    def test_trk_19_purge_deletes_more_than_fit_one_chunk(self, store: MergingStore) -> None:
        for _ in range(501):
            old_row(store, PAST)
        assert store.purge_terminal(PAST + TICK) == 501
        assert store.purge_terminal(PAST + TICK) == 0

    def test_trk_19_two_purges_at_once_delete_each_row_once_and_neither_fails(
        self, store: MergingStore, racers: Racers
    ) -> None:
        rounds, rows = ROUNDS // 4, 3
        # Each round has a day of its own, and the rows of the rounds before it are gone.
        days = [PAST - timedelta(days=rounds - number) for number in range(rounds)]
        for day in days:
            for _ in range(rows):
                old_row(store, day)
        kept = some_call(store)
        moves = [move("purge_terminal", day + TICK) for day in days]
        results = racers.race(moves, moves)
        assert all(isinstance(count, int) for counts in results for count in counts), results
        assert sum(one + other for one, other in results) + store.purge_terminal(PAST) == rounds * rows
        assert seen(store, kept).status is CallStatus.SUBMITTED

    @pytest.mark.parametrize("status", sorted(OPEN))
    def test_trk_20_purge_never_deletes_an_open_call_however_old(self, store: MergingStore, status: str) -> None:
        call_id = some_call(store)
        assert store.record_attempt(call_id, status, 0)
        rewrite(store, call_id, enqueued_at=PAST, updated_at=PAST, started_at=PAST, expires_at=PAST, purge_at=PAST)
        store.purge_terminal(PAST + timedelta(days=1))
        store.purge_terminal(store._now() + timedelta(days=400))
        assert seen(store, call_id).enqueued_at == PAST

    def test_trk_21_retention_is_a_threshold_by_default_seven_days(self, store: MergingStore) -> None:
        keep = DEFAULT_RETENTION["*"]
        assert keep == timedelta(days=7)
        now = store._now()
        expired = call_that_ended_at(store, now - keep - timedelta(seconds=1))
        kept = call_that_ended_at(store, now - keep + timedelta(minutes=5))
        store.purge_terminal(now - keep)
        assert store.get_status(expired) is None
        assert seen(store, kept).is_terminal
        store.purge_terminal(now - timedelta(days=6))
        assert store.get_status(kept) is None

    # --- TRK-22: async ---------------------------------------------------------------

    def test_trk_22_every_method_has_an_async_twin_that_does_the_same(self, store: MergingStore) -> None:
        async def live() -> tuple[Any, ...]:
            call_id = fresh_id()
            done = (
                await store.arecord_enqueue(call_id, "t", "target", source_node="n"),
                await store.arecord_enqueue(call_id, "t"),
                await store.arecord_attempt(call_id, "retrying", 1, "slow", 503),
                await store.arecord_terminal(call_id, "failed", "gone", 410, reason="lost"),
                await store.arecord_terminal(call_id, "failed"),
            )
            snapshot = await store.aget_status(call_id)
            return done, snapshot, await store.apurge_terminal(PAST - timedelta(days=4000))

        done, snapshot, purged = run(live())
        assert done == (True, False, True, True, False)
        assert (snapshot.status, snapshot.target_summary, snapshot.source_node) == ("failed", "target", "n")
        assert (snapshot.last_error, snapshot.http_status, snapshot.reason) == ("gone", 410, "lost")
        assert purged == 0

    def test_trk_22_async_twins_refuse_what_the_others_refuse(self, store: MergingStore) -> None:
        with pytest.raises(InvalidStatus):
            run(store.arecord_attempt(fresh_id(), "failed", 0))
        with pytest.raises(ConfigurationError):
            run(store.apurge_terminal(datetime(2026, 1, 1)))

    def test_trk_22_many_at_once_from_one_event_loop(self, store: MergingStore) -> None:
        call_id = fresh_id()

        async def crowd() -> list[bool]:
            return await asyncio.gather(*(store.arecord_enqueue(call_id, f"t{number}") for number in range(20)))

        assert sorted(run(crowd())) == [False] * 19 + [True]

    def test_trk_22_a_cancelled_write_is_there_whole_or_not_at_all(self, store: MergingStore) -> None:
        ids = [fresh_id("cancel") for _ in range(40)]

        async def cancelled(call_id: str, turns: int) -> bool:
            task = asyncio.ensure_future(store._apart(self.run_and_fail, store, call_id))
            for _ in range(turns):
                # One turn of the event loop: each id is cancelled at another point.
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

        async def all_of_them() -> list[bool]:
            done = [await cancelled(call_id, turns % 10) for turns, call_id in enumerate(ids)]
            # Where twins run in one thread, this one runs after them; other threads end with the loop.
            await store.aget_status(ids[-1])
            return done

        assert any(run(all_of_them()))
        for call_id in ids:
            snapshot = store.get_status(call_id)
            ended = [attempt.outcome for attempt in store.attempts(call_id)]
            if snapshot is None or snapshot.status in {CallStatus.SUBMITTED, CallStatus.STARTED}:
                assert ended == []
            else:
                assert (snapshot.status, snapshot.last_error) == (CallStatus.FAILED, "why")
                assert ended == [AttemptOutcome.FAILED]

    # --- TRK-23 ... TRK-26: general --------------------------------------------------

    def test_trk_23_a_naive_threshold_is_refused_and_deletes_nothing(self, store: MergingStore) -> None:
        call_id = call_that_ended_at(store, PAST)
        with pytest.raises(ConfigurationError):
            store.purge_terminal(datetime(2026, 1, 1))
        assert seen(store, call_id).terminal_at == PAST
        assert store.purge_terminal(PAST + TICK) == 1

    def test_trk_23_a_threshold_of_another_zone_means_the_same_instant(self, store: MergingStore) -> None:
        call_id = call_that_ended_at(store, PAST)
        zone = timezone(timedelta(hours=-11))
        assert store.purge_terminal(PAST.astimezone(zone)) == 0
        assert store.purge_terminal((PAST + TICK).astimezone(zone)) == 1
        assert store.get_status(call_id) is None

    def test_trk_23_every_instant_is_aware_in_utc_and_exact(self, store: MergingStore) -> None:
        call_id = ended_call(store)
        rewrite(store, call_id, started_at=PAST, deadline_at=PAST.replace(microsecond=0), abort_requested_at=PAST)
        snapshot = seen(store, call_id)
        times = {
            field.name: getattr(snapshot, field.name) for field in fields(CallSnapshot) if field.name.endswith("_at")
        }
        assert [name for name, time in times.items() if time is not None and time.utcoffset() != timedelta(0)] == []
        assert snapshot.started_at == PAST
        assert snapshot.deadline_at == PAST.replace(microsecond=0)
        assert snapshot.terminal_at is not None
        assert snapshot.enqueued_at <= snapshot.terminal_at <= store._now()

    def test_trk_24_each_write_says_whether_it_applied(self, store: MergingStore) -> None:
        call_id = fresh_id()
        done = [
            store.record_attempt(call_id, "started", 0),
            store.record_terminal(call_id, "failed"),
            store.record_enqueue(call_id, "t"),
            store.record_enqueue(call_id, "t"),
            store.record_attempt(call_id, "started", 0),
            store.record_terminal(call_id, "succeeded"),
            store.record_terminal(call_id, "succeeded"),
            store.record_attempt(call_id, "started", 1),
        ]
        assert done == [False, False, True, False, True, True, False, False]
        assert all(type(flag) is bool for flag in done)

    def test_trk_24_nobody_sees_half_of_a_write(self, store: MergingStore, racers: Racers) -> None:
        ids = [some_call(store) for _ in range(ROUNDS // 2)]
        results = racers.race(
            [move("record_terminal", call_id, "failed", "gone", 410, reason="lost") for call_id in ids],
            [move("get_status", call_id) for call_id in ids],
        )
        whole = {("failed", "gone", 410, "lost", False), ("submitted", None, None, None, True)}
        for applied, read in results:
            assert applied is True
            assert (read.status, read.last_error, read.http_status, read.reason, read.terminal_at is None) in whole

    def test_trk_24_two_reports_at_once_are_both_kept(self, store: MergingStore, racers: Racers) -> None:
        ids = [some_call(store) for _ in range(ROUNDS // 2)]
        runs = [RunFacts(token="1"), RunFacts(token="2")]
        one, other = ([move("report", Started(call_id=call_id, run=each)) for call_id in ids] for each in runs)
        assert set(racers.race(one, other)) == {(True, True)}
        for call_id in ids:
            record = store._find(call_id, None).record
            assert record is not None
            assert (record.runs, record.run) == (2, "2")

    @pytest.mark.parametrize("code", [None, 0, 200, 599])
    def test_trk_25_the_code_is_optional_and_the_kind_is_any_text(self, store: MergingStore, code: int | None) -> None:
        call_id = fresh_id()
        assert store.record_enqueue(call_id, "database write: orders/“π”")
        assert store.record_attempt(call_id, "retrying", 1, "e", code)
        assert seen(store, call_id).http_status == code
        assert store.record_terminal(call_id, "failed", "e", code)
        assert (seen(store, call_id).task, seen(store, call_id).http_status) == ("database write: orders/“π”", code)

    def test_trk_26_every_method_may_be_repeated(self, store: MergingStore) -> None:
        def live(times: int) -> CallSnapshot:
            call_id = fresh_id()
            steps: list[Callable[[], object]] = [
                lambda: store.record_enqueue(call_id, "t", "target"),
                lambda: store.record_attempt(call_id, "started", 0),
                lambda: store.record_attempt(call_id, "retrying", 1, "slow", 503),
                lambda: store.record_attempt(call_id, "started", 1),
                lambda: store.record_terminal(call_id, "failed", "gone", 410),
                lambda: store.purge_terminal(PAST),
            ]
            for step in steps:
                for _ in range(times):
                    step()
            return seen(store, call_id)

        once, thrice = live(1), live(3)
        same = {field.name for field in fields(CallSnapshot) if not field.name.endswith("_at")} - {"call_id"}
        assert {name: getattr(once, name) for name in same} == {name: getattr(thrice, name) for name in same}

    # --- beyond the rows: reports ----------------------------------------------------

    @_looked_for
    @given(data=st.data())
    def test_reports_come_to_the_same_as_in_memory(self, store: MergingStore, data: st.DataObject) -> None:
        history: History = data.draw(any_history())
        _, arrived = data.draw(arrivals(history))
        call_id = fresh_id()
        memory = MemoryTrackingStore(ManualClock(store._now()))
        applied = [store.report(replace(report, call_id=call_id)) for report in arrived]
        assert applied == [memory.report(report) for report in arrived]
        assert untimed(store._find(call_id, None).record) == untimed(memory._find(CALL_ID, None).record)
        expected = [untimed(attempt) for attempt in memory.attempts(CALL_ID)]
        assert [untimed(attempt) for attempt in store.attempts(call_id)] == expected

    @_looked_for
    @given(data=st.data())
    def test_reports_told_together_come_to_the_same_as_one_by_one(
        self, store: MergingStore, data: st.DataObject
    ) -> None:
        histories: list[History] = data.draw(st.lists(any_history(), min_size=1, max_size=4))
        names = [fresh_id() for _ in histories]
        arrived = [data.draw(arrivals(history))[1] for history in histories]
        now = store._now()
        told = [
            Told(replace(report, call_id=call_id), _age(report, now))
            for call_id, reports in zip(names, arrived, strict=True)
            for report in reports
        ]
        mixed = [told[place] for place in data.draw(_mixtures([len(reports) for reports in arrived]))]
        size = data.draw(st.integers(1, max(1, len(mixed))))
        for begin in range(0, len(mixed), size):
            assert list(store.report_many(mixed[begin : begin + size])) == []
        for call_id, reports in zip(names, arrived, strict=True):
            memory = MemoryTrackingStore(ManualClock(store._now()))
            for report in reports:
                memory.report(report)
            assert unworn(store._find(call_id, None).record) == unworn(memory._find(CALL_ID, None).record)
            expected = [untimed(attempt) for attempt in memory.attempts(CALL_ID)]
            assert [untimed(attempt) for attempt in store.attempts(call_id)] == expected

    def test_reports_told_together_twice_change_nothing_the_second_time(self, store: MergingStore) -> None:
        told = [Told(report) for number in range(20) for report in self.a_life(fresh_id(), number)]
        store.report_many(told)
        before = [store._find(each.report.call_id, None).record for each in told]
        assert list(store.report_many(told)) == []
        assert [store._find(each.report.call_id, None).record for each in told] == before

    @pytest.mark.parametrize("is_told_with_it", [False, True])
    def test_of_a_step_whose_predecessor_was_sent_after_all_nothing_is_known(
        self, store: MergingStore, is_told_with_it: bool
    ) -> None:
        """A message ran twice: one of its runs failed, the other one sent the next step."""
        facts, between, last = CallFacts(task="t"), fresh_id(), fresh_id()
        unsent = Outcome(status=CallStatus.DISCARDED, reason=Reason.LOST)
        begins = Started(call_id=between, facts=facts, run=RunFacts(token="one", pid=1))
        told: list[Report] = [NeverSent(call_id=last, facts=facts, outcome=unsent, after=between)]
        if is_told_with_it:
            told.insert(0, begins)
        else:
            store.report(begins)
        store.report_many([Told(each) for each in told])
        assert store.get_status(last) is None
        assert store.get_status(between) is not None

    def test_a_report_counts_from_when_it_was_true(self, store: MergingStore) -> None:
        call_id, run = fresh_id(), RunFacts(token="one", pid=1, started_at=datetime(2030, 1, 1, tzinfo=UTC))
        facts = CallFacts(task="t", enqueued_at=store._now() - timedelta(hours=2))
        done = Outcome(status=CallStatus.SUCCEEDED)
        store.report_many(
            [
                Told(Started(call_id=call_id, run=run, facts=facts), timedelta(hours=1)),
                Told(Ended(call_id=call_id, run=run, outcome=done), timedelta(minutes=30)),
            ]
        )
        call, now = seen(store, call_id), store._now()
        assert call.started_at is not None
        assert call.terminal_at is not None
        assert abs(now - call.started_at - timedelta(hours=1)) < timedelta(seconds=30)
        assert abs(now - call.terminal_at - timedelta(minutes=30)) < timedelta(seconds=30)

    def test_two_that_tell_the_same_at_once_lose_nothing(self, store: MergingStore, racers: Racers) -> None:
        rounds = []
        for number in range(ROUNDS // 4):
            calls = [fresh_id() for _ in range(5)]
            starts = [Told(self.a_life(call_id, number)[0]) for call_id in calls]
            ends = [Told(self.a_life(call_id, number)[1]) for call_id in calls]
            rounds.append((calls, move("report_many", starts), move("report_many", list(reversed(ends)))))
        results = racers.race([one for _, one, _ in rounds], [other for _, _, other in rounds])
        for (calls, one, other), (first, second) in zip(rounds, results, strict=True):
            left = [*first, *second]
            assert set(left) <= {*one.args[0], *other.args[0]}
            store.report_many(left)
            assert [seen(store, call_id).status for call_id in calls] == [CallStatus.SUCCEEDED] * 5
            assert [seen(store, call_id).attempt for call_id in calls] == [1] * 5

    @staticmethod
    def a_life(call_id: str, number: int) -> list[Report]:
        facts = CallFacts(task="t")
        run = RunFacts(token=f"run-{number}", worker="w", pid=number)
        done = Outcome(status=CallStatus.SUCCEEDED)
        return [
            Started(call_id=call_id, facts=facts, run=run),
            Ended(call_id=call_id, facts=facts, run=run, outcome=done),
        ]

    @staticmethod
    def run_and_fail(store: MergingStore, call_id: str) -> None:
        facts = CallFacts(task="t")
        one = RunFacts(token="one", worker="w", pid=1)
        error = ErrorFacts(type="ValueError", message="why", traceback="Traceback …")
        store.report(Enqueued(call_id=call_id, facts=facts))
        store.report(Started(call_id=call_id, run=one))
        outcome = Outcome(status=CallStatus.FAILED, error=error)
        store.report(Ended(call_id=call_id, run=one, outcome=outcome))


def unworn(row: Any) -> dict[str, Any] | None:
    """A row without when things were, and how often it was written."""
    shown = untimed(row)
    return None if shown is None else {**shown, "version": None}


def untimed(row: Any) -> dict[str, Any] | None:
    """A row without what differs by store: its name, and when things were."""
    if row is None:
        return None
    names = [field.name for field in fields(row) if not field.name.endswith("_at")]
    return {name: getattr(row, name) for name in names if name != "call_id"}
