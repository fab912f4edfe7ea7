"""How long an ended call is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.patterns import matches, specificity
from lrp_celery.tracking.status import TERMINAL, CallStatus

#: Seven days (TRK-21), but a parked call waits for the person who is to handle it.
DEFAULT_RETENTION: Final[Mapping[str, timedelta | None]] = MappingProxyType(
    {
        "*": timedelta(days=7),
        "*:parked": None,
    }
)


class Retention:
    """Rules `task pattern` or `task pattern:status` -> how long to keep; None keeps for ever.

    The most specific rule that fits wins: first by its task pattern (one without wildcards, then
    the one with more literal characters), then one that names the status. Where the same task
    pattern fits with and without a status, the one with it counts.
    """

    def __init__(self, rules: Mapping[str, timedelta | None] = DEFAULT_RETENTION) -> None:
        self._rules = sorted((_parsed(rule, keep) for rule, keep in rules.items()), key=_order, reverse=True)

    def keep(self, task: str, status: CallStatus) -> timedelta | None:
        """Return how long a call of `task` that ended as `status` is kept; None: for ever."""
        for pattern, named, keep in self._rules:
            if named in {None, status} and matches(task, (pattern,)):
                return keep
        return None

    def keep_handled(self, task: str, status: CallStatus) -> timedelta | None:
        """Return how long such a call is kept once its failure is handled, from then on; None: for ever.

        A rule that keeps what ended so for ever does so until somebody has handled it, so it does not count here.
        """
        for pattern, named, keep in self._rules:
            is_until_handled = named is not None and keep is None
            if named in {None, status} and not is_until_handled and matches(task, (pattern,)):
                return keep
        return None

    def ends(
        self, task: str, status: CallStatus, terminal_at: datetime, handled_at: datetime | None
    ) -> datetime | None:
        """Return when the call may go; None: not yet known, or never."""
        keep, since = self.keep(task, status), terminal_at
        if keep is None and handled_at is not None:
            keep, since = self.keep_handled(task, status), handled_at
        return None if keep is None else since + keep


_Rule = tuple[str, CallStatus | None, timedelta | None]


def _order(rule: _Rule) -> tuple[tuple[bool, int], bool]:
    return specificity(rule[0]), rule[1] is not None


def _parsed(rule: object, keep: object) -> _Rule:
    if not isinstance(rule, str) or not rule:
        raise ConfigurationError(f"{rule!r} is not a task pattern; write e.g. 'reports.*' or 'reports.*:failed'.")
    if keep is not None and (not isinstance(keep, timedelta) or keep <= timedelta(0)):
        raise ConfigurationError(f"{rule!r} keeps {keep!r}: pass a timedelta above 0, or None for ever.")
    pattern, colon, status = rule.rpartition(":")
    if not colon:
        return rule, None, keep
    if status not in set(TERMINAL):
        raise ConfigurationError(f"{rule!r} ends in {status!r}, which is not one of {', '.join(sorted(TERMINAL))}.")
    return pattern, CallStatus(status), keep
