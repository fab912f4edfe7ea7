"""How lengths of time look."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

#: What stands where there is nothing to show.
NOTHING: Final = "\N{EN DASH}"

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


def duration(length: timedelta | None) -> str:
    """Return a length of time in at most two units: "340 ms", "12.3 s", "4 min 5 s", "2 h 10 min", "3 d 4 h"."""
    if length is None:
        return NOTHING
    length = max(length, timedelta(0))
    if length < _SECOND:
        return _("%(count)s ms") % {"count": round(length / timedelta(milliseconds=1)) or "<1"}
    if length < _MINUTE:
        return _("%(count)s s") % {"count": number_format(int(length / _SECOND * 10) / 10, 1)}
    if length < _HOUR:
        return _two(length, _MINUTE, _SECOND, _("%(large)s min"), _("%(large)s min %(small)s s"))
    if length < _DAY:
        return _two(length, _HOUR, _MINUTE, _("%(large)s h"), _("%(large)s h %(small)s min"))
    return _two(length, _DAY, _HOUR, pgettext("days", "%(large)s d"), pgettext("days", "%(large)s d %(small)s h"))


def _two(length: timedelta, large: timedelta, small: timedelta, whole: str, mixed: str) -> str:
    units, rest = divmod(length, large)
    parts = {"large": units, "small": rest // small}
    return (mixed if parts["small"] else whole) % parts


def ago(instant: datetime, now: datetime) -> str:
    """Return an instant as seen from `now`: "just now", "3 min ago", "in 2 h"."""
    distance = now - instant
    if abs(distance) < _SECOND:
        return _("just now")
    if distance > timedelta(0):
        return _("%(length)s ago") % {"length": _rough(distance)}
    return _("in %(length)s") % {"length": _rough(-distance)}


def _rough(length: timedelta) -> str:
    for unit in (_DAY, _HOUR, _MINUTE, _SECOND):
        if length >= unit:
            return duration(length // unit * unit) if unit is not _SECOND else _whole_seconds(length)
    return duration(length)


def _whole_seconds(length: timedelta) -> str:
    return _("%(count)s s") % {"count": length // _SECOND}
