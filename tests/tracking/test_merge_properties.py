"""The merge rule against random histories: any subset, any order, doubles.

`LRP_HYPOTHESIS=thorough` looks at many more of them, other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from lrp_celery.core.clock import ManualClock
from lrp_celery.tracking.memory import MemoryTrackingStore
from lrp_celery.tracking.merge import merge, run_of
from lrp_celery.tracking.record import AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import (
    Again,
    AttemptRecorded,
    Ended,
    Enqueued,
    ErrorFacts,
    GivenUp,
    NeverSent,
    NotRun,
    Outcome,
    Published,
    PublishFailed,
    Report,
    RunFacts,
    Started,
    Stopping,
    TerminalRecorded,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.status import OPEN, TERMINAL, Reason
from tests.tracking.histories import BEGIN, CALL_ID, FACTS, History, any_history, arrivals, clean

THOROUGH = os.environ.get("LRP_HYPOTHESIS") == "thorough"
#: After everything in a history, so that no worker's time has to be corrected.
LATER = BEGIN + timedelta(days=1)
#: What must never change again once a call has ended.
FINAL = (
    *("status", "reason", "last_error", "error_type", "http_status", "terminal_at"),
    *("retries", "nesting", "attempt", "worker", "started_at", "run"),
)
#: What a clean history decides, whatever the order of its reports.
DECIDED = ("status", "reason", "retries", "nesting", "last_error", "error_type", "http_status")


def property_test(examples: int = 300) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples * 20 if THOROUGH else examples,
        derandomize=not THOROUGH,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@dataclass
class Told:
    """A store that has been told reports, one a second, and what became of the call meanwhile."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(LATER))

    def __post_init__(self) -> None:
        self.store = MemoryTrackingStore(self.clock)

    def tell(self, report: Report) -> CallRecord | None:
        self.clock.advance(timedelta(seconds=1))
        self.store.report(report)
        return self.record

    @property
    def record(self) -> CallRecord | None:
        return self.store._find(CALL_ID, None).record

    @property
    def runs(self) -> dict[str, AttemptRecord]:
        return {attempt.run: attempt for attempt in self.store.attempts(CALL_ID)}


def after(reports: Iterable[Report]) -> Told:
    told = Told()
    for report in reports:
        told.tell(report)
    return told


def only(record: CallRecord | None, names: Sequence[str]) -> dict[str, Any] | None:
    return None if record is None else {name: getattr(record, name) for name in names}


# --- clean histories: the order of arrival does not matter ---------------------------


@property_test()
@given(clean())
def test_a_clean_history_told_in_full_and_in_order_gives_what_truly_happened(history: History) -> None:
    record = after(history.reports).record
    assert record is not None
    if history.end is None:
        assert record.status.is_open
    elif not blames_a_run_that_vanished(history.reports):
        assert (record.status, record.reason) == (history.end.status, history.end.reason)
        assert record.error_type == history.end.error.type


@property_test()
@given(st.data())
def test_any_subset_of_a_clean_history_gives_the_same_in_any_order(data: st.DataObject) -> None:
    history = data.draw(clean())
    subset, arrived = data.draw(arrivals(history))
    if blames_a_run_that_vanished(subset):
        return
    note(f"true order: {tell_short(subset)}")
    note(f"arrived: {tell_short(arrived)}")
    true, got = after(subset), after(arrived)
    assert only(got.record, DECIDED) == only(true.record, DECIDED)
    if all(names_its_run(report) for report in subset):
        assert only(got.record, ["run"]) == only(true.record, ["run"])
        assert fates(got) == fates(true)


def blames_a_run_that_vanished(reports: Sequence[Report]) -> bool:
    """Whether a message was dropped in a turn with a run that nobody reports the end of.

    Then the row cannot know whether that run is still under way: the rule lets it decide.
    """
    dropped = {report.turn for report in reports if isinstance(report, NotRun)}
    seen = {run_of(report) for report in reports if report.turn in dropped} - {None}
    ended = {run_of(report) for report in reports if isinstance(report, Ended | Unwound)}
    return not seen <= ended


