"""What a report changes: the one place that decides.

Pure: no clock, no store. The rule, in one sentence: the higher turn outweighs the lower,
within a turn the first terminal report wins, and what is terminal never changes again.

For histories whose runs do not overlap the result does not depend on the order of the
reports, on doubles, or on what was lost besides: it is what the reports that did arrive
would give in their true order. (One thing nobody can know: whether a run whose end was lost is
still under way when its message is said to have been dropped. Then the run has the word.) Where runs overlap (one message delivered twice, a retry
published by a run that then succeeds) it is one of the true outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import (
    NO_ERROR,
    Again,
    AttemptRecorded,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
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


@dataclass(frozen=True, slots=True)
class Merged:
    """What a report makes of a call: the row, and the runs to write beside it (by `run`)."""

    record: CallRecord
    attempts: tuple[AttemptRecord, ...] = ()


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
    changed = _RULES[type(report)](_Known(record, attempt, now), report)
    if changed is None:
        return None
    return replace(changed, record=replace(changed.record, updated_at=now))


def new_record(report: Report, facts: CallFacts, now: datetime) -> CallRecord:
    """Return the row of a call of which nothing but its message is known."""
    turn = report.turn or Turn()
    return CallRecord(
        call_id=report.call_id,
        task=facts.task,
        status=CallStatus.SUBMITTED if turn == Turn() else CallStatus.RETRYING,
        retries=turn.retries,
        nesting=turn.nesting,
        queue=facts.queue,
        target_summary=facts.target_summary,
        source_instance_id=facts.source_instance_id,
        source_script=facts.source_script,
        source_node=facts.source_node,
        owner=facts.owner,
        root_id=facts.root_id,
        parent_id=facts.parent_id,
        group_id=facts.group_id,
        schedule=facts.schedule,
        enqueued_at=facts.enqueued_at or now,
        due_at=facts.due_at,
        expires_at=facts.expires_at,
        published_at=facts.enqueued_at or now,
        updated_at=now,
    )


def _create(report: Report, facts: CallFacts, now: datetime) -> Merged:
    record = new_record(report, facts, now)
    if isinstance(report, Enqueued):
        return Merged(record)
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
    return Merged(_with_error(replace(record, published_at=None), report.error))


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
    return Merged(_with_error(waiting, error), _displaced(record))


# --- runs ---------------------------------------------------------------------------


def _started(known: _Known, report: Started) -> Merged | None:
    if report.run.token == known.record.run:
        return _begun_unseen(known, report.run)
    if known.attempt is not None:
        return None
    return _with_summary(_begin(known.record, report.run, _turn(known, report), known.now), report.facts)


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
    started_at = _within(run.started_at, record.enqueued_at, known.now)
    return Merged(replace(record, pid=run.pid, worker=run.worker, acks_late=run.acks_late, started_at=started_at))


def _begin(record: CallRecord, run: RunFacts, turn: Turn, now: datetime) -> Merged:
    """Number a run at first sight; it becomes the call's present one unless a later one is known."""
    attempt = AttemptRecord(
        run=run.token,
        number=record.runs + 1,
        nesting=turn.nesting,
        retries=turn.retries,
        worker=run.worker,
        pid=run.pid,
        redelivered=run.redelivered,
        started_at=_within(run.started_at, record.enqueued_at, now),
    )
    counted = replace(record, runs=attempt.number)
    if record.terminal_at is not None:
        return _after_the_end(counted, attempt, record.terminal_at)
    if _is_earlier(attempt, record):
        return Merged(counted, (attempt,))
    # What ends the turn may be heard of before its newest run: then it is said of that one.
    stop_reason = record.stop_reason if attempt.turn == record.turn else None
    error = NO_ERROR if stop_reason is None or record.run is None else _error_of(record)
    present = replace(
        counted,
        status=CallStatus.STARTED,
        nesting=turn.nesting,
        retries=turn.retries,
        attempt=attempt.number,
        worker=attempt.worker,
        pid=attempt.pid,
        redelivered=attempt.redelivered,
        acks_late=run.acks_late,
        started_at=attempt.started_at,
        run=run.token,
        run_outcome=None,
        stop_reason=stop_reason,
    )
    return Merged(_with_error(present, error), _displaced(record))


def _is_earlier(attempt: AttemptRecord, record: CallRecord) -> bool:
    if attempt.turn != record.turn:
        return attempt.turn < record.turn
    return record.run is not None and attempt.run < record.run


