"""What becomes of observed calls of which nothing more is heard."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_celery.core.clock import ManualClock
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.memory import MemoryTrackingStore
from lrp_celery.tracking.merge import merge
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.record import AttemptOutcome, CallRecord, Turn
from lrp_celery.tracking.reports import (
    NO_ERROR,
    Again,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    GivenUp,
    NeverSent,
    NotRun,
    Outcome,
    PublishFailed,
    Report,
    RunFacts,
    Started,
    Stopping,
    Unwound,
)
from lrp_celery.tracking.rescue import ALIVE, UNKNOWN, Fate, Patience, Roster, Suspicion, judge
from lrp_celery.tracking.rescuer import Rescuer
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import MAX_ERROR

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
PATIENCE = Patience.of(silent_after=86_400, lease=10, redelivery=65 * 60)
GONE = Fate(gone_since=NOON)

BOOT = "0123456789ab"


def token(boot_id: str = BOOT, number: int = 1) -> str:
    return f"{number:014x}-{boot_id}-4711-{number}"


def run(boot_id: str = BOOT, number: int = 1, *, late: bool = False) -> RunFacts:
    return RunFacts(token=token(boot_id, number), worker="celery@atlas", pid=7, acks_late=late)


def enqueued(call_id: str = "x", **facts: Any) -> Enqueued:
    return Enqueued(call_id=call_id, facts=CallFacts(task="shop.charge", **facts))


def started(call_id: str = "x", **how: Any) -> Started:
    return Started(call_id=call_id, run=run(**how))


def stop(reason: Reason) -> Stopping:
    return Stopping(call_id="x", run=run(), reason=reason)


OOPS = ErrorFacts(type="OperationalError", message="connection refused")
PUBLISH_FAILED = PublishFailed(call_id="x", error=OOPS)


class World:
    """Some calls and workers in memory, and a rescuer that lives with them."""

    def __init__(self, *reports: Report, patience: Patience = PATIENCE) -> None:
        self.clock = ManualClock(NOON)
        self.store = MemoryTrackingStore(self.clock, Timing(lease=10))
        self.rescuer = Rescuer(self.store, patience)
        self.tell(*reports)

    def tell(self, *reports: Report) -> None:
        for report in reports:
            assert self.store.report(report)

    def beat(self, boot_id: str = BOOT) -> None:
        self.store.beat(WorkerFacts(boot_id=boot_id, name="celery@atlas", host="h", pid=1, pool="prefork"))

    def pass_by(self, duration: timedelta) -> int:
        """Let time pass; return how many calls a rescuer judges then, who has been alive all the while."""
        self.clock.advance(duration)
        self.beat("our own boot")
        return self.rescuer.round(10)

    def record(self, call_id: str = "x") -> CallRecord:
        record = self.store.look(call_id)
        assert record is not None
        return record

    def stands(self, call_id: str = "x") -> tuple[str, str | None]:
        return self.record(call_id).status.value, self.record(call_id).reason

    def runs(self, call_id: str = "x") -> list[tuple[str | None, bool]]:
        return [(attempt.outcome, attempt.late) for attempt in self.store.attempts(call_id)]


def life_of(*reports: Report) -> CallRecord:
    return World(*reports).record()


DAY = PATIENCE.silent
WINDOW = PATIENCE.redelivery
EARLY, LATE = started(), started(late=True)
DUE = enqueued(due_at=NOON + HOUR)
EXPIRING = enqueued(expires_at=NOON + MINUTE)
UNWOUND = Unwound(call_id="x", run=run())
UNWOUND_LATE = Unwound(call_id="x", run=run(late=True))

#: What has been heard, of a worker that is what, and after how long it becomes what. Before that: nothing.
CASES: dict[str, tuple[list[Report], Fate, timedelta | None, str]] = {
    "silent in its queue": ([enqueued()], UNKNOWN, DAY, "discarded lost"),
    "silent since it was due": ([DUE], UNKNOWN, HOUR + DAY, "discarded lost"),
    "silent, whoever else lives": ([enqueued()], ALIVE, DAY, "discarded lost"),
    "could not be sent": ([enqueued(), PUBLISH_FAILED], UNKNOWN, DAY, "discarded publish_failed"),
    "could not be sent, and expired": ([EXPIRING, PUBLISH_FAILED], UNKNOWN, MINUTE + 30 * SECOND, "discarded publish_failed"),
    "expired in its queue": ([EXPIRING], UNKNOWN, MINUTE + 30 * SECOND, "discarded expired"),
    "expired before it was due": ([enqueued(due_at=NOON + HOUR, expires_at=NOON + MINUTE)], UNKNOWN, MINUTE + 30 * SECOND, "discarded expired"),
    "runs, and expired meanwhile": ([EXPIRING, EARLY], ALIVE, None, ""),
    "runs": ([enqueued(), EARLY], ALIVE, None, ""),
    "runs nobody knows where": ([enqueued(), EARLY], UNKNOWN, DAY, "discarded lost"),
    "runs nobody knows where, acknowledged late": ([enqueued(), LATE], UNKNOWN, DAY, "discarded lost"),
    "its worker is gone": ([enqueued(), EARLY], GONE, timedelta(0), "failed worker_lost"),
    "its worker is gone, acknowledged late": ([enqueued(), LATE], GONE, timedelta(0), "retrying None"),
    "told to stop, and its worker is gone": ([enqueued(), EARLY, stop(Reason.REVOKED)], GONE, timedelta(0), "discarded revoked"),
    "told to stop, acknowledged late": ([enqueued(), LATE, stop(Reason.REVOKED)], GONE, timedelta(0), "discarded revoked"),
    "given up by its worker, which is gone": ([enqueued(), EARLY, stop(Reason.WORKER_LOST)], GONE, timedelta(0), "failed worker_lost"),
    "cut off, acknowledged late": ([enqueued(), LATE, UNWOUND_LATE], GONE, WINDOW, "failed worker_lost"),
    "cut off, acknowledged late, in a worker that lives": ([enqueued(), LATE, UNWOUND_LATE], ALIVE, WINDOW, "failed worker_lost"),
    "cut off": ([enqueued(), EARLY, UNWOUND], GONE, timedelta(0), "failed worker_lost"),
    "cut off in a worker that lives": ([enqueued(), EARLY, UNWOUND], ALIVE, WINDOW, "failed worker_lost"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_a_call_and_when(name: str) -> None:
    reports, worker, after, expected = CASES[name]
    record = life_of(*reports)
    if after is None:
        assert judge(record, worker, NOON + 100 * DAY, PATIENCE) is None
        return
    if after:
        assert judge(record, worker, NOON + after - SECOND, PATIENCE) is None
    verdict = judge(record, worker, NOON + after, PATIENCE)
    assert verdict is not None
    merged = merge(record, None, verdict, NOON + after)
    assert merged is not None
    assert f"{merged.record.status.value} {merged.record.reason}" == expected
    assert merged.record.last_error, "a person can read why"


def test_a_verdict_says_why() -> None:
    words = {
        name: _words(reports, fate, after) for name, (reports, fate, after, _) in CASES.items() if after is not None
    }
    assert words["its worker is gone"] == (
        "Its worker celery@atlas is gone, last heard of at 2026-01-01 12:00:00 UTC. "
        "Nobody else runs it: it was acknowledged before."
    )
    assert words["its worker is gone, acknowledged late"].endswith(" The broker delivers the message again.")
    assert words["silent since it was due"] == (
        "Nobody has spoken of it for 24 h, since 2026-01-01 13:00:00 UTC. Its message must have been lost."
    )
    assert words["expired in its queue"] == (
        "It had to start before 2026-01-01 12:01:00 UTC, and no worker has said that it did."
    )
    assert words["could not be sent"] == (
        "It could not be sent, and no worker has heard of it since. OperationalError: connection refused"
    )
    assert words["cut off, acknowledged late"] == (
        "Its run was cut off at 2026-01-01 12:00:00 UTC, and not delivered again for 65 min."
    )


def _words(reports: list[Report], worker: Fate, after: timedelta) -> str:
    record = life_of(*reports)
    verdict = judge(record, worker, NOON + after, PATIENCE)
    assert verdict is not None
    merged = merge(record, None, verdict, NOON + after)
    assert merged is not None
    return merged.record.last_error or ""


def test_the_words_fit_into_the_row() -> None:
    failed = PublishFailed(call_id="x", error=ErrorFacts(type="E" * 255, message="m" * MAX_ERROR))
    assert len(_words([enqueued(), failed], UNKNOWN, DAY)) == MAX_ERROR


def test_what_somebody_asked_to_end_has_been_aborted_however_it_ended() -> None:
    for reports, worker in (
        ([enqueued()], UNKNOWN),
        ([enqueued(), EARLY], GONE),
        ([enqueued(), LATE, UNWOUND_LATE], GONE),
    ):
        record = replace(life_of(*reports), abort_requested_at=NOON)
        verdict = judge(record, worker, NOON + DAY, PATIENCE)
        assert isinstance(verdict, GivenUp)
        merged = merge(record, None, verdict, NOON + DAY)
        assert merged is not None
        assert (merged.record.status, merged.record.reason) == (CallStatus.ABORTED, Reason.ABORTED)


# --- The rescuer ----------------------------------------------------------------------


def test_a_call_whose_worker_is_gone_fails_after_three_leases() -> None:
    world = World(enqueued(), EARLY)
    world.beat()
    assert world.pass_by(29 * SECOND) == 0
    assert world.stands() == ("started", None)
    assert world.pass_by(SECOND) == 1
    assert world.stands() == ("failed", "worker_lost")
    assert (world.record().error_type, world.record().run_outcome) == ("WorkerLost", AttemptOutcome.INTERRUPTED)
    assert world.runs() == [("interrupted", False)]
    assert world.pass_by(DAY) == 0


def test_one_that_acknowledges_late_is_marked_and_may_run_again() -> None:
    world = World(enqueued(), LATE)
    world.beat()
    assert world.pass_by(30 * SECOND) == 1
    assert (world.stands(), world.record().run_outcome) == (("retrying", None), AttemptOutcome.INTERRUPTED)
    assert world.pass_by(WINDOW - SECOND) == 0
    again = run("ba9876543210", 2, late=True)
    world.tell(Started(call_id="x", run=replace(again, redelivered=True)))
    assert (world.stands(), world.record().last_error) == (("started", None), None)
    world.tell(Ended(call_id="x", run=again, outcome=Outcome(status=CallStatus.SUCCEEDED)))
    assert world.stands() == ("succeeded", None)
    assert world.runs() == [("interrupted", False)]
    assert world.store.attempts("x")[0].last_error is not None


def test_one_that_does_not_come_back_fails_when_it_should_have() -> None:
    world = World(enqueued(), LATE)
    world.beat()
    assert world.pass_by(30 * SECOND) == 1
    assert world.pass_by(WINDOW) == 1
    assert world.stands() == ("failed", "worker_lost")
    assert world.runs() == [("interrupted", False)]


@pytest.mark.parametrize("end", [CallStatus.SUCCEEDED, CallStatus.FAILED])
def test_what_a_run_says_after_it_was_given_up_is_a_late_end(end: CallStatus) -> None:
    world = World(enqueued(), EARLY)
    world.beat()
    world.pass_by(30 * SECOND)
    before = world.record()
    world.tell(Ended(call_id="x", run=run(), outcome=Outcome(status=end)))
    after = world.record()
    assert (after.status, after.reason, after.last_error) == (before.status, before.reason, before.last_error)
    assert (after.late_runs, world.runs()) == (1, [(end, True)])
    assert not world.store.report(Ended(call_id="x", run=run(), outcome=Outcome(status=end))), "once is enough"


def test_a_run_after_its_call_was_given_up_is_a_late_one() -> None:
    world = World(enqueued())
    world.beat()
    assert world.pass_by(DAY) == 1
    world.clock.advance(SECOND)
    world.tell(EARLY)
    assert (world.stands(), world.record().late_runs) == (("discarded", "lost"), 1)


def test_a_call_whose_worker_lives_is_left_alone_however_slow_it_is() -> None:
    world = World(enqueued(), EARLY)
    for _ in range(5):
        world.clock.advance(DAY)
        world.beat()
        assert world.pass_by(10 * SECOND) == 0
    assert world.stands() == ("started", None)


def test_a_worker_that_has_said_goodbye_has_three_leases_for_its_last_reports() -> None:
    world = World(enqueued(), EARLY)
    world.beat()
    assert world.pass_by(SECOND) == 0
    world.store.forget_worker(BOOT)
    assert world.pass_by(28 * SECOND) == 0
    assert world.pass_by(2 * SECOND) == 1
    assert world.stands() == ("failed", "worker_lost")


def test_a_worker_that_nobody_has_seen_is_not_known_to_be_gone() -> None:
    world = World(enqueued(), EARLY)
    assert world.pass_by(HOUR) == 0
    assert world.pass_by(DAY) == 1
    assert world.stands() == ("discarded", "lost")


def test_silence_of_everybody_is_nobodys() -> None:
    """The store was away, or the machine stood still: whoever judges must have been heard meanwhile."""
    roster = Roster.of({"a": NOON, "b": NOON + 29 * SECOND}, {}, PATIENCE.gone)
    assert roster.alive == {"a", "b"}
    assert not roster.gone


def test_what_comes_while_it_is_judged_is_not_judged() -> None:
    world = World(enqueued(), EARLY)
    judged = world.record()
    verdict = judge(judged, GONE, NOON, PATIENCE)
    assert verdict is not None
    world.tell(Ended(call_id="x", run=run(), outcome=Outcome(status=CallStatus.SUCCEEDED)))
    assert not world.store.conclude(judged, verdict)
    assert world.stands() == ("succeeded", None)


def test_all_calls_of_a_dead_worker_are_found_among_many_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrp_celery.tracking.memory.STRETCH", 10)
    monkeypatch.setattr("lrp_celery.tracking.rescuer.BRIEF", -1)
    world = World()
    for number in range(100):
        world.clock.advance(SECOND)
        world.tell(enqueued(str(number)))
    lost = [str(number) for number in range(0, 100, 7)]
    world.tell(*(started(call_id, number=int(call_id)) for call_id in lost))
    world.beat()
    # A stretch at a time as long as nobody has died, all of them then.
    assert world.pass_by(SECOND) == 0
    assert world.pass_by(30 * SECOND) == len(lost)
    assert {world.stands(call_id) for call_id in lost} == {("failed", "worker_lost")}


def test_short_rounds_reach_every_call_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrp_celery.tracking.memory.STRETCH", 10)
    world = World()
    for number in range(35):
        world.clock.advance(SECOND)
        world.tell(enqueued(str(number), expires_at=NOON + HOUR))
    monkeypatch.setattr("lrp_celery.tracking.rescuer.BRIEF", 0)
    world.clock.advance(2 * HOUR)
    assert sum(world.pass_by(SECOND) for _ in range(35)) == 35
    assert {world.stands(str(number)) for number in range(35)} == {("discarded", "expired")}


# --- Whatever a row holds ---------------------------------------------------------------


instants = st.none() | st.timedeltas(-2 * DAY, 2 * DAY).map(lambda distance: NOON + distance)


def fate_of(record: CallRecord, worker: Fate) -> Fate:
    """Of what has not run no worker is known."""
    return UNKNOWN if record.run is None else worker


fates = st.sampled_from([ALIVE, UNKNOWN, GONE])


@st.composite
def records(draw: st.DrawFn) -> CallRecord:
    """Rows, likely and unlikely ones."""
    status = draw(st.sampled_from(list(CallStatus)))
    return CallRecord(
        call_id="x",
        task="t",
        status=status,
        terminal_at=NOON if status.is_terminal else None,
        enqueued_at=NOON - 3 * DAY,
        updated_at=draw(instants) or NOON,
        due_at=draw(instants),
        expires_at=draw(instants),
        published_at=draw(instants),
        run=draw(st.sampled_from([None, token()])),
        run_outcome=draw(st.sampled_from([None, *AttemptOutcome])),
        acks_late=draw(st.booleans()),
        owned=draw(st.sampled_from([False, False, False, True])),
        stop_reason=draw(st.sampled_from([None, Reason.REVOKED, Reason.WORKER_LOST])),
        abort_requested_at=draw(st.sampled_from([None, NOON])),
        runs=draw(st.integers(0, 2)),
    )


@given(records(), fates)
def test_whoever_would_be_judged_is_a_suspect(record: CallRecord, worker: Fate) -> None:
    worker = fate_of(record, worker)
    verdict = judge(record, worker, NOON, PATIENCE)
    gone = {BOOT} if worker is GONE else set()
    if verdict is not None:
        assert Suspicion.at(NOON, PATIENCE, gone).falls_on(record)


@given(records(), fates)
def test_a_verdict_always_changes_an_open_observed_row_and_no_other(record: CallRecord, worker: Fate) -> None:
    worker = fate_of(record, worker)
    verdict = judge(record, worker, NOON, PATIENCE)
    if record.owned or record.status.is_terminal:
        assert verdict is None
    if verdict is None:
        return
    merged = merge(record, None, verdict, NOON)
    assert merged is not None
    after = merged.record
    assert after.status.is_terminal == isinstance(verdict, GivenUp)
    assert after.last_error
    unchanged = {"call_id", "task", "enqueued_at", "run", "worker", "pid", "retries", "nesting", "runs", "owned"}
    assert all(getattr(after, name) == getattr(record, name) for name in unchanged)
    assert judge(after, worker, NOON, PATIENCE) is None, "and that is all for now"


@given(records(), st.timedeltas(timedelta(0), 2 * DAY))
def test_a_verdict_does_not_lapse(record: CallRecord, later: timedelta) -> None:
    if judge(record, UNKNOWN, NOON, PATIENCE) is not None:
        assert judge(record, UNKNOWN, NOON + later, PATIENCE) is not None


# --- Reports ----------------------------------------------------------------------------


def test_a_report_that_does_not_fit_the_row_changes_nothing() -> None:
    outcome = Outcome(status=CallStatus.FAILED, reason=Reason.WORKER_LOST, error=NO_ERROR)
    for other in (None, run("ba9876543210", 2)):
        world = World(enqueued(), EARLY)
        assert not world.store.report(GivenUp(call_id="x", run=other, outcome=outcome))
    world = World(enqueued(), NotRun(call_id="x", outcome=outcome))
    assert not world.store.report(GivenUp(call_id="x", run=None, outcome=outcome))


NEVER = NeverSent(
    call_id="x", facts=CallFacts(task="t"), outcome=Outcome(status=CallStatus.DISCARDED, reason=Reason.LOST)
)


def test_what_is_never_sent_has_a_row_that_has_ended() -> None:
    world = World(NEVER)
    assert (world.stands(), world.record().published_at, world.runs()) == (("discarded", "lost"), None, [])
    assert not world.store.report(NEVER)


def test_what_was_sent_all_the_same_is_left_alone() -> None:
    for reports in ([enqueued()], [enqueued(), EARLY], [enqueued(), EARLY, UNWOUND]):
        world = World(*reports)
        before = world.record()
        assert not world.store.report(NEVER)
        assert world.record() == before


def test_what_is_after_a_step_that_was_sent_is_not_known_to_be_never_sent() -> None:
    world = World(enqueued("next"))
    assert not world.store.report(replace(NEVER, after="next"))
    assert world.store.look("x") is None
    world.tell(replace(NEVER, call_id="also never"), replace(NEVER, after="also never"))
    assert world.stands() == ("discarded", "lost")


def test_a_replaced_call_whose_last_part_is_never_sent_ends() -> None:
    world = World(enqueued(), EARLY, Ended(call_id="x", run=run(), outcome=Again.REPLACED))
    assert not world.store.report(NEVER)
    world.tell(replace(NEVER, turn=Turn(1, 0), facts=None))
    assert (world.stands(), world.runs()) == (("discarded", "lost"), [("replaced", False)])
