"""The merge rule by example: one test for each thing it decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lrp_celery.core.clock import ManualClock
from lrp_celery.tracking.memory import MemoryTrackingStore
from lrp_celery.tracking.record import AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import (
    Again,
    AttemptRecorded,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
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
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import Merged

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DUE = NOON + timedelta(hours=1)
FACTS = CallFacts(task="t", enqueued_at=NOON)
OOPS = ErrorFacts(type="ValueError", message="oops", traceback="Traceback: oops", http_status=500)

SUCCEEDED = Outcome(status=CallStatus.SUCCEEDED)
FAILED = Outcome(status=CallStatus.FAILED, error=OOPS)
REVOKED = Outcome(status=CallStatus.DISCARDED, reason=Reason.REVOKED)
EXPIRED = Outcome(status=CallStatus.DISCARDED, reason=Reason.EXPIRED)


def run(token: str, *, late: bool = False) -> RunFacts:
    return RunFacts(token=token, worker=f"w{token}", pid=int(token), acks_late=late, started_at=NOON)


ONE, TWO, THREE = run("1"), run("2"), run("3")


class Call:
    """One call in memory; every report arrives a second after the one before."""

    def __init__(self, *reports: Report) -> None:
        self.clock = ManualClock(NOON)
        self.store = MemoryTrackingStore(self.clock)
        for report in reports:
            self.tell(report)

    def tell(self, report: Report) -> bool:
        self.clock.advance(timedelta(seconds=1))
        return self.store.report(report)

    @property
    def record(self) -> CallRecord:
        record = self.store._find("x", None).record
        assert record is not None
        return record

    @property
    def stands(self) -> tuple[str, str]:
        return self.record.status.value, str(self.record.reason or "")

    @property
    def runs(self) -> dict[str, AttemptRecord]:
        return {attempt.run: attempt for attempt in self.store.attempts("x")}

    @property
    def fates(self) -> dict[str, str | None]:
        return {token: attempt.outcome for token, attempt in self.runs.items()}


def told(kind: type[Any], retries: int = 0, *, nesting: int = 0, **details: Any) -> Report:
    report: Report = kind(call_id="x", turn=Turn(nesting, retries), facts=FACTS, **details)
    return report


def enqueued() -> Report:
    return told(Enqueued)


def started(who: RunFacts, retries: int = 0, *, nesting: int = 0) -> Report:
    return told(Started, retries, nesting=nesting, run=who)


def ended(who: RunFacts | None, outcome: Outcome | Again, retries: int = 0, **details: Any) -> Report:
    return told(Ended, retries, run=who, outcome=outcome, **details)


def stopping(
    who: RunFacts | None, reason: Reason = Reason.REVOKED, retries: int = 0, *, certain: bool = False
) -> Report:
    return told(Stopping, retries, run=who, reason=reason, certain=certain)


# --- making the row -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (enqueued(), "submitted"),
        (told(Waiting, 1), "retrying"),
        (told(Waiting, 0, nesting=1), "retrying"),
        (started(ONE), "started"),
        (ended(ONE, SUCCEEDED), "succeeded"),
        (ended(None, FAILED), "failed"),
        (ended(ONE, Again.RETRIED), "retrying"),
        (told(Unwound, run=ONE), "started"),
        (stopping(ONE), "started"),
        (told(NotRun, outcome=REVOKED), "discarded"),
        (told(PublishFailed, error=OOPS), "submitted"),
        (told(Published), "submitted"),
    ],
)
def test_any_report_with_facts_makes_the_row(report: Report, status: str) -> None:
    assert Call(report).record.status == status


@pytest.mark.parametrize("kind", [Started, Unwound, Stopping])
def test_a_report_without_facts_makes_none(kind: type[Any]) -> None:
    details = {"reason": Reason.REVOKED} if kind is Stopping else {}
    store = MemoryTrackingStore(ManualClock(NOON))
    assert not store.report(kind(call_id="x", run=ONE, **details))
    assert store.get_status("x") is None


def test_recording_by_hand_never_makes_a_row() -> None:
    store = MemoryTrackingStore(ManualClock(NOON))
    assert not store.report(AttemptRecorded(call_id="x", status=CallStatus.STARTED))
    assert not store.report(TerminalRecorded(call_id="x", outcome=FAILED))
    assert store.get_status("x") is None


def test_enqueued_after_the_start_changes_nothing() -> None:
    call = Call(started(ONE))
    before = call.record
    assert not call.tell(enqueued())
    assert call.record == before


def test_a_publish_that_failed_leaves_the_call_open_with_the_error_and_unpublished() -> None:
    call = Call(enqueued(), told(PublishFailed, error=OOPS))
    assert call.stands == ("submitted", "")
    assert (call.record.error_type, call.record.published_at) == ("ValueError", None)


def test_a_publish_that_failed_but_ran_all_the_same_is_no_news() -> None:
    call = Call(enqueued(), started(ONE))
    assert not call.tell(told(PublishFailed, error=OOPS))
    assert call.record.error_type is None


def test_a_publish_that_succeeds_after_one_that_failed_clears_the_error() -> None:
    call = Call(enqueued(), told(PublishFailed, error=OOPS), told(Published))
    assert call.stands == ("submitted", "")
    assert (call.record.error_type, call.record.last_error, call.record.http_status) == (None, None, None)
    assert call.record.published_at == NOON + timedelta(seconds=3)
    assert not call.tell(told(Published))


def test_a_publish_that_failed_once_more_is_shown_again() -> None:
    failed = told(PublishFailed, error=OOPS)
    call = Call(enqueued(), failed, told(Published), failed)
    assert (call.record.error_type, call.record.published_at) == ("ValueError", None)


def test_a_publish_that_succeeded_is_told_of_a_call_that_already_runs_and_says_nothing_of_its_error() -> None:
    call = Call(enqueued(), told(PublishFailed, error=OOPS), started(ONE), ended(ONE, Again.REQUEUED, error=OOPS))
    before = call.record
    assert call.tell(told(Published))
    assert (call.record.status, call.record.error_type) == (before.status, before.error_type)
    assert call.record.published_at is not None


def test_a_publish_that_succeeded_is_no_news_of_a_later_turn_or_of_what_has_ended() -> None:
    assert not Call(enqueued(), told(Waiting, 1)).tell(told(Published))
    assert not Call(enqueued(), started(ONE), ended(ONE, SUCCEEDED)).tell(told(Published))


# --- runs -----------------------------------------------------------------------------


def test_a_start_says_who_runs_it() -> None:
    call = Call(enqueued(), started(ONE))
    record = call.record
    assert (record.status, record.attempt, record.runs, record.run) == ("started", 1, 1, "1")
    assert (record.worker, record.pid, record.started_at) == ("w1", 1, NOON)
    assert call.runs == {}


def test_a_plain_success_needs_no_second_row() -> None:
    call = Call(enqueued(), started(ONE), ended(ONE, SUCCEEDED))
    assert call.stands == ("succeeded", "")
    assert call.record.terminal_at == call.clock.now()
    assert call.runs == {}


def test_a_failure_is_kept_with_its_traceback() -> None:
    call = Call(enqueued(), started(ONE), ended(ONE, FAILED))
    assert (call.record.last_error, call.record.error_type, call.record.http_status) == ("oops", "ValueError", 500)
    assert (call.runs["1"].outcome, call.runs["1"].traceback) == ("failed", "Traceback: oops")


def test_an_end_without_its_start_counts_as_a_run() -> None:
    call = Call(enqueued(), ended(ONE, SUCCEEDED))
    assert (call.record.attempt, call.record.runs, call.record.worker) == (1, 1, "w1")


def test_an_end_by_somebody_who_does_not_know_the_run_is_the_present_runs() -> None:
    call = Call(enqueued(), started(ONE), ended(None, FAILED))
    assert call.stands == ("failed", "")
    assert call.fates == {"1": "failed"}


def test_an_unnamed_end_means_a_run_not_heard_of_yet_if_the_present_one_was_requeued() -> None:
    call = Call(started(ONE), ended(ONE, Again.REQUEUED), ended(None, FAILED))
    assert call.stands == ("failed", "")
    assert call.fates == {"1": "requeued"}


def test_an_unnamed_end_of_an_earlier_turn_says_nothing() -> None:
    call = Call(started(ONE, 1))
    assert not call.tell(ended(None, FAILED, 0))


def test_an_unnamed_end_of_a_later_turn_ends_the_call_in_that_turn() -> None:
    call = Call(started(ONE), ended(None, FAILED, 1))
    assert (call.stands, call.record.retries) == (("failed", ""), 1)
    assert call.fates == {"1": None}


def test_an_unnamed_requeue_of_a_run_not_heard_of_is_no_news() -> None:
    assert not Call(enqueued()).tell(ended(None, Again.REQUEUED))


def test_what_the_main_process_said_first_is_completed_by_the_run_itself() -> None:
    call = Call(stopping(RunFacts(token="1", worker="w1")))
    assert (call.record.pid, call.record.acks_late) == (None, False)
    call.tell(started(run("1", late=True)))
    assert (call.record.pid, call.record.acks_late, call.record.started_at) == (1, True, NOON)
    assert (call.record.runs, call.record.stop_reason) == (1, Reason.REVOKED)


def test_the_time_of_a_worker_is_kept_between_enqueueing_and_now() -> None:
    early = RunFacts(token="1", pid=1, started_at=NOON - timedelta(days=1))
    ahead = RunFacts(token="1", pid=1, started_at=NOON + timedelta(days=1))
    assert Call(started(early)).record.started_at == NOON
    assert Call(started(ahead)).record.started_at == NOON + timedelta(seconds=1)


def test_a_redelivered_run_takes_the_place_of_the_one_before() -> None:
    call = Call(started(ONE), started(TWO))
    assert (call.record.run, call.record.attempt, call.record.status) == ("2", 2, "started")
    assert call.fates == {"1": None}


def test_an_earlier_run_that_is_heard_of_later_does_not() -> None:
    call = Call(started(TWO), started(ONE))
    assert (call.record.run, call.record.attempt, call.record.runs) == ("2", 1, 2)
    assert call.runs["1"].number == 2


def test_a_requeued_run_leaves_the_call_waiting_for_the_same_turn() -> None:
    call = Call(started(ONE), ended(ONE, Again.REQUEUED, error=OOPS))
    assert (call.stands, call.record.turn) == (("retrying", ""), Turn(0, 0))
    assert call.fates == {"1": "requeued"}
    call.tell(started(TWO))
    assert (call.stands, call.record.run) == (("started", ""), "2")


@pytest.mark.parametrize(("late", "status"), [(True, "retrying"), (False, "started")])
def test_a_run_unwound_from_outside_waits_for_the_broker_only_if_the_broker_has_its_message(
    late: bool, status: str
) -> None:
    call = Call(started(run("1", late=late)), told(Unwound, run=ONE))
    assert call.record.status == status
    assert call.fates == {"1": "interrupted"}


def test_an_unwound_run_may_still_be_given_its_true_end() -> None:
    call = Call(started(ONE), told(Unwound, run=ONE), ended(ONE, FAILED))
    assert call.stands == ("failed", "")
    assert call.fates == {"1": "failed"}


def test_the_unwinding_of_another_run_is_only_its_own_news() -> None:
    call = Call(started(ONE), started(TWO), told(Unwound, run=ONE), told(Unwound, run=ONE))
    assert (call.record.status, call.record.run) == ("started", "2")
    assert call.fates == {"1": "interrupted"}


# --- turns ----------------------------------------------------------------------------


def test_a_retry_moves_the_call_on_and_keeps_its_error() -> None:
    call = Call(started(ONE), ended(ONE, Again.RETRIED, error=OOPS))
    assert (call.record.status, call.record.retries, call.record.run) == ("retrying", 1, None)
    assert call.record.last_error == "oops"
    assert call.fates == {"1": "retried"}


def test_a_replacement_moves_the_call_to_the_next_nesting_with_no_retries() -> None:
    call = Call(started(ONE, 3), ended(ONE, Again.REPLACED, 3))
    assert (call.record.status, call.record.turn) == ("retrying", Turn(1, 0))


def test_the_retry_is_published_before_its_run_has_ended() -> None:
    call = Call(started(ONE), told(Waiting, 1, due_at=DUE), ended(ONE, Again.RETRIED, error=OOPS))
    assert (call.record.status, call.record.retries, call.record.due_at) == ("retrying", 1, DUE)
    assert call.record.last_error == "oops"
    call.tell(started(TWO, 1))
    assert call.stands == ("started", "")
    assert call.record.last_error is None


def test_a_waiting_that_comes_after_the_retry_adds_when_it_is_due() -> None:
    call = Call(started(ONE), ended(ONE, Again.RETRIED, error=OOPS), told(Waiting, 1, due_at=DUE))
    assert (call.record.due_at, call.record.last_error) == (DUE, "oops")


def test_the_end_of_an_earlier_turn_does_not_pull_the_call_back() -> None:
    call = Call(started(ONE), told(Waiting, 1), started(TWO, 1), ended(ONE, Again.RETRIED, error=OOPS))
    assert (call.record.status, call.record.retries, call.record.last_error) == ("started", 1, None)
    assert call.fates == {"1": "retried"}


def test_a_success_of_an_earlier_turn_is_not_the_calls() -> None:
    call = Call(started(ONE), told(Waiting, 1), ended(ONE, SUCCEEDED))
    assert (call.stands, call.record.retries) == (("retrying", ""), 1)
    assert call.fates == {"1": "succeeded"}


def test_nesting_outweighs_retries() -> None:
    call = Call(started(ONE, 5), started(TWO, nesting=1))
    assert (call.record.turn, call.record.run) == (Turn(1, 0), "2")


def test_of_two_runs_of_one_turn_the_first_end_decides() -> None:
    call = Call(started(ONE), started(TWO), ended(ONE, FAILED))
    assert (call.stands, call.record.run, call.record.worker) == (("failed", ""), "1", "w1")
    call.tell(ended(TWO, SUCCEEDED))
    assert call.stands == ("failed", "")
    assert call.fates == {"1": "failed", "2": "succeeded"}
    assert (call.runs["2"].late, call.record.late_runs) == (True, 1)


# --- after the end --------------------------------------------------------------------


def test_a_run_that_begins_after_the_end_is_late_and_counted() -> None:
    call = Call(started(ONE), ended(ONE, SUCCEEDED))
    call.clock.advance(timedelta(minutes=1))
    again = RunFacts(token="2", pid=2, started_at=call.clock.now())
    before = call.record
    call.tell(told(Started, run=again))
    assert (call.record.late_runs, call.runs["2"].late) == (1, True), "as soon as it begins"
    call.tell(told(Ended, run=again, outcome=FAILED))
    assert (call.record.status, call.record.terminal_at) == ("succeeded", before.terminal_at)
    assert (call.record.late_runs, call.record.runs) == (1, 2)
    assert call.runs["2"].late


def test_a_run_from_before_the_end_is_not_late_when_its_start_is_heard_late() -> None:
    call = Call(ended(TWO, SUCCEEDED), started(ONE), ended(ONE, Again.REQUEUED))
    assert (call.record.late_runs, call.runs["1"].late) == (0, False)
    assert call.fates == {"1": "requeued"}


def test_saying_the_end_again_changes_nothing() -> None:
    call = Call(started(ONE), ended(ONE, FAILED))
    before = call.record
    assert not call.tell(ended(ONE, FAILED))
    assert not call.tell(ended(ONE, SUCCEEDED))
    assert not call.tell(started(ONE))
    assert call.record == before


@pytest.mark.parametrize("report", [told(Waiting, 9), told(NotRun, 9, outcome=REVOKED), stopping(None, retries=9)])
def test_a_later_turn_does_not_reopen_what_has_ended(report: Report) -> None:
    call = Call(started(ONE), ended(ONE, SUCCEEDED))
    assert not call.tell(report)
    assert (call.stands, call.record.retries) == (("succeeded", ""), 0)


def test_the_true_end_of_a_run_whose_call_was_ended_by_others_is_kept_as_late() -> None:
    call = Call(started(ONE))
    assert call.store.record_terminal("x", "aborted", reason="aborted")
    call.tell(ended(ONE, SUCCEEDED))
    assert call.stands == ("aborted", "aborted")
    assert (call.fates, call.record.late_runs) == ({"1": "succeeded"}, 1)


# --- ends from outside ----------------------------------------------------------------


def test_a_message_dropped_before_any_run_ends_the_call() -> None:
    assert Call(enqueued(), told(NotRun, outcome=EXPIRED)).stands == ("discarded", "expired")


def test_a_message_dropped_while_a_run_is_under_way_leaves_the_word_to_the_run() -> None:
    call = Call(started(ONE), told(NotRun, outcome=REVOKED))
    assert call.stands == ("started", "")
    call.tell(ended(ONE, SUCCEEDED))
    assert call.stands == ("succeeded", "")


def test_a_message_dropped_while_a_run_is_under_way_decides_if_the_run_gives_up() -> None:
    unknown = Outcome(status=CallStatus.DISCARDED, reason=Reason.UNKNOWN_TASK, error=OOPS)
    for gives_up in (ended(ONE, Again.REQUEUED), told(Unwound, run=ONE)):
        call = Call(started(ONE), told(NotRun, outcome=unknown), gives_up)
        assert call.stands == ("discarded", "unknown_task")
        assert call.record.last_error == "oops"


def test_a_message_dropped_after_its_run_was_requeued_ends_the_call() -> None:
    in_order = Call(started(ONE), started(TWO), ended(TWO, Again.REQUEUED), told(NotRun, outcome=REVOKED))
    early_word = Call(started(ONE), told(NotRun, outcome=REVOKED), ended(TWO, Again.REQUEUED))
    assert in_order.stands == early_word.stands == ("discarded", "revoked")


def test_a_dropped_message_of_an_earlier_turn_says_nothing() -> None:
    assert not Call(started(ONE, 1)).tell(told(NotRun, outcome=REVOKED))


def test_a_dropped_message_of_a_later_turn_ends_the_call_and_keeps_the_run_of_before() -> None:
    call = Call(started(ONE), told(NotRun, 1, outcome=REVOKED))
    assert (call.stands, call.record.retries) == (("discarded", "revoked"), 1)
    assert call.fates == {"1": None}
    call.tell(started(ONE))
    assert call.record.runs == 1


def test_a_signal_sent_is_no_end_until_the_run_has_unwound() -> None:
    call = Call(started(ONE), stopping(ONE))
    assert call.stands == ("started", "")
    call.tell(told(Unwound, run=ONE))
    assert call.stands == ("discarded", "revoked")


def test_a_run_that_ends_by_itself_all_the_same_has_its_own_end() -> None:
    assert Call(started(ONE), stopping(ONE), ended(ONE, SUCCEEDED)).stands == ("succeeded", "")


@pytest.mark.parametrize("who", [ONE, None])
def test_the_word_of_the_signal_may_come_after_the_unwinding(who: RunFacts | None) -> None:
    assert Call(started(ONE), told(Unwound, run=ONE), stopping(who)).stands == ("discarded", "revoked")


@pytest.mark.parametrize("who", [ONE, None])
def test_the_word_of_the_signal_may_come_before_the_start(who: RunFacts | None) -> None:
    call = Call(enqueued(), stopping(who), started(ONE))
    assert call.stands == ("started", "")
    call.tell(told(Unwound, run=ONE))
    assert call.stands == ("discarded", "revoked")


@pytest.mark.parametrize("who", [ONE, None])
def test_nothing_survives_a_kill(who: RunFacts | None) -> None:
    assert Call(started(ONE), stopping(who, certain=True)).stands == ("discarded", "revoked")
    assert Call(enqueued(), stopping(who, certain=True), started(ONE)).stands == ("discarded", "revoked")


def test_a_worker_that_is_lost_fails_the_call() -> None:
    call = Call(started(ONE), stopping(ONE, Reason.WORKER_LOST, certain=True))
    assert call.stands == ("failed", "worker_lost")


def test_stopping_an_earlier_run_or_turn_does_not_touch_the_present_one() -> None:
    call = Call(started(ONE), started(TWO), stopping(ONE, certain=True))
    assert (call.stands, call.record.stop_reason) == (("started", ""), None)
    call = Call(started(TWO, 1), stopping(None, certain=True))
    assert (call.stands, call.record.stop_reason) == (("started", ""), None)


def test_the_first_reason_to_stop_stands() -> None:
    call = Call(started(ONE), stopping(ONE), stopping(ONE, Reason.WORKER_LOST), told(Unwound, run=ONE))
    assert call.stands == ("discarded", "revoked")


def test_a_revoked_call_whose_abort_was_asked_for_is_aborted() -> None:
    call = Call(enqueued())
    record = call.record
    assert call.store._write(Merged(replace(record, abort_requested_at=NOON)), record)
    call.tell(told(NotRun, outcome=REVOKED))
    assert call.stands == ("aborted", "aborted")


# --- recorded by hand -----------------------------------------------------------------


def test_recorded_attempts_count_by_their_retries() -> None:
    call = Call(enqueued())
    for retries in (0, 1, 1):
        assert call.store.record_attempt("x", "started", retries)
    assert (call.record.attempt, call.record.runs) == (2, 2)


def test_within_one_count_of_retries_a_recorded_attempt_does_not_go_back_to_submitted() -> None:
    call = Call(enqueued())
    assert call.store.record_attempt("x", "started", 1)
    assert not call.store.record_attempt("x", "submitted", 1)
    assert call.store.record_attempt("x", "submitted", 2)


def test_each_write_has_a_version_and_a_time_of_its_own() -> None:
    call = Call(enqueued())
    assert call.record.version == 0
    call.tell(started(ONE))
    assert (call.record.version, call.record.updated_at) == (1, call.clock.now())


def test_the_times_of_a_call_never_go_back() -> None:
    call = Call(Enqueued(call_id="x", facts=FACTS), Started(call_id="x", run=ONE))
    before = call.record.updated_at
    # Somebody waited to write, and read the clock before he did.
    call.clock.advance(-timedelta(seconds=10))
    call.tell(Ended(call_id="x", run=ONE, outcome=SUCCEEDED))
    assert call.record.terminal_at == call.record.updated_at == before