def names_its_run(report: Report) -> bool:
    return not isinstance(report, NotRun) and not (isinstance(report, Ended | Stopping) and report.run is None)


def fates(told: Told) -> dict[str, Any]:
    """What became of the runs other than the one the call itself speaks of."""
    present = None if told.record is None else told.record.run
    return {run: (attempt.outcome, attempt.late) for run, attempt in told.runs.items() if run != present}


# --- all histories --------------------------------------------------------------------


@property_test()
@given(st.data())
def test_what_has_ended_never_changes_again(data: st.DataObject) -> None:
    _, arrived = data.draw(arrivals(data.draw(any_history())))
    told, final = Told(), None
    for report in arrived:
        record = told.tell(report)
        if final is not None:
            assert only(record, FINAL) == final
        elif record is not None and record.status.is_terminal:
            final = only(record, FINAL)


@property_test()
@given(st.data())
def test_the_outcome_is_a_true_one_of_the_highest_turn_known_when_the_call_ended(data: st.DataObject) -> None:
    _, arrived = data.draw(arrivals(data.draw(any_history())))
    note(f"arrived: {tell_short(arrived)}")
    told = Told()
    for place, report in enumerate(arrived):
        before, record = told.record, told.tell(report)
        if record is not None and record.status.is_terminal:
            runs = before is not None and before.is_running and before.turn == report.turn
            assert not (runs and isinstance(report, NotRun)), "ended by a dropped message while it runs"
            known = arrived[: place + 1]
            assert record.turn == max(spoken_of(known))
            assert (record.status, record.reason, record.error_type) in verdicts(known, record.turn)
            return
    record = told.record
    if record is not None:
        ends = {report.turn for report in arrived if isinstance(report, Ended) and isinstance(report.outcome, Outcome)}
        assert record.turn not in ends, "open, although a run of its turn has reported the call's end"


@property_test()
@given(st.data())
def test_there_is_one_row_and_each_run_counts_once(data: st.DataObject) -> None:
    _, arrived = data.draw(arrivals(data.draw(any_history())))
    told = after(arrived)
    assert len(told.store._records) == min(1, len(arrived))
    if told.record is not None:
        assert told.record.runs == len({run_of(report) for report in arrived} - {None})
    assert_consistent(told.record, told.runs)


@property_test()
@given(st.data())
def test_telling_everything_once_more_changes_nothing(data: st.DataObject) -> None:
    _, arrived = data.draw(arrivals(data.draw(clean())))
    once = after(arrived)
    twice = after([*arrived, *arrived])
    assert only(twice.record, DECIDED) == only(once.record, DECIDED)
    assert only(twice.record, ["runs", "run"]) == only(once.record, ["runs", "run"])


def spoken_of(reports: Sequence[Report]) -> set[Turn]:
    """The turns that the reports show to exist; a run that asks for another turn shows that one, too."""
    turns = {report.turn for report in reports if report.turn is not None}
    first_ends: dict[str | None, Ended] = {}
    for report in reports:
        if isinstance(report, Ended):
            first_ends.setdefault(run_of(report), report)
    asked = {
        end.outcome.turn_after(end.turn) for end in first_ends.values() if isinstance(end.outcome, Again) and end.turn
    }
    return turns | asked


def verdicts(reports: Sequence[Report], turn: Turn) -> set[tuple[Any, Any, Any]]:
    """How the reports of a turn say, or may mean, that the call ended."""
    found: set[tuple[Any, Any, Any]] = set()
    for report in reports:
        if report.turn != turn:
            continue
        if isinstance(report, Stopping):
            found |= {(status, report.reason, None) for status in TERMINAL}
        outcome = getattr(report, "outcome", None)
        if isinstance(outcome, Outcome):
            found.add((outcome.status, outcome.reason, outcome.error.type))
    return found


# --- all reports ----------------------------------------------------------------------