def _after_the_end(record: CallRecord, attempt: AttemptRecord, terminal_at: datetime) -> Merged:
    if _is_earlier(attempt, record) or (attempt.started_at is not None and attempt.started_at < terminal_at):
        return Merged(record, (attempt,))
    return Merged(replace(record, late_runs=record.late_runs + 1), (replace(attempt, late=True),))


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
    return Merged(_settle(_at_turn(record, turn), report.outcome, known.now), _displaced(record))


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
    begun = _begin(known.record, run, _turn(known, report), known.now)
    seen = next((attempt for attempt in begun.attempts if attempt.run == run.token), None)
    then = _of_run(_Known(begun.record, seen, known.now), report, run, present, other)
    return begun if then is None else _both(begun, then)


def _both(first: Merged, then: Merged) -> Merged:
    """Both changes, the later word on each run."""
    attempts = {attempt.run: attempt for attempt in (*first.attempts, *then.attempts)}
    return Merged(then.record, tuple(attempts.values()))


def _end_present(known: _Known, report: Ended) -> Merged | None:
    record, outcome = known.record, report.outcome
    if record.run_outcome is not None and record.run_outcome.is_final:
        return None
    if record.status.is_terminal:
        return _end_other(known, _attempt_of(record), report)
    if isinstance(outcome, Outcome):
        return _settle_run(record, outcome, known.now)
    ended = _attempt_of(record, AttemptOutcome(outcome), known.now, report.error)
    if outcome is not Again.REQUEUED:
        return _beside(_move_to(record, outcome.turn_after(record.turn), error=report.error), record, ended)
    if record.stop_reason is not None:
        return _settle_run(record, _stopped(record.stop_reason, _error_of(record)), known.now)
    return Merged(replace(record, status=CallStatus.RETRYING, run_outcome=AttemptOutcome.REQUEUED), (ended,))


def _end_other(known: _Known, attempt: AttemptRecord, report: Ended) -> Merged | None:
    """The end of a run that is not the call's present one, or came after the call's own end."""
    record, outcome = known.record, report.outcome
    if attempt.outcome is not None and attempt.outcome.is_final:
        return None
    if isinstance(outcome, Again):
        ended = _end(attempt, AttemptOutcome(outcome), known.now, report.error)
        return _beside(_asked_for(record, outcome.turn_after(attempt.turn), report.error), record, ended)
    ended = _end(attempt, AttemptOutcome(outcome.status), known.now, outcome.error)
    if attempt.turn != record.turn:
        return Merged(record, (ended,))
    if record.status.is_terminal:
        return _refused(record, ended)
    decided = replace(_present(record, attempt), run_outcome=ended.outcome)
    return Merged(_settle(decided, outcome, known.now), (*_displaced(record), ended))


def _asked_for(record: CallRecord, turn: Turn, error: ErrorFacts) -> Merged | None:
    """A run asked for `turn`: news, or only the error that led to it."""
    if record.status.is_terminal:
        return None
    if turn == record.turn and record.run is None:
        return Merged(_with_error(record, error))
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
        return _settle_run(record, _stopped(record.stop_reason, _error_of(record)), known.now)
    status = CallStatus.RETRYING if record.acks_late else CallStatus.STARTED
    interrupted = replace(record, status=status, run_outcome=AttemptOutcome.INTERRUPTED)
    return Merged(interrupted, (_attempt_of(record, AttemptOutcome.INTERRUPTED, known.now),))


def _unwind_other(known: _Known, attempt: AttemptRecord, report: Unwound) -> Merged | None:
    if attempt.outcome is not None:
        return None
    return Merged(known.record, (_end(attempt, AttemptOutcome.INTERRUPTED, known.now),))


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
        return Merged(_settle(_at_turn(record, turn), _stopped(report.reason), known.now), _displaced(record))
    moved = _move_to(record, turn) or Merged(record)
    if moved.record.stop_reason is not None:
        return None
    return replace(moved, record=replace(moved.record, stop_reason=report.reason))


def _stop_present(known: _Known, report: Stopping) -> Merged | None:
    record = known.record
    if record.run is None or record.status.is_terminal:
        return None
    if record.run_outcome is AttemptOutcome.INTERRUPTED or (report.certain and record.is_running):
        return _settle_run(record, _stopped(report.reason), known.now)
    return _remember_stop(record, report.reason)


def _stop_other(known: _Known, attempt: AttemptRecord, report: Stopping) -> Merged | None:
    return None


def _not_run(known: _Known, report: NotRun) -> Merged | None:
    record, turn = known.record, _turn(known, report)
    if record.status.is_terminal or turn < record.turn:
        return None
    if turn == record.turn and record.is_running:
        return _remember_stop(record, report.outcome.reason, report.outcome.error)
    return Merged(_settle(_at_turn(record, turn), report.outcome, known.now), _displaced(record))


def _remember_stop(record: CallRecord, reason: Reason | None, error: ErrorFacts = NO_ERROR) -> Merged | None:
    """Keep why a running run is to end: it decides if the run does not end by itself."""
    if reason is None or not record.is_running or record.stop_reason is not None:
        return None
    return Merged(_with_error(replace(record, stop_reason=reason), error))


