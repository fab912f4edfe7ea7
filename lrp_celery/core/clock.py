"""Where the time comes from, so that tests can decide it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from lrp_celery.core.errors import ConfigurationError


class Clock(Protocol):
    """Tells the time; always aware, always UTC."""

    def now(self) -> datetime:
        """Return the current instant in UTC. May repeat or step backwards with the host's clock."""
        ...


class SystemClock:
    """The host's own clock."""

    def now(self) -> datetime:
        """Return the host's current time in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is told otherwise; for tests."""

    def __init__(self, start: datetime) -> None:
        self._now = require_aware(start)

    def now(self) -> datetime:
        """Return the instant it was last set to."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move by `by` (negative moves back) and return the new instant."""
        self._now += by
        return self._now


def require_aware(instant: datetime, name: str = "datetime") -> datetime:
    """Return `instant` in UTC; a naive one is a `ConfigurationError` (TRK-23)."""
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise ConfigurationError(
            f"{name} is naive: {instant!r}. Pass an aware datetime, e.g. datetime.now(timezone.utc)."
        )
    return instant.astimezone(UTC)
