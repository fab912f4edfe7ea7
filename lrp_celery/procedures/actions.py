"""What people do to calls, for the record."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lrp_celery.core.text import clean
from lrp_celery.tracking.store import MAX_ERROR, MAX_NAME


class Deed(StrEnum):
    """What was done."""

    ABORT = "abort"
    RERUN = "rerun"
    RESEND = "resend"
    HANDLE = "handle"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Somebody did something to a call."""

    deed: Deed
    call_id: str
    outcome: str
    """What came of it, in a few words."""
    by: str | None = None
    reason: str | None = None


def name_of_user(by: Any) -> str | None:
    """Return how somebody is called: a text as it is, a Django user by the name he logs in with."""
    if by is None:
        return None
    named = getattr(by, "get_username", None)
    return clean(str(by if named is None else named()), MAX_NAME)


def bounded(reason: str | None) -> str | None:
    """Return a reason as stores keep it."""
    return None if reason is None else clean(reason, MAX_ERROR)