def _stopped(reason: Reason, error: ErrorFacts = NO_ERROR) -> Outcome:
    status = CallStatus.FAILED if reason is Reason.WORKER_LOST else CallStatus.DISCARDED
    return Outcome(status=status, reason=reason, error=error)


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
    return Merged(_with_error(advanced, report.error))


def _terminal_recorded(known: _Known, report: TerminalRecorded) -> Merged | None:
    if known.record.status.is_terminal:
        return None
    return Merged(_settle(known.record, report.outcome, known.now))


# --- shared steps -------------------------------------------------------------------


def _settle(record: CallRecord, outcome: Outcome, now: datetime) -> CallRecord:
    asked_for = outcome.reason is Reason.REVOKED and record.abort_requested_at is not None
    settled = replace(
        record,
        status=CallStatus.ABORTED if asked_for else outcome.status,
        reason=Reason.ABORTED if asked_for else outcome.reason,
        terminal_at=now,
        stop_reason=None,
    )
    return _with_error(settled, outcome.error)


def _settle_run(record: CallRecord, outcome: Outcome, now: datetime) -> Merged:
    """End the call with its present run. A plain success costs no second row."""
    settled = _settle(record, outcome, now)
    settled = replace(settled, run_outcome=AttemptOutcome(settled.status))
    if settled.status is CallStatus.SUCCEEDED:
        return Merged(settled)
    return Merged(settled, (_attempt_of(record, settled.run_outcome, now, outcome.error),))


def _displaced(record: CallRecord) -> tuple[AttemptRecord, ...]:
    """The present run's own row, needed once the call moves on without having heard its end."""
    return (_attempt_of(record),) if record.is_running else ()


def _attempt_of(
    record: CallRecord,
    outcome: AttemptOutcome | None = None,
    ended_at: datetime | None = None,
    error: ErrorFacts = NO_ERROR,
) -> AttemptRecord:
    attempt = AttemptRecord(
        run=record.run or "",
        number=record.attempt,
        nesting=record.nesting,
        retries=record.retries,
        worker=record.worker,
        pid=record.pid,
        redelivered=record.redelivered,
        started_at=record.started_at,
    )
    return attempt if outcome is None or ended_at is None else _end(attempt, outcome, ended_at, error)


def _end(
    attempt: AttemptRecord, outcome: AttemptOutcome, ended_at: datetime, error: ErrorFacts = NO_ERROR
) -> AttemptRecord:
    return replace(
        attempt,
        outcome=outcome,
        ended_at=ended_at,
        error_type=error.type,
        last_error=error.message,
        traceback=error.traceback,
    )


def _present(record: CallRecord, attempt: AttemptRecord) -> CallRecord:
    """Let the row speak of `attempt`."""
    return replace(
        record,
        attempt=attempt.number,
        worker=attempt.worker,
        pid=attempt.pid,
        redelivered=attempt.redelivered,
        started_at=attempt.started_at,
        run=attempt.run,
        run_outcome=attempt.outcome,
    )


def _at_turn(record: CallRecord, turn: Turn) -> CallRecord:
    if turn == record.turn:
        return record
    return replace(record, nesting=turn.nesting, retries=turn.retries, run=None, run_outcome=None)


def _with_error(record: CallRecord, error: ErrorFacts) -> CallRecord:
    return replace(record, last_error=error.message, error_type=error.type, http_status=error.http_status)


def _error_of(record: CallRecord) -> ErrorFacts:
    return ErrorFacts(type=record.error_type, message=record.last_error, http_status=record.http_status)


def _beside(moved: Merged | None, record: CallRecord, ended: AttemptRecord) -> Merged:
    """Write a run's end, beside what it moved (if anything)."""
    return Merged(record, (ended,)) if moved is None else _both(moved, Merged(moved.record, (ended,)))


def _turn(known: _Known, report: Report) -> Turn:
    return known.record.turn if report.turn is None else report.turn


def _within(instant: datetime | None, earliest: datetime, latest: datetime) -> datetime:
    """Keep a worker's time within what the store knows: clocks of hosts differ."""
    return latest if instant is None else max(earliest, min(instant, latest))


_RULES: dict[type[Report], Callable[[_Known, Any], Merged | None]] = {
    Enqueued: _enqueued,
    Waiting: _waiting,
    PublishFailed: _publish_failed,
    Started: _started,
    Ended: _ended,
    Unwound: _unwound,
    Stopping: _stopping,
    NotRun: _not_run,
    AttemptRecorded: _attempt_recorded,
    TerminalRecorded: _terminal_recorded,
}
