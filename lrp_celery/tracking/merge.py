"""What a report changes: the one place that decides.

Pure: no clock, no store. The rule, in one sentence: the higher turn outweighs the lower,
within a turn the first terminal report wins, and what is terminal never changes again.

For histories whose runs do not overlap the result does not depend on the order of the
reports (but for a process's own news of its publishes), on doubles, or on what was lost besides: it is what the reports that did arrive
would give in their true order. (One thing nobody can know: whether a run whose end was lost is
still under way when its message is said to have been dropped. Then the run has the word.) Where runs overlap (one message delivered twice, a retry
published by a run that then succeeds) it is one of the true outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import (
    NO_ERROR,
    Again,
    AttemptRecorded,
    CallFacts,
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
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import (
    Merged,
    at_turn,
    attempt_of,
    begin,
    both,
    displaced,
    end,
    error_of,
    made,
    new_record,
    present,
    settle,
    settle_run,
    stopped,
    with_error,
    within,
)


def run_of(report: Report) -> str | None:
    """Return the token of the run a report speaks of: the attempt a store must look up for `merge`."""
    run: RunFacts | None = getattr(report, "run", None)
    return None if run is None else run.token


def merge(record: CallRecord | None, attempt: AttemptRecord | None, report: Report, now: datetime) -> Merged | None:
    """Return what `report` makes of a call, or None when it changes nothing.

    `record` is the call's row (None: there is none), `attempt` the row of the run that
    `run_of(report)` names (None: there is none), `now` the store's time.
    """
    if record is None:
        return None if report.facts is None else _create(report, report.facts, now)
    if record.removed_at is not None:
        return None
    # Who waited for others to write may have read the clock before them.
    now = max(now, record.updated_at)
    if record.owned:
        return owned.hear(record, report, now)
    changed = _RULES[type(report)](_Known(record, attempt, now), report)
    if changed is None:
        return None
    told = replace(changed, record=replace(changed.record, updated_at=now))
    return owned.bury(told, now) if told.record.status.is_terminal else told


def _create(report: Report, facts: CallFacts, now: datetime) -> Merged:
    if isinstance(report, Enqueued):
        return made(report, facts, now)
    record = new_record(report, facts, now)
    if isinstance(report, NeverSent):
        return Merged(replace(settle(record, report.outcome, now), published_at=None))
    return merge(record, None, report, now) or Merged(record)


@dataclass(frozen=True, slots=True)
class _Known:
    record: CallRecord
    attempt: AttemptRecord | None
    now: datetime


# --- what was asked for -------------------------------------------------------------


def _enqueued(known: _Known, report: Enqueued) -> Merged | None:
    return None


def _waiting(known: _Known, report: Waiting) -> Merged | None:
    turn, record = _turn(known, report), known.record
    if record.status.is_terminal:
        return None
    if turn == record.turn and record.run is None and record.due_at is None and report.due_at is not None:
        return Merged(replace(record, due_at=report.due_at))
    return _move_to(record, turn, due_at=report.due_at)


def _publish_failed(known: _Known, report: PublishFailed) -> Merged | None:
    record = known.record
    if record.status is not CallStatus.SUBMITTED or report.turn != record.turn:
        return None
    return Merged(with_error(replace(record, published_at=None), report.error))


def _published(known: _Known, report: Published) -> Merged | None:
    """The end of what `PublishFailed` began; both come from one process, in their order."""
    record = known.record
    if record.status.is_terminal or report.turn != record.turn or record.published_at is not None:
        return None
    out = replace(record, published_at=known.now)
    # Once it runs, the error is no longer that of its publish.
    return Merged(with_error(out, NO_ERROR) if record.status is CallStatus.SUBMITTED else out)


def _move_to(
    record: CallRecord, turn: Turn, *, error: ErrorFacts = NO_ERROR, due_at: datetime | None = None
) -> Merged | None:
    """Let the call wait for `turn`, if that is a later one than it knew of."""
    if turn <= record.turn:
        return None
    waiting = replace(
        record,
        status=CallStatus.RETRYING,
        nesting=turn.nesting,
        retries=turn.retries,
        run=None,
        run_outcome=None,
        stop_reason=None,
        due_at=due_at,
    )
    return Merged(with_error(waiting, error), displaced(record))


# --- runs ---------------------------------------------------------------------------


def _started(known: _Known, report: Started) -> Merged | None:
    if report.run.token == known.record.run:
        return _begun_unseen(known, report.run)
    if known.attempt is not None:
        return None
    return _with_summary(begin(known.record, report.run, _turn(known, report), known.now), report.facts)


def _with_summary(begun: Merged, facts: CallFacts | None) -> Merged:
    """Let the worker show the arguments where the publisher did not know the task."""
    if facts is None or begun.record.target_summary is not None:
        return begun
    return replace(begun, record=replace(begun.record, target_summary=facts.target_summary))


def _begun_unseen(known: _Known, run: RunFacts) -> Merged | None:
    """The start of the present run: news if somebody else, who knew less, spoke of it first."""
    record = known.record
    if record.status.is_terminal or record.pid is not None or run.pid is None:
        return None
    started_at = within(run.started_at, record.enqueued_at, known.now)
    return Merged(replace(record, pid=run.pid, worker=run.worker, acks_late=run.acks_late, started_at=started_at))


def _ended(known: _Known, report: Ended) -> Merged | None:
    if report.run is None:
        return _ended_unnamed(known, report)
    return _of_run(known, report, report.run, _end_present, _end_other)


def _ended_unnamed(known: _Known, report: Ended) -> Merged | None:
    """The end of whatever runs: from a reporter that knows the call, but not the run."""
    record, turn = known.record, _turn(known, report)
    if record.status.is_terminal or turn < record.turn:
        return None
    if turn == record.turn and record.run is not None and record.run_outcome is not AttemptOutcome.REQUEUED:
        return _end_present(known, report)
    # The run that is meant has not been heard of yet.
    if not isinstance(report.outcome, Outcome):
        return None
    return Merged(settle(at_turn(record, turn), report.outcome, known.now), displaced(record))


def _unwound(known: _Known, report: Unwound) -> Merged | None:
    return _of_run(known, report, report.run, _unwind_present, _unwind_other)


def _of_run(
    known: _Known,
    report: Any,
    run: RunFacts,
    present: Callable[[_Known, Any], Merged | None],
    other: Callable[[_Known, AttemptRecord, Any], Merged | None],
) -> Merged | None:
    """Apply a report to its run: the call's present one or another; begin it first if it is new."""
    if run.token == known.record.run:
        return present(known, report)
    if known.attempt is not None:
        return other(known, known.attempt, report)
    begun = begin(known.record, run, _turn(known, report), known.now)
    seen = next((attempt for attempt in begun.attempts if attempt.run == run.token), None)
    then = _of_run(_Known(begun.record, seen, known.now), report, run, present, other)
    return begun if then is None else both(begun, then)


