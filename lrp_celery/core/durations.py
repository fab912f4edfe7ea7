"""Durations as users give them: a `timedelta`, or a number of seconds."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lrp_celery.core.errors import ConfigurationError

#: A century: whoever means longer means None, and no database has an instant for it.
LONGEST: Final = timedelta(days=36_525).total_seconds()


def seconds(value: object, name: str) -> float | None:
    """Return a duration above 0 in seconds, None (unlimited) for None; `ConfigurationError` speaks of it as `name`."""
    if value is None:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= LONGEST:
        raise ConfigurationError(
            f"{name} is {value!r:.100}: pass a timedelta or a number of seconds above 0, a century at most, or None for unlimited."
        )
    return float(number)
