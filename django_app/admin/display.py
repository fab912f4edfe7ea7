"""How values look: pure functions from a value to text or a piece of HTML."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from django_app.models import STATUS_LABELS
from lrp_celery.core.text import clean
from lrp_celery.tracking.status import CallStatus

#: What stands where there is nothing to show.
NOTHING: Final = "\N{EN DASH}"
#: Characters of the arguments in a list.
PREVIEW: Final = 80
#: Characters of an error in a sentence.
ERROR: Final = 200

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_SHORT: Final = 12
_TAIL: Final = 8


def badge(status: str) -> SafeString:
    """Return a status as a coloured label that can be read without its colour."""
    known = status in set(CallStatus)
    label = STATUS_LABELS[CallStatus(status)] if known else status
    return format_html('<span class="lrp-badge lrp-{}">{}</span>', status if known else "unknown", label)


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


def exact(instant: datetime) -> str:
    """Return an instant to the millisecond, in the current time zone, with that zone's name."""
    local = timezone.localtime(instant)
    return f"{local.replace(tzinfo=None).isoformat(sep=' ', timespec='milliseconds')} {local.tzname()}"


def moment(instant: datetime | None, now: datetime) -> SafeString | str:
    """Return an instant relative to `now`, with the exact time as its title."""
    if instant is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', instant.isoformat(), exact(instant), ago(instant, now)
    )


def short_task(name: str) -> str:
    """Return what follows the last dot of a task's name."""
    return name.rpartition(".")[2] or name


def short_id(call_id: str) -> str:
    """Return the end of an id, which in ids that begin with a time is what tells them apart."""
    return call_id if len(call_id) <= _SHORT else f"…{call_id[-_TAIL:]}"


def short_worker(name: str) -> str:
    """Return a worker's name without the "celery@" that nearly all have in common."""
    return name.removeprefix("celery@") or name


def preview(arguments: str | None, limit: int = PREVIEW) -> str:
    """Return one line of at most `limit` characters."""
    return clean(" ".join((arguments or "").split()), limit)


def error_line(kind: str | None, message: str | None, limit: int = ERROR) -> str:
    """Return an error as one line, "ValueError: no such place", or nothing if there is none."""
    words = preview(message, limit)
    name = short_task(kind) if kind else ""
    return f"{name}: {words}" if name and words else name or words