def _end_present(known: _Known, report: Ended) -> Merged | None:
    record, outcome = known.record, report.outcome
    if record.run_outcome is not None and record.run_outcome.is_final:
        return None
    if record.status.is_terminal:
        return _end_other(known, attempt_of(record), report)
    if isinstance(outcome, Outcome):
        return settle_run(record, outcome, known.now)
    ended = attempt_of(record, AttemptOutcome(outcome), known.now, report.error)
    if outcome is not Again.REQUEUED:
        return _beside(_move_to(record, outcome.turn_after(record.turn), error=report.error), record, ended)
    if record.stop_reason is not None:
        return settle_run(record, stopped(record.stop_reason, error_of(record)), known.now)
    return Merged(replace(record, status=CallStatus.RETRYING, run_outcome=AttemptOutcome.REQUEUED), (ended,))


def _end_other(known: _Known, attempt: AttemptRecord, report: Ended) -> Merged | None:
    """The end of a run that is not the call's present one, or came after the call's own end."""
    record, outcome = known.record, report.outcome
    if attempt.outcome is not None and attempt.outcome.is_final:
        return None
    if isinstance(outcome, Again):
        ended = end(attempt, AttemptOutcome(outcome), known.now, report.error)
        return _beside(_asked_for(record, outcome.turn_after(attempt.turn), report.error), record, ended)
    ended = end(attempt, AttemptOutcome(outcome.status), known.now, outcome.error)
    if attempt.turn != record.turn:
        return Merged(record, (ended,))
    if record.status.is_terminal:
        return _refused(record, ended)
    decided = replace(present(record, attempt), run_outcome=ended.outcome)
    return Merged(settle(decided, outcome, known.now), (*displaced(record), ended))


def _asked_for(record: CallRecord, turn: Turn, error: ErrorFacts) -> Merged | None:
    """A run asked for `turn`: news, or only the error that led to it."""
    if record.status.is_terminal:
        return None
    if turn == record.turn and record.run is None:
        return Merged(with_error(record, error))
    return _move_to(record, turn, error=error)


def _refused(record: CallRecord, ended: AttemptRecord) -> Merged:
    """A second end: the first stands, this one is kept with its run and counted."""
    known_late = record.late_runs + (0 if ended.late else 1)
    run_outcome = ended.outcome if ended.run == record.run else record.run_outcome
    return Merged(replace(record, late_runs=known_late, run_outcome=run_outcome), (replace(ended, late=True),))


def _unwind_present(known: _Known, report: Unwound) -> Merged | None:
    record = known.record
    if record.status.is_terminal or record.run_outcome is not None:
        return None
    if record.stop_reason is not None:
        return settle_run(record, stopped(record.stop_reason, error_of(record)), known.now)
    status = CallStatus.RETRYING if record.acks_late else CallStatus.STARTED
    interrupted = replace(record, status=status, run_outcome=AttemptOutcome.INTERRUPTED)
    shown = interrupted if report.error == NO_ERROR else with_error(interrupted, report.error)
    return Merged(shown, (attempt_of(record, AttemptOutcome.INTERRUPTED, known.now, report.error),))


def _unwind_other(known: _Known, attempt: AttemptRecord, report: Unwound) -> Merged | None:
    if attempt.outcome is not None:
        return None
    return Merged(known.record, (end(attempt, AttemptOutcome.INTERRUPTED, known.now, report.error),))


