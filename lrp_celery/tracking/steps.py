"""What a change of a call consists of: small steps that `merge` and `owned` are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lrp_celery.core.values import replace
from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord, LogLine, Turn
from lrp_celery.tracking.reports import NO_ERROR, CallFacts, Enqueued, ErrorFacts, Outcome, Report, RunFacts
from lrp_celery.tracking.status import CallStatus, Reason


@dataclass(frozen=True)
class Merged:
    """What a report makes of a call: the row, and the runs to write beside it (by `run`).

    Without slots: it is copied as a whole (`lrp_celery.core.values`).
    """

    record: CallRecord
    attempts: tuple[AttemptRecord, ...] = ()
    payload: Mapping[str, str | None] | None = None
    """What is written of an owned call's message, result and error; what it does not name stays."""
    lines: tuple[LogLine, ...] = ()
    """What an owned call has logged."""
    forgets_runs: bool = False
    """Whether the runs that were written before are forgotten first."""


#: A row is a copy of it, made as a whole: setting so many fields one after the other takes longer than the rest.
_UNKNOWN: Final = CallRecord(
    call_id="", task="", enqueued_at=datetime.min.replace(tzinfo=UTC), updated_at=datetime.min.replace(tzinfo=UTC)
)


def both(first: Merged | None, then: Merged) -> Merged:
    """Return one change for two that follow each other: the later word on each thing."""
    if first is None:
        return then
    forgets = then.forgets_runs
    attempts = {attempt.run: attempt for attempt in (() if forgets else first.attempts)}
    attempts |= {attempt.run: attempt for attempt in then.attempts}
    payload = (
        None if first.payload is None and then.payload is None else {**(first.payload or {}), **(then.payload or {})}
    )
    return Merged(
        then.record,
        tuple(attempts.values()),
        payload=payload,
        lines=then.lines if forgets else (*first.lines, *then.lines),
        forgets_runs=first.forgets_runs or forgets,
    )


def new_record(report: Report, facts: CallFacts, now: datetime) -> CallRecord:
    """Return the row of a call of which nothing but its message is known."""
    turn = report.turn or Turn()
    return replace(
        _UNKNOWN,
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
        rerun_of=facts.rerun_of,
        enqueued_at=facts.enqueued_at or now,
        due_at=facts.due_at,
        expires_at=facts.expires_at,
        published_at=facts.enqueued_at or now,
        updated_at=now,
    )


def made(report: Enqueued, facts: CallFacts, now: datetime) -> Merged:
    """Return the row of a call that is asked for, with what is kept of its message."""
    payload = None if report.message is None else {"message": report.message, "result": None, "error": None}
    return Merged(new_record(report, facts, now), payload=payload)


def begin(record: CallRecord, run: RunFacts, turn: Turn, now: datetime) -> Merged:
    """Number a run at first sight; it becomes the call's present one unless a later one is known."""
    attempt = AttemptRecord(
        run=run.token,
        number=record.runs + 1,
        nesting=turn.nesting,
        retries=turn.retries,
        worker=run.worker,
        pid=run.pid,
        redelivered=run.redelivered,
        started_at=within(run.started_at, record.enqueued_at, now),
    )
    counted = replace(record, runs=attempt.number)
    if record.terminal_at is not None:
        return _after_the_end(counted, attempt, record.terminal_at)
    if _is_earlier(attempt, record):
        return Merged(counted, (attempt,))
    # What ends the turn may be heard of before its newest run: then it is said of that one.
    stop_reason = record.stop_reason if attempt.turn == record.turn else None
    error = NO_ERROR if stop_reason is None or record.run is None else error_of(record)
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
    return Merged(with_error(present, error), displaced(record))


def _is_earlier(attempt: AttemptRecord, record: CallRecord) -> bool:
    if attempt.turn != record.turn:
        return attempt.turn < record.turn
    return record.run is not None and attempt.run < record.run


def _after_the_end(record: CallRecord, attempt: AttemptRecord, terminal_at: datetime) -> Merged:
    if _is_earlier(attempt, record) or (attempt.started_at is not None and attempt.started_at < terminal_at):
        return Merged(record, (attempt,))
    return Merged(replace(record, late_runs=record.late_runs + 1), (replace(attempt, late=True),))


def settle(record: CallRecord, outcome: Outcome, now: datetime) -> CallRecord:
    """End the call. What we asked for and others carried out is an abort."""
    asked_for = outcome.reason is Reason.REVOKED and record.abort_requested_at is not None
    settled = replace(
        record,
        status=CallStatus.ABORTED if asked_for else outcome.status,
        reason=Reason.ABORTED if asked_for else outcome.reason,
        terminal_at=now,
        stop_reason=None,
    )
    return with_error(settled, outcome.error)


def settle_run(record: CallRecord, outcome: Outcome, now: datetime) -> Merged:
    """End the call with its present run. A plain success costs no second row."""
    settled = settle(record, outcome, now)
    settled = replace(settled, run_outcome=AttemptOutcome(settled.status))
    if settled.status is CallStatus.SUCCEEDED:
        return Merged(settled)
    return Merged(settled, (attempt_of(record, settled.run_outcome, now, outcome.error),))


def stopped(reason: Reason, error: ErrorFacts = NO_ERROR) -> Outcome:
    """Return how a call ends whose run was stopped from outside for `reason`."""
    status = CallStatus.FAILED if reason is Reason.WORKER_LOST else CallStatus.DISCARDED
    return Outcome(status=status, reason=reason, error=error)


def displaced(record: CallRecord) -> tuple[AttemptRecord, ...]:
    """The present run's own row, needed once the call moves on without having heard its end."""
    return (attempt_of(record),) if record.is_running else ()


def attempt_of(
    record: CallRecord,
    outcome: AttemptOutcome | None = None,
    ended_at: datetime | None = None,
    error: ErrorFacts = NO_ERROR,
) -> AttemptRecord:
    """Return the present run's own row, with its end if there is one."""
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
    return attempt if outcome is None or ended_at is None else end(attempt, outcome, ended_at, error)


def end(
    attempt: AttemptRecord, outcome: AttemptOutcome, ended_at: datetime, error: ErrorFacts = NO_ERROR
) -> AttemptRecord:
    """Return `attempt` with its end."""
    return replace(
        attempt,
        outcome=outcome,
        ended_at=ended_at,
        error_type=error.type,
        last_error=error.message,
        traceback=error.traceback,
    )


def present(record: CallRecord, attempt: AttemptRecord) -> CallRecord:
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


def at_turn(record: CallRecord, turn: Turn) -> CallRecord:
    """Let the row speak of `turn`, whose run is not known."""
    if turn == record.turn:
        return record
    return replace(record, nesting=turn.nesting, retries=turn.retries, run=None, run_outcome=None)


def with_error(record: CallRecord, error: ErrorFacts) -> CallRecord:
    """Let the row show `error`, or none."""
    return replace(record, last_error=error.message, error_type=error.type, http_status=error.http_status)


def error_of(record: CallRecord) -> ErrorFacts:
    """Return the error that the row shows."""
    return ErrorFacts(type=record.error_type, message=record.last_error, http_status=record.http_status)


def within(instant: datetime | None, earliest: datetime, latest: datetime) -> datetime:
    """Keep a worker's time within what the store knows: clocks of hosts differ."""
    return latest if instant is None else max(earliest, min(instant, latest))
