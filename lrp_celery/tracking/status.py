"""Where a call stands, and which steps are allowed."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from lrp_celery.core.errors import InvalidStatus


class CallStatus(StrEnum):
    """Where a call stands in detail (seed 003).

    The first three are open, the other five are terminal: they never change again.
    """

    SUBMITTED = "submitted"
    """Asked for; no run has begun (seed 003: Submitted)."""
    STARTED = "started"
    """A run has begun and has not ended."""
    RETRYING = "retrying"
    """A run has ended and another is to follow (seed 003: Retrying)."""
    SUCCEEDED = "succeeded"
    """The task returned (seed 003: Delivered)."""
    FAILED = "failed"
    """The task raised, or was stopped, and will not be tried again (seed 003: Failed)."""
    PARKED = "parked"
    """Its retries are exhausted: a person decides (seed 003: Parked)."""
    ABORTED = "aborted"
    """Somebody asked for its end, or its timeout passed."""
    DISCARDED = "discarded"
    """Never ran to an end, by decision of the system (seed 003: Discarded)."""

    @property
    def is_terminal(self) -> bool:
        """Whether a call in this status never changes again."""
        return self in TERMINAL

    @property
    def is_open(self) -> bool:
        """Whether a call in this status may still change."""
        return self in OPEN

    @property
    def rank(self) -> int:
        """How far along the status is within one turn; a call never goes to a lower one.

        STARTED and RETRYING share a rank: they alternate when the broker delivers again.
        """
        return _RANKS[self]


OPEN: Final = frozenset({CallStatus.SUBMITTED, CallStatus.STARTED, CallStatus.RETRYING})
TERMINAL: Final = frozenset(CallStatus) - OPEN
_RANKS: Final = {CallStatus.SUBMITTED: 0, CallStatus.STARTED: 1, CallStatus.RETRYING: 1} | dict.fromkeys(TERMINAL, 2)


class Reason(StrEnum):
    """Why a call reached its terminal status, where the status alone does not say it."""

    TIMEOUT = "timeout"
    TIME_LIMIT = "time_limit"
    ABORTED = "aborted"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REJECTED = "rejected"
    IGNORED = "ignored"
    WORKER_LOST = "worker_lost"
    PUBLISH_FAILED = "publish_failed"
    LOST = "lost"
    MAX_RETRIES = "max_retries"
    BAD_RESULT = "bad_result"
    UNKNOWN_TASK = "unknown_task"
    INTERNAL_ERROR = "internal_error"


def require_open(status: CallStatus | str) -> CallStatus:
    """Return `status` as a `CallStatus`; `InvalidStatus` unless it is an open one (TRK-12)."""
    return _require(status, OPEN, "record_attempt takes an open status; a terminal one goes to record_terminal")


def require_terminal(status: CallStatus | str) -> CallStatus:
    """Return `status` as a `CallStatus`; `InvalidStatus` unless it is a terminal one (TRK-16)."""
    return _require(status, TERMINAL, "record_terminal takes a terminal status; an open one goes to record_attempt")


def _require(status: CallStatus | str, allowed: frozenset[CallStatus], why: str) -> CallStatus:
    try:
        found = CallStatus(status)
    except ValueError:
        found = None
    if found is None or found not in allowed:
        names = ", ".join(sorted(allowed))
        raise InvalidStatus(f"{status!r} is not one of {names}: {why}.")
    return found