# --- ends from outside --------------------------------------------------------------


def _stopping(known: _Known, report: Stopping) -> Merged | None:
    if report.run is None:
        return _stopping_unnamed(known, report)
    return _of_run(known, report, report.run, _stop_present, _stop_other)


def _stopping_unnamed(known: _Known, report: Stopping) -> Merged | None:
    """From the run's parent, whose word may be faster than the run's own first one."""
    record, turn = known.record, _turn(known, report)
    if record.status.is_terminal or turn < record.turn:
        return None
    if turn == record.turn and record.run is not None:
        return _stop_present(known, report)
    if report.certain:
        return Merged(settle(at_turn(record, turn), stopped(report.reason), known.now), displaced(record))
    moved = _move_to(record, turn) or Merged(record)
    if moved.record.stop_reason is not None:
        return None
    return replace(moved, record=replace(moved.record, stop_reason=report.reason))


def _stop_present(known: _Known, report: Stopping) -> Merged | None:
    record = known.record
    if record.run is None or record.status.is_terminal:
        return None
    if record.run_outcome is AttemptOutcome.INTERRUPTED or (report.certain and record.is_running):
        return settle_run(record, stopped(report.reason), known.now)
    return _remember_stop(record, report.reason)


def _stop_other(known: _Known, attempt: AttemptRecord, report: Stopping) -> Merged | None:
    return None


def _not_run(known: _Known, report: NotRun | NeverSent) -> Merged | None:
    record, turn = known.record, _turn(known, report)
    if record.status.is_terminal or turn < record.turn:
        return None
    if turn == record.turn and record.is_running:
        return _remember_stop(record, report.outcome.reason, report.outcome.error)
    return Merged(settle(at_turn(record, turn), report.outcome, known.now), displaced(record))


def _remember_stop(record: CallRecord, reason: Reason | None, error: ErrorFacts = NO_ERROR) -> Merged | None:
    """Keep why a running run is to end: it decides if the run does not end by itself."""
    if reason is None or not record.is_running or record.stop_reason is not None:
        return None
    return Merged(with_error(replace(record, stop_reason=reason), error))


def _never_sent(known: _Known, report: NeverSent) -> Merged | None:
    """It was sent after all, by another run of the call before it; unless it was replaced and waits for its last part."""
    return _not_run(known, report) if _turn(known, report).nesting > 0 else None


def _given_up(known: _Known, report: GivenUp) -> Merged | None:
    record, token = known.record, run_of(report)
    if record.status.is_terminal or _turn(known, report) != record.turn or token != record.run:
        return None
    settled = settle(record, _as_asked(record, report.outcome), known.now)
    if record.run is None or (record.run_outcome is not None and record.run_outcome.is_final):
        return Merged(settled)
    cut = attempt_of(record, AttemptOutcome.INTERRUPTED, known.now, report.outcome.error)
    return Merged(replace(settled, run_outcome=AttemptOutcome.INTERRUPTED), (cut,))


def _as_asked(record: CallRecord, outcome: Outcome) -> Outcome:
    """Return how a call ends that is given up: if somebody wanted it to end, that has come about, whoever did it."""
    if record.abort_requested_at is not None:
        return Outcome(status=CallStatus.ABORTED, reason=Reason.ABORTED, error=outcome.error)
    return outcome if record.stop_reason is None else stopped(record.stop_reason, outcome.error)


# --- the seed's own words -----------------------------------------------------------


def _attempt_recorded(known: _Known, report: AttemptRecorded) -> Merged | None:
    record, retries = known.record, _turn(known, report).retries
    if record.status.is_terminal:
        return None
    if (retries, report.status.rank) < (record.retries, record.status.rank):
        return None
    advanced = replace(record, status=report.status, retries=retries)
    if report.status is CallStatus.STARTED:
        number = max(record.attempt, retries + 1)
        advanced = replace(advanced, attempt=number, runs=max(record.runs, number), started_at=known.now)
    return Merged(with_error(advanced, report.error))


def _terminal_recorded(known: _Known, report: TerminalRecorded) -> Merged | None:
    if known.record.status.is_terminal:
        return None
    return Merged(settle(known.record, report.outcome, known.now))


def _beside(moved: Merged | None, record: CallRecord, ended: AttemptRecord) -> Merged:
    """Write a run's end, beside what it moved (if anything)."""
    return Merged(record, (ended,)) if moved is None else both(moved, Merged(moved.record, (ended,)))


def _turn(known: _Known, report: Report) -> Turn:
    return known.record.turn if report.turn is None else report.turn


_RULES: dict[type[Report], Callable[[_Known, Any], Merged | None]] = {
    Enqueued: _enqueued,
    Waiting: _waiting,
    PublishFailed: _publish_failed,
    Published: _published,
    Started: _started,
    Ended: _ended,
    Unwound: _unwound,
    Stopping: _stopping,
    NotRun: _not_run,
    NeverSent: _never_sent,
    GivenUp: _given_up,
    AttemptRecorded: _attempt_recorded,
    TerminalRecorded: _terminal_recorded,
}
