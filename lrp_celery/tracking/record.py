"""What stores keep of a call: one row, and one for each run that did not simply succeed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from lrp_celery.tracking.snapshot import CallSnapshot, Progress
from lrp_celery.tracking.status import CallStatus, Reason


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """Which life of a call a report speaks of; a higher turn outweighs every lower one (RULE: turn, then rank).

    `nesting` counts `Task.replace`, which starts `retries` again from 0 under the same id.
    """

    nesting: int = 0
    retries: int = 0


class AttemptOutcome(StrEnum):
    """How a run ended; the first four are also how a call may end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PARKED = "parked"
    ABORTED = "aborted"
    DISCARDED = "discarded"
    RETRIED = "retried"
    """It asked for a retry, which is a turn of its own."""
    REPLACED = "replaced"
    """It put another task in its place, which is a turn of its own under the same id."""
    REQUEUED = "requeued"
    """It gave its message back: the broker delivers the same turn again."""
    INTERRUPTED = "interrupted"
    """It was unwound from outside; whoever did it may still say why."""

    @property
    def is_final(self) -> bool:
        """Whether no later report says more about this run."""
        return self is not AttemptOutcome.INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One run of a call. `outcome` None: nobody has reported its end (yet, or ever)."""

    run: str
    number: int
    retries: int
    nesting: int = 0
    worker: str | None = None
    pid: int | None = None
    redelivered: bool = False
    late: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: AttemptOutcome | None = None
    error_type: str | None = None
    last_error: str | None = None
    traceback: str | None = None

    @property
    def turn(self) -> Turn:
        """The turn it ran in."""
        return Turn(self.nesting, self.retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """Something that a call said of itself, in its own words: bounded and redacted by whoever made this."""

    number: int
    """Counted from 1 within its call."""
    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """The row of a call: what `CallSnapshot` shows, and what merging reports needs.

    Without slots: it is copied as a whole (`lrp_celery.core.values`), and made of all its `values` at once.
    `run` is the token of the newest run of the present turn, None before the turn has one.
    """

    call_id: str
    task: str
    status: CallStatus = CallStatus.SUBMITTED
    reason: Reason | None = None
    retries: int = 0
    attempt: int = 0
    queue: str | None = None
    worker: str | None = None
    target_summary: str | None = None
    source_instance_id: str | None = None
    source_script: str | None = None
    source_node: str | None = None
    owner: str | None = None
    last_error: str | None = None
    error_type: str | None = None
    http_status: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    schedule: str | None = None
    rerun_of: str | None = None
    progress: Progress | None = None
    enqueued_at: datetime
    started_at: datetime | None = None
    updated_at: datetime
    terminal_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    purge_at: datetime | None = None
    abort_requested_at: datetime | None = None

    # Not shown by a snapshot.
    handled_at: datetime | None = None
    """Since when somebody has dealt with its failure."""
    handled_by: str | None = None
    due_at: datetime | None = None
    published_at: datetime | None = None
    """When the message went out; None: it is not known to have got out."""
    nesting: int = 0
    runs: int = 0
    late_runs: int = 0
    run: str | None = None
    run_outcome: AttemptOutcome | None = None
    pid: int | None = None
    redelivered: bool = False
    acks_late: bool = False
    stop_reason: Reason | None = None
    """Why the present run is being stopped, until it has stopped."""
    version: int = 0
    """Counts writes: a store replaces a row only in the version that it has read."""

    # Owned calls only (`lrp_celery.tracking.owned`).
    owned: bool = False
    """Whether we decide if it may run, and what its outcome is."""
    app: str | None = None
    """The Celery app that sends its message: another one may have another broker."""
    generation: int = 0
    """How often the id was given to a new call after an earlier one had been removed."""
    idempotent: bool = False
    max_attempts: int = 1
    losses: int = 0
    """Runs that ended because their worker was lost."""
    grace: float = 0.0
    """Seconds between a request to end and the interrupt."""
    time_to_live: float | None = None
    until_removed: bool = False
    keep_result: bool = True
    lease_until: datetime | None = None
    """Until when the present run holds the call, unless its lease is renewed."""
    send_at: datetime | None = None
    """When its message is sent (again), unless somebody has claimed it by then."""
    sends: int = 0
    """How often the relay has sent the message of the present turn."""
    attend_at: datetime | None = None
    """When somebody must look after the call, unless something happens before."""
    abort_reason: str | None = None
    abort_by: str | None = None
    abort_force: bool = False
    """Whether the process that runs it is to be killed for it."""
    removed_at: datetime | None = None
    """Since when the call reads as absent: only a tombstone is left, against late copies of its message."""
    remove_when_settled: bool = False
    """Whether somebody waits to be told of its end."""
    lines: int = 0
    """Lines that it has logged."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> CallRecord:
        """Return the record that has exactly these values, one for each field."""
        made = object.__new__(cls)
        made.__dict__.update(values)
        return made

    def values(self) -> dict[str, Any]:
        """Return the value of each field."""
        return dict(self.__dict__)

    @property
    def turn(self) -> Turn:
        """The highest turn that is known of."""
        return Turn(self.nesting, self.retries)

    @property
    def is_running(self) -> bool:
        """Whether a run of the present turn has begun and nobody has reported its end."""
        return self.run is not None and self.run_outcome is None and self.status.is_open

    def is_absent(self, now: datetime) -> bool:
        """Whether readers do not see the call any more: it was removed, or its time to live is over."""
        if self.removed_at is not None:
            return True
        return self.status.is_terminal and self.purge_at is not None and self.purge_at <= now

    def snapshot(self) -> CallSnapshot:
        """Return the public view."""
        return CallSnapshot(**{name: getattr(self, name) for name in _SHOWN})


_SHOWN = tuple(field.name for field in fields(CallSnapshot))
