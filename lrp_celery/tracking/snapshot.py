"""What a reader learns of a call."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from lrp_celery.tracking.status import CallStatus

#: So far may a call have come: more cannot be reckoned with.
_MOST: Final = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a call says it is: `done` of `total` (None: unknown), and a line of text."""

    done: float
    total: float | None = None
    text: str = ""

    def to_json(self) -> str:
        """Return the form in which stores keep it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Progress | None:
        """Return what `to_json` wrote; None for None, and for what anybody else may have written."""
        try:
            said = json.loads(text or "null")
            done, total, words = said["done"], said.get("total"), said.get("text", "")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        is_sound = _is_number(done) and (total is None or _is_number(total)) and isinstance(words, str)
        return cls(done=done, total=total, text=words) if is_sound else None


def _is_number(value: object) -> bool:
    # What is no number at all is never less than one.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSnapshot:
    """One call as its store knew it at one moment; it does not follow the call (TRK-18).

    Every instant is aware and in UTC. For Celery, seed 003's `kind` is `task`, its
    `targetSummary` the bounded and redacted arguments, and its sources say who published:
    `source_instance_id` the host, `source_script` the module and function or the schedule,
    `source_node` the publishing process (Celery's `origin`).
    """

    call_id: str
    task: str
    status: CallStatus
    reason: str | None = None
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

    @property
    def is_terminal(self) -> bool:
        """Whether the call has ended and will not change again."""
        return self.status.is_terminal
