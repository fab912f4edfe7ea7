"""What a caller needs to know of a call."""

from __future__ import annotations

from enum import StrEnum

from lrp_celery.tracking.status import CallStatus


class CallState(StrEnum):
    """Whether a call has come to its end (seed 000, LRP-09)."""

    PENDING = "pending"
    """It is to run, or runs."""
    SETTLED = "settled"
    """It has ended, in whatever way."""

    @classmethod
    def of(cls, status: CallStatus) -> CallState:
        """Return the state that a status means."""
        return cls.SETTLED if status.is_terminal else cls.PENDING
