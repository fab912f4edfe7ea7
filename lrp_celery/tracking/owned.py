"""Owned calls: who may run one, who may end it, and when somebody must look after it.

Pure, like `merge`: each rule takes the call's row and the store's time, and returns what
changes and what to answer. The store writes that only if the row is still the one that
was read, so of several that decide at once one wins, and the others decide again.

A call is *held* by the run that has claimed it. The run's token is the fence: it names
one delivery in one process, and once the row names another one, or none, whoever
presents the old one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from lrp_celery.core.values import replace
from lrp_celery.tracking.record import AttemptOutcome, CallRecord, LogLine, Turn
from lrp_celery.tracking.reports import (
    NO_ERROR,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
    PublishFailed,
    Report,
    RunFacts,
    Stopping,
)
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import (
    Merged,
    at_turn,
    attempt_of,
    begin,
    displaced,
    new_record,
    settle,
    settle_run,
    stopped,
    with_error,
)

#: A message may come this much before its time: clocks of workers differ from the store's.
EARLY: Final = timedelta(seconds=5)
#: How long a run that was asked to end may go on after its grace, before it is ended without it.
OVERTIME: Final = timedelta(seconds=1)
#: So often a message that workers do not know or cannot read is sent again.
UNREADABLE: Final = 5
#: So many lines are kept of what a call logs.
MAX_LINES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The waits that owned calls are decided by, in seconds."""

    lease: float = 10.0
    """How long a run holds its call without renewal."""
    resend_after: float = 60.0
    """When a message that nobody has claimed is sent again; twice as long after each time."""
    hand_over: float = 60.0
    """A call due later than this waits with us, not in the broker."""
    tombstone: float = 86_400.0
    """How long the id of a call that was removed is kept, against late copies of its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an owned call is run under; fixed when it is called. Durations in seconds, None: unlimited."""

    app: str | None = None
    timeout: float | None = None
    time_to_live: float | None = None
    until_removed: bool = False
    """Whether it is kept until somebody removes it; otherwise, without a time to live, retention decides."""
    grace: float = 10.0
    idempotent: bool = False
    max_attempts: int = 3
    keep_result: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A new owned call: what its message says, what it is run under, and the message itself.

    `message` None: there is none, for the call runs at once inside its caller.
    """

    call_id: str
    facts: CallFacts
    terms: Terms
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message of an owned call, in the process that is to run it.

    `generation` None: the message does not say, for it was not sent by `call`; then it may
    make its row. `message` is kept for another run, where the row has none yet.
    """

    call_id: str
    turn: Turn
    generation: int | None
    facts: CallFacts
    terms: Terms
    run: RunFacts
    message: str | None = None


class Verdict(StrEnum):
    """What became of an attempt to claim a call."""

    GRANTED = "granted"
    SETTLED = "settled"
    """It has ended: the row says how."""
    HELD = "held"
    """Another run has it."""
    STALE = "stale"
    """The message is of an earlier turn or generation, or of a call that was removed."""
    EARLY = "early"
    """It is not due yet; once it is, its message is sent again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a delivery: whether it may run, and the row as it then is (None: there is none)."""

    verdict: Verdict
    record: CallRecord | None


@dataclass(frozen=True, slots=True)
class Changed:
    """What a rule changes (None: nothing), and whether that is what was asked for."""

    merged: Merged | None
    applied: bool


