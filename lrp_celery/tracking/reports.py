"""What can be learned of a call: one value for each kind of news.

Reports are facts, not commands: they may be lost, doubled, late and in any order, and
`lrp_celery.tracking.merge` decides what they change. A report that carries `facts` may
create the row of an observed call; one without never does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.status import CallStatus, Reason

# Facts are without slots, for they are copied as a whole (`lrp_celery.core.values`).


@dataclass(frozen=True, kw_only=True)
class CallFacts:
    """What a message says about its call; enough to make the row."""

    task: str
    target_summary: str | None = None
    source_instance_id: str | None = None
    source_script: str | None = None
    source_node: str | None = None
    queue: str | None = None
    owner: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    schedule: str | None = None
    rerun_of: str | None = None
    enqueued_at: datetime | None = None
    """When it was asked for; None: now."""
    due_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a worker says about one run.

    `token` tells runs apart, also those of one turn: there the greater one is the later one.
    """

    token: str
    worker: str | None = None
    pid: int | None = None
    redelivered: bool = False
    acks_late: bool = False
    reject_on_worker_lost: bool = False
    started_at: datetime | None = None
    """By the worker's clock, kept within [enqueued_at, now]; None: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """An exception, as text: bounded, cleaned and redacted by whoever made this."""

    type: str | None = None
    message: str | None = None
    traceback: str | None = None
    http_status: int | None = None


NO_ERROR = ErrorFacts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended."""

    status: CallStatus
    reason: Reason | None = None
    error: ErrorFacts = NO_ERROR


class Again(StrEnum):
    """A run ended, and the call did not."""

    RETRIED = "retried"
    REPLACED = "replaced"
    REQUEUED = "requeued"

    def turn_after(self, turn: Turn) -> Turn:
        """Return the turn that the call then waits for: a new one, or the same again."""
        match self:
            case Again.RETRIED:
                return Turn(turn.nesting, turn.retries + 1)
            case Again.REPLACED:
                return Turn(turn.nesting + 1, 0)
            case Again.REQUEUED:
                return turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """News of one call. `turn` None: the reporter does not know which."""

    call_id: str
    turn: Turn | None = field(default=Turn())
    facts: CallFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued(Report):
    """Somebody asks for the call; its message is about to go out.

    `message`: its arguments as `keeping` keeps them; None: they are not kept. A row that exists gets none.
    """

    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Report):
    """A message for a further turn (retry, replacement) went out; the turn has not begun."""

    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Report):
    """The publish raised. The broker may have the message all the same."""

    error: ErrorFacts = NO_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Report):
    """The message went out after all: told only where an earlier publish of the call had raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Report):
    """A run began."""

    run: RunFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Report):
    """A run ended by itself or was ended for good: with an outcome, or to be run again.

    `run` None: the reporter does not know which; the newest is meant.
    """

    run: RunFacts | None
    outcome: Outcome | Again
    error: ErrorFacts = NO_ERROR
    """Why it is run again; an `Outcome` holds its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwound(Report):
    """A run was unwound from outside (kill, shutdown); by itself this says nothing of the call's end."""

    run: RunFacts
    error: ErrorFacts = NO_ERROR
    """Why, where whoever says so knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping(Report):
    """A signal was sent to end a run. `certain`: nothing can survive it (SIGKILL)."""

    run: RunFacts | None
    reason: Reason
    certain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun(Report):
    """A message was dropped without running: revoked, expired, rejected, unknown."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverSent(Report):
    """The call was to follow another one, which has ended so that it will not be sent: makes its row, already ended."""

    outcome: Outcome
    after: str | None = None
    """The call between those two; if that was sent after all, nothing is known of this one. None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp(Report):
    """Nothing more is expected of a call (`lrp_celery.tracking.rescue`): inferred from silence, and told by nobody.

    It counts only for the run that was judged (`run` None: for the turn that none has begun). That
    run may still live: what it says later of its end is kept as a late one.
    """

    run: RunFacts | None
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecorded(Report):
    """`TrackingStore.record_attempt` was called; `turn.retries` is the absolute count."""

    status: CallStatus
    error: ErrorFacts = NO_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalRecorded(Report):
    """`TrackingStore.record_terminal` was called."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """A report that reaches the store only now, and how long ago it was true."""

    report: Report
    age: timedelta = timedelta()