TURNS = st.one_of(st.none(), st.builds(Turn, st.integers(0, 2), st.integers(0, 2)))
RUNS = st.builds(
    RunFacts,
    token=st.sampled_from("pqr"),
    pid=st.one_of(st.none(), st.just(1)),
    acks_late=st.booleans(),
    started_at=st.one_of(st.none(), st.integers(-5, 5).map(lambda hours: LATER + timedelta(hours=hours))),
)
ERRORS = st.builds(ErrorFacts, type=st.one_of(st.none(), st.just("E")))
OUTCOMES = st.builds(
    Outcome,
    status=st.sampled_from(sorted(TERMINAL)),
    reason=st.one_of(st.none(), st.sampled_from(sorted(Reason))),
    error=ERRORS,
)
COMMON = {"call_id": st.just(CALL_ID), "turn": TURNS, "facts": st.one_of(st.none(), st.just(FACTS))}
MAYBE_RUN = st.one_of(st.none(), RUNS)
REPORTS = st.one_of(
    st.builds(Enqueued, **COMMON),
    st.builds(Waiting, due_at=st.one_of(st.none(), st.just(LATER)), **COMMON),
    st.builds(PublishFailed, error=ERRORS, **COMMON),
    st.builds(Published, **COMMON),
    st.builds(Started, run=RUNS, **COMMON),
    st.builds(Ended, run=MAYBE_RUN, outcome=st.one_of(OUTCOMES, st.sampled_from(Again)), error=ERRORS, **COMMON),
    st.builds(Unwound, run=RUNS, **COMMON),
    st.builds(Stopping, run=MAYBE_RUN, reason=st.sampled_from(sorted(Reason)), certain=st.booleans(), **COMMON),
    st.builds(NotRun, outcome=OUTCOMES, **COMMON),
    st.builds(NeverSent, outcome=OUTCOMES, **COMMON),
    st.builds(GivenUp, run=MAYBE_RUN, outcome=OUTCOMES, **COMMON),
    st.builds(AttemptRecorded, status=st.sampled_from(sorted(OPEN)), error=ERRORS, **COMMON),
    st.builds(TerminalRecorded, outcome=OUTCOMES, **COMMON),
)


@property_test(400)
@given(st.lists(REPORTS, max_size=12))
def test_merging_is_pure_and_accepts_any_report_on_any_row(reports: list[Report]) -> None:
    record: CallRecord | None = None
    runs: dict[str, AttemptRecord] = {}
    for place, report in enumerate(reports):
        now = LATER + timedelta(seconds=place)
        attempt = runs.get(run_of(report) or "")
        merged = merge(record, attempt, report, now)
        assert merge(record, attempt, report, now) == merged
        if merged is None:
            continue
        if record is not None and record.status.is_terminal:
            assert only(merged.record, FINAL) == only(record, FINAL)
        assert record is not None or report.facts is not None
        record = merged.record
        runs |= {attempt.run: attempt for attempt in merged.attempts}
    # `record_attempt` counts attempts as its caller does; numbers are ours only without it.
    ours = not any(isinstance(report, AttemptRecorded) for report in reports)
    assert_consistent(record, runs, numbered=ours)


def assert_consistent(record: CallRecord | None, runs: dict[str, AttemptRecord], *, numbered: bool = True) -> None:
    if record is None:
        assert not runs
        return
    assert record.status.is_terminal == (record.terminal_at is not None)
    assert record.status.is_terminal or record.reason is None
    assert record.late_runs == sum(attempt.late for attempt in runs.values())
    assert record.run_outcome is None or record.run is not None
    if not numbered:
        return
    numbers = [attempt.number for run, attempt in runs.items() if run != record.run]
    numbers += [record.attempt] if record.run is not None else []
    assert len(set(numbers)) == len(numbers)
    assert all(1 <= number <= record.runs for number in numbers)


def tell_short(reports: Sequence[Report]) -> str:
    return "; ".join(
        f"{type(report).__name__} {report.turn} {run_of(report) or ''} {getattr(report, 'outcome', '')}"
        for report in reports
    )