NOTHING: Final = Changed(None, applied=False)
#: What a tombstone does not show any more, and what is not kept beside it.
BLANKED: Final = ("target_summary", "last_error", "error_type", "progress", "abort_reason")
BLANK: Final[Mapping[str, str | None]] = {"message": None, "result": None, "error": None}
#: What a run that has not claimed its call does not decide: its function did not run, or a copy was dropped.
_UNDECIDED: Final = frozenset({Reason.WORKER_LOST, Reason.IGNORED, Reason.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a run ended its call, with what readers of the result get, and what it said of itself at last."""

    outcome: Outcome
    said: Note | None = None
    result: str | None = None
    """JSON; None where there is nothing to be read, or null."""
    error: str | None = None
    payload: Mapping[str, str | None] | None = field(init=False)
    """None: nothing has to be kept."""

    def __post_init__(self) -> None:
        is_nothing = self.result is None and self.error is None
        object.__setattr__(self, "payload", None if is_nothing else {"result": self.result, "error": self.error})


# --- calling ------------------------------------------------------------------------


def place(record: CallRecord | None, order: Order, now: datetime, timing: Timing) -> Merged | None:
    """Make the row of a new call; None: the id has one already. A tombstone gives way to the next generation."""
    if record is not None and not record.is_absent(now):
        return None
    generation = 0 if record is None else record.generation + 1
    version = 0 if record is None else record.version
    # Its clock starts at the insert, by the store's time, whatever the caller's own clock says.
    facts = replace(order.facts, enqueued_at=None)
    fresh = replace(new_record(Enqueued(call_id=order.call_id, facts=facts), facts, now), version=version)
    placed = replace(_on_terms(fresh, order.terms, now), generation=generation)
    payload = {**BLANK, "message": order.message}
    waiting = attended(_awaiting(placed, placed.due_at, now, timing))
    return Merged(waiting, payload=payload, forgets_runs=record is not None)


def _awaiting(record: CallRecord, due_at: datetime | None, now: datetime, timing: Timing) -> CallRecord:
    """Let the call wait for its message. Whoever asked for it sends it; one due much later is left to the relay."""
    is_held_back = due_at is not None and due_at - now > timedelta(seconds=timing.hand_over)
    again = max(due_at or now, now) + timedelta(seconds=timing.resend_after)
    return replace(
        record,
        due_at=due_at,
        published_at=None if is_held_back else now,
        send_at=due_at if is_held_back else again,
        sends=0,
    )


def _on_terms(record: CallRecord, terms: Terms, now: datetime) -> CallRecord:
    deadline = None if terms.timeout is None else record.enqueued_at + timedelta(seconds=terms.timeout)
    return replace(
        record,
        owned=True,
        app=terms.app,
        deadline_at=deadline,
        time_to_live=terms.time_to_live,
        until_removed=terms.until_removed,
        grace=terms.grace,
        idempotent=terms.idempotent,
        max_attempts=terms.max_attempts,
        keep_result=terms.keep_result,
        stop_reason=None,
        updated_at=now,
    )


# --- running ------------------------------------------------------------------------


def claim(record: CallRecord | None, delivery: Delivery, now: datetime, timing: Timing) -> tuple[Merged | None, Claim]:
    """Decide whether a delivery may run its call; if so, it holds the call from then on."""
    if record is None:
        if delivery.generation is not None:
            return None, Claim(Verdict.STALE, None)
        record = new_record(Enqueued(call_id=delivery.call_id, facts=delivery.facts), delivery.facts, now)
    refusal = _refusal(record, delivery, now)
    if refusal is not None:
        return None, Claim(refusal, record)
    if is_held(record):
        return _claim_held(record, delivery, now, timing)
    adopted = record if record.owned else _on_terms(record, delivery.terms, now)
    before = Merged(adopted, displaced(adopted), _message_of(delivery, record))
    return _claim_free(adopted, delivery, now, timing, before)


def _message_of(delivery: Delivery, record: CallRecord) -> Mapping[str, str | None] | None:
    """Return what is to be kept of the delivery's message: without it the call could not be sent again."""
    is_news = not record.owned or delivery.turn > record.turn
    return {"message": delivery.message} if is_news and delivery.message is not None else None


def _refusal(record: CallRecord, delivery: Delivery, now: datetime) -> Verdict | None:
    if record.is_absent(now) or (delivery.generation or 0) < record.generation:
        return Verdict.STALE
    if record.status.is_terminal:
        return Verdict.SETTLED
    has_ended = record.run == delivery.run.token and record.run_outcome is not None
    return Verdict.STALE if has_ended or delivery.turn < record.turn else None


def _claim_held(record: CallRecord, delivery: Delivery, now: datetime, timing: Timing) -> tuple[Merged | None, Claim]:
    if record.run == delivery.run.token:
        if record.pid == delivery.run.pid:
            return None, Claim(Verdict.GRANTED, record)
        # Celery hands a message on to another process only when that which took it has died.
        record = _renamed(record)
    elif not is_lapsed(record, now, timing):
        return None, Claim(Verdict.HELD, record)
    released = lose(record, now)
    if released.record.status.is_terminal:
        return released, Claim(Verdict.SETTLED, released.record)
    before = replace(released, payload=_message_of(delivery, record))
    return _claim_free(released.record, delivery, now, timing, before)


def _renamed(record: CallRecord) -> CallRecord:
    """Return the row with a name for its run that no other process has: a delivery's token is that of the next run, too."""
    return replace(record, run=f"{record.run}~{record.pid}")


def _claim_free(
    record: CallRecord, delivery: Delivery, now: datetime, timing: Timing, before: Merged
) -> tuple[Merged | None, Claim]:
    ended = _overdue(record, now)
    if ended is not None:
        settled = _settled(ended, before)
        return settled, Claim(Verdict.SETTLED, settled.record)
    # Whatever run the row names is over: the one that claims is the newest, whenever it was delivered.
    free = replace(record, run=None, run_outcome=None)
    due_at = record.due_at if delivery.turn == record.turn else delivery.facts.due_at
    if due_at is not None and due_at - now > EARLY:
        # Whoever has this copy drops it, so from now on it waits with us.
        status = CallStatus.RETRYING if record.runs else CallStatus.SUBMITTED
        waiting = replace(at_turn(free, delivery.turn), status=status, due_at=due_at, published_at=None, send_at=due_at)
        waiting = attended(replace(waiting, updated_at=now))
        return replace(before, record=waiting), Claim(Verdict.EARLY, waiting)
    begun = begin(free, delivery.run, delivery.turn, now)
    held = replace(begun.record, lease_until=now + timedelta(seconds=timing.lease), send_at=None, updated_at=now)
    granted = attended(with_error(held, NO_ERROR))
    return replace(before, record=granted), Claim(Verdict.GRANTED, granted)


def is_held(record: CallRecord) -> bool:
    """Whether a run holds the call: it has claimed it, and nobody has ended that run."""
    return record.owned and record.is_running and record.lease_until is not None


def is_lapsed(record: CallRecord, now: datetime, timing: Timing, *, is_dead: bool = False) -> bool:
    """Whether the run that holds the call counts as lost.

    One that must not run twice is given up only with proof (`is_dead`), or after three leases
    without a sign of life: a single one also lapses on a machine that was stopped for a while.
    """
    if is_dead or record.lease_until is None:
        return True
    patience = timedelta(0) if record.idempotent else timedelta(seconds=2 * timing.lease)
    return record.lease_until + patience <= now


def lose(record: CallRecord, now: datetime, error: ErrorFacts = NO_ERROR) -> Merged:
    """End the run that holds the call because its worker is gone: run again, or FAILED `worker_lost`."""
    if error is NO_ERROR:
        error = ErrorFacts(type="WorkerLost", message="The worker that ran the call is gone.")
    losses = record.losses + 1
    if record.abort_requested_at is not None:
        return _end_of_run(replace(record, losses=losses), _asked_to_end(record), now)
    if not record.idempotent or losses >= record.max_attempts:
        lost = Outcome(status=CallStatus.FAILED, reason=Reason.WORKER_LOST, error=error)
        return _end_of_run(replace(record, losses=losses), lost, now)
    ended = attempt_of(record, AttemptOutcome.INTERRUPTED, now, error)
    free = replace(
        record,
        status=CallStatus.RETRYING,
        run_outcome=AttemptOutcome.INTERRUPTED,
        lease_until=None,
        losses=losses,
        due_at=None,
        published_at=None,
        send_at=now,
        sends=0,
        updated_at=now,
    )
    return Merged(attended(with_error(free, error)), (ended,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Report):
    """A run has ended its call, and could not say so to the store itself."""

    run: RunFacts
    settlement: Settlement


def finish(record: CallRecord | None, run: str, settlement: Settlement, now: datetime) -> Changed:
    """Settle a call by the run that holds it. Anybody else is refused, and nothing changes.

    Applied without a change: this run has ended it so before, and the answer was lost.
    """
    if record is None or record.run != run:
        return NOTHING
    outcome = settlement.outcome
    if not is_held(record):
        return Changed(None, applied=_has_ended_so(record, outcome))
    said = None if settlement.said is None else note(record, run, settlement.said, now).merged
    if said is not None:
        record = said.record
    is_asked = record.abort_requested_at is not None and outcome.status is not CallStatus.SUCCEEDED
    ended = _end_of_run(record, _asked_to_end(record, outcome.error) if is_asked else outcome, now)
    if ended.record.removed_at is not None:
        return Changed(ended, applied=True)
    if not is_asked and (record.keep_result or outcome.status is not CallStatus.SUCCEEDED):
        ended = replace(ended, payload=settlement.payload)
    return Changed(replace(ended, lines=() if said is None else said.lines), applied=True)


def _has_ended_so(record: CallRecord, outcome: Outcome) -> bool:
    """Whether the call ended with its run and with just this outcome, or with what an abort request made of it."""
    if record.status.is_open or record.run_outcome is None:
        return False
    is_aborted = record.status is CallStatus.ABORTED and record.abort_requested_at is not None
    is_same = (record.status, record.reason) == (outcome.status, outcome.reason)
    is_made_of_it = is_aborted and outcome.status is not CallStatus.SUCCEEDED
    return (is_same or is_made_of_it) and record.error_type == outcome.error.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A run asks for another turn: of which number, when, with what message, and why."""

    retries: int
    due_at: datetime | None
    message: str | None
    """None: the one that is kept serves again."""
    error: ErrorFacts = NO_ERROR


def retry(record: CallRecord | None, run: str, wish: Retry, now: datetime, timing: Timing) -> Changed:
    """Give the call up for a further turn. Not applied: the run does not hold it; after an abort request it ends."""
    if record is None or not is_held(record) or record.run != run:
        return NOTHING
    if record.abort_requested_at is not None:
        return Changed(_end_of_run(record, _asked_to_end(record, wish.error), now), applied=False)
    waiting = replace(
        record,
        status=CallStatus.RETRYING,
        retries=wish.retries,
        run=None,
        run_outcome=None,
        lease_until=None,
        updated_at=now,
    )
    waiting = _awaiting(waiting, wish.due_at, now, timing)
    ended = attempt_of(record, AttemptOutcome.RETRIED, now, wish.error)
    return Changed(
        Merged(
            attended(with_error(waiting, wish.error)), (ended,), {"message": wish.message} if wish.message else None
        ),
        applied=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a run says of itself: how far it is, and lines for its log."""

    progress: Progress | None = None
    """None: as it was."""
    lines: tuple[str, ...] = ()


def note(record: CallRecord | None, run: str, said: Note, now: datetime) -> Changed:
    """Keep what the run that holds the call says of itself. What it logs beyond `MAX_LINES` is only counted."""
    if record is None or not is_held(record) or record.run != run:
        return NOTHING
    kept = said.lines[: max(0, MAX_LINES - record.lines)]
    lines = tuple(LogLine(number=record.lines + n, at=now, text=text) for n, text in enumerate(kept, start=1))
    changed = replace(
        record, progress=said.progress or record.progress, lines=record.lines + len(said.lines), updated_at=now
    )
    return Changed(Merged(changed, lines=lines), applied=True)


def renewed(record: CallRecord, run: str, now: datetime, timing: Timing) -> CallRecord | None:
    """Return the row with a new lease, or None: the run does not hold the call (any more)."""
    if not is_held(record) or record.run != run:
        return None
    return attended(replace(record, lease_until=now + timedelta(seconds=timing.lease), updated_at=now))


# --- ending from outside -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRequest:
    """Somebody asks for the end of a call, or its timeout does."""

    reason: str | None = None
    by: str | None = None
    cause: Reason = Reason.ABORTED
    force: bool = False
    """Whether the process that runs it is to be killed: nothing of its own code runs any more."""
    generation: int | None = None
    """Which of the calls that have had the id is meant; None: whichever has it now."""


def request_abort(record: CallRecord | None, request: AbortRequest, now: datetime) -> Changed:
    """Ask for the end of a call: at once if no run holds it. The first request counts; an ended call stays as it is."""
    if record is None or record.is_absent(now) or record.status.is_terminal or is_another(record, request.generation):
        return NOTHING
    if record.abort_requested_at is not None:
        is_news = request.force and not record.abort_force and is_held(record)
        return Changed(Merged(replace(record, abort_force=True, updated_at=now)), applied=True) if is_news else NOTHING
    asked = replace(
        record,
        abort_requested_at=now,
        abort_reason=request.reason,
        abort_by=request.by,
        abort_force=request.force,
        stop_reason=request.cause if record.owned else record.stop_reason,
        updated_at=now,
    )
    asked = attended(asked)
    if not record.owned or is_held(record):
        return Changed(Merged(asked), applied=True)
    return Changed(_settled(_Ending(asked, _asked_to_end(asked), now), Merged(asked)), applied=True)


def impose(record: CallRecord, settlement: Settlement, now: datetime) -> Merged:
    """End an open call from outside, with what readers of its result get. A run that holds it has lost it."""
    if is_held(record):
        ended = _end_of_run(record, settlement.outcome, now)
    else:
        ended = _settled(_Ending(record, settlement.outcome, now), Merged(record, displaced(record)))
    return ended if ended.record.removed_at is not None else replace(ended, payload=settlement.payload)


def remove(record: CallRecord | None, now: datetime, *, when_settled: bool, generation: int | None = None) -> Changed:
    """Let an ended call read as absent and blank what it held; an open one only `when_settled`, once it has ended.

    Not applied: it is open. One of another generation than is meant stays as it is: the one that is meant is gone.
    """
    if record is None or record.is_absent(now):
        return Changed(None if record is None or record.removed_at else _tombstone(record, now), applied=True)
    if is_another(record, generation):
        return Changed(None, applied=True)
    if record.status.is_terminal:
        return Changed(_tombstone(record, now), applied=True)
    if when_settled and not record.remove_when_settled:
        return Changed(Merged(replace(record, remove_when_settled=True, updated_at=now)), applied=False)
    return NOTHING


def is_another(record: CallRecord, generation: int | None) -> bool:
    """Whether the id has passed to another call than the one that is meant."""
    return generation is not None and generation != record.generation


def bury(merged: Merged, now: datetime) -> Merged:
    """Remove a call that has just ended, if somebody asked for that while it was open."""
    return _tombstone(merged.record, now) if merged.record.remove_when_settled else merged


def expire(record: CallRecord, now: datetime) -> Merged | None:
    """Blank a call whose time to live is over: since then only a tombstone is left. None: it is not."""
    if record.removed_at is not None or record.purge_at is None or not record.is_absent(now):
        return None
    return _tombstone(record, record.purge_at)


def is_purged(record: CallRecord, older_than: datetime, now: datetime, timing: Timing) -> bool:
    """Whether a purge of what ended before `older_than` deletes the row.

    A tombstone goes when it has served its time. What has a time to live of its own, or is
    kept until it is removed, waits to become one.
    """
    if record.removed_at is not None:
        return record.removed_at + timedelta(seconds=timing.tombstone) < now
    if record.terminal_at is None or record.purge_at is not None or record.until_removed:
        return False
    return record.terminal_at < older_than


def is_news(record: CallRecord) -> bool:
    """Whether those who wait for the call must be told how it stands: it has ended, or its end was asked for."""
    return record.status.is_terminal or record.abort_requested_at is not None


def _tombstone(record: CallRecord, since: datetime) -> Merged:
    blank: dict[str, Any] = dict.fromkeys(BLANKED)
    return Merged(replace(record, removed_at=since, purge_at=None, **blank), payload=BLANK, forgets_runs=True)


def _asked_to_end(record: CallRecord, error: ErrorFacts = NO_ERROR) -> Outcome:
    return Outcome(status=CallStatus.ABORTED, reason=record.stop_reason or Reason.ABORTED, error=error)


# --- looking after -------------------------------------------------------------------


class Care(StrEnum):
    """What somebody who looks after a call has to do, beyond writing its row."""

    NOTHING = "nothing"
    SEND = "send"
    """Send its message, if pacing allows."""


def attend(
    record: CallRecord | None,
    now: datetime,
    timing: Timing,
    *,
    is_dead: bool = False,
    run: str | None = None,
    may_judge: bool = True,
) -> tuple[Merged | None, Care]:
    """Do what is due for an owned call: its timeout, the loss of its worker, its expiry; else see to its message.

    `is_dead`: the run that holds it is, for sure; `run`: if it is this one. `may_judge` False:
    that a run is silent, or goes on, is not held against it.
    """
    if record is None or not record.owned or record.status.is_terminal or record.removed_at is not None:
        return None, Care.NOTHING
    if is_held(record):
        is_dead = is_dead and run in {None, record.run}
        return _attend_held(record, now, timing, is_dead=is_dead, may_judge=may_judge), Care.NOTHING
    ended = _overdue(record, now)
    if ended is not None:
        return _settled(ended, Merged(record)), Care.NOTHING
    is_to_be_sent = record.send_at is not None and record.send_at <= now
    return None, Care.SEND if is_to_be_sent else Care.NOTHING


def _attend_held(record: CallRecord, now: datetime, timing: Timing, *, is_dead: bool, may_judge: bool) -> Merged | None:
    if is_lapsed(record, now, timing, is_dead=is_dead):
        return lose(record, now) if is_dead or may_judge else None
    if record.abort_requested_at is None:
        if record.deadline_at is None or record.deadline_at > now:
            return None
        return request_abort(record, AbortRequest(cause=Reason.TIMEOUT), now).merged
    if not may_judge or now < _last_moment(record, record.abort_requested_at):
        return None
    ran_on = ErrorFacts(
        type="StillRunning", message="It went on running after its grace; what it does is not recorded."
    )
    return _end_of_run(record, _asked_to_end(record, ran_on), now)


def sent(record: CallRecord, now: datetime, timing: Timing) -> Merged:
    """The message is about to be sent again; the next time follows after twice as long."""
    again = timedelta(seconds=timing.resend_after * 2 ** min(record.sends, 10))
    counted = replace(record, sends=record.sends + 1, published_at=now, send_at=now + again, updated_at=now)
    return Merged(attended(counted))


def put_off(record: CallRecord, now: datetime, timing: Timing) -> Merged:
    """The message waits its turn in a long queue: look again later."""
    later = replace(record, send_at=now + timedelta(seconds=timing.resend_after))
    return Merged(attended(later))


def not_sent(record: CallRecord | None, now: datetime) -> Changed:
    """Whoever was to send the message could not: let the relay do it as soon as it is due."""
    if record is None or not record.owned or record.status.is_terminal or is_held(record):
        return NOTHING
    waiting = replace(
        record,
        published_at=None,
        send_at=max(now, record.due_at or now),
        sends=max(record.sends - 1, 0),
        updated_at=now,
    )
    return Changed(Merged(attended(waiting)), applied=True)


def sent_at(record: CallRecord) -> datetime:
    """Return since when the message stands in its queue, as far as that is known."""
    return max(record.enqueued_at, record.published_at or record.enqueued_at)


def attended(record: CallRecord) -> CallRecord:
    """Return the row with the next moment at which somebody must look after the call."""
    return replace(record, attend_at=min(_moments(record), default=None))


def _moments(record: CallRecord) -> Iterator[datetime]:
    if not record.owned or record.status.is_terminal or record.removed_at is not None:
        return
    if record.abort_requested_at is None and record.deadline_at is not None:
        yield record.deadline_at
    if not is_held(record):
        expires_at = None if record.runs else record.expires_at
        yield from (moment for moment in (record.send_at, expires_at) if moment is not None)
        return
    if record.lease_until is not None:
        yield record.lease_until
    if record.abort_requested_at is not None:
        yield _last_moment(record, record.abort_requested_at)


def _last_moment(record: CallRecord, asked_at: datetime) -> datetime:
    return asked_at + timedelta(seconds=record.grace) + OVERTIME


# --- what signals say ----------------------------------------------------------------


def hear(record: CallRecord, report: Report, now: datetime) -> Merged | None:
    """Return what a signal's report makes of an owned call: little, for its run writes for itself.

    Of a call that a run holds only that run's own parent is heard, on what it cannot say any
    more; of one that no run holds, whoever dropped its message, or ran it without a claim.
    """
    if isinstance(report, Settled):
        return finish(record, report.run.token, report.settlement, now).merged
    if record.status.is_terminal:
        return None
    if is_held(record):
        return _hear_parent(record, report, now)
    return _hear_anybody(record, report, now) if report.turn in {None, record.turn} else None


def _hear_anybody(record: CallRecord, report: Report, now: datetime) -> Merged | None:
    match report:
        case NotRun():
            return _dropped(record, report.outcome, now, may_end=_is_unclaimed(record))
        case Ended(outcome=Outcome() as outcome) if _is_unclaimed(record) and outcome.reason not in _UNDECIDED:
            # By a worker that does not know it as a procedure; to run it once more would be to double it.
            return _settled(_Ending(record, outcome, now), Merged(record))
        case PublishFailed():
            unsent = not_sent(record, now).merged
            return None if unsent is None else replace(unsent, record=with_error(unsent.record, report.error))
    return None


def _hear_parent(record: CallRecord, report: Report, now: datetime) -> Merged | None:
    """The parent of the run that holds the call tells how it was ended; nobody else knows its token."""
    match report:
        case Ended(run=RunFacts(token=token), outcome=Outcome() as outcome) if token == record.run:
            return _told_end(record, outcome, now)
        case Stopping(run=RunFacts(token=token), certain=True, reason=reason) if token == record.run:
            return _told_end(record, stopped(reason), now)
    return None


def _is_unclaimed(record: CallRecord) -> bool:
    """Whether no run has claimed the present turn, and no report can be of an earlier call with this id."""
    return record.run is None and record.generation == 0


def _told_end(record: CallRecord, outcome: Outcome, now: datetime) -> Merged | None:
    match outcome.reason:
        case Reason.WORKER_LOST:
            return lose(record, now, outcome.error)
        case Reason.TIME_LIMIT | Reason.REVOKED:
            is_asked = record.abort_requested_at is not None
            return _end_of_run(record, _asked_to_end(record, outcome.error) if is_asked else outcome, now)
    return None


def _dropped(record: CallRecord, outcome: Outcome, now: datetime, *, may_end: bool) -> Merged:
    is_unreadable = outcome.reason in {Reason.UNKNOWN_TASK, Reason.REJECTED}
    if (is_unreadable or not may_end) and record.sends < UNREADABLE:
        # A worker of another release, or news of another message: this one counts as not delivered.
        return Merged(attended(with_error(replace(record, updated_at=now), outcome.error)))
    return _settled(_Ending(record, outcome, now), Merged(record))


# --- shared --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ending:
    record: CallRecord
    outcome: Outcome
    now: datetime


def _overdue(record: CallRecord, now: datetime) -> _Ending | None:
    """Return how a call that no run holds ends by itself at this moment, if it does."""
    if record.abort_requested_at is not None:
        return _Ending(record, _asked_to_end(record), now)
    if record.deadline_at is not None and record.deadline_at <= now:
        return _Ending(record, Outcome(status=CallStatus.ABORTED, reason=Reason.TIMEOUT), now)
    if record.expires_at is not None and record.expires_at <= now and record.runs == 0:
        return _Ending(record, Outcome(status=CallStatus.DISCARDED, reason=Reason.EXPIRED), now)
    return None


def _settled(ending: _Ending, before: Merged) -> Merged:
    """End a call that no run holds, beside what was changed before."""
    ended = settle(ending.record, ending.outcome, ending.now)
    return _put_to_rest(replace(before, record=ended), ending.now)


def _end_of_run(record: CallRecord, outcome: Outcome, now: datetime) -> Merged:
    """End a call together with the run that holds it."""
    return _put_to_rest(settle_run(record, outcome, now), now)


def _put_to_rest(merged: Merged, now: datetime) -> Merged:
    record = merged.record
    live = record.time_to_live
    rested = replace(
        record,
        lease_until=None,
        send_at=None,
        attend_at=None,
        purge_at=None if live is None else now + timedelta(seconds=live),
        updated_at=now,
    )
    return bury(replace(merged, record=rested), now)
