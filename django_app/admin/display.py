"""How values look: pure functions from a value to text or a piece of HTML."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_app.durations import NOTHING, ago
from django_app.models import STATUS_LABELS
from lrp_celery.core.text import clean
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus

#: Characters of the arguments in a list.
PREVIEW: Final = 80
#: Characters of an error in a sentence.
ERROR: Final = 200

_SHORT: Final = 12
_TAIL: Final = 8


def badge(status: str) -> SafeString:
    """Return a status as a coloured label that can be read without its colour."""
    kind = status if status in set(CallStatus) else "unknown"
    return format_html('<span class="lrp-badge lrp-{}">{}</span>', kind, status_label(status))


def status_label(status: str) -> str:
    """Return a status in words; one that is not known by its name."""
    return str(STATUS_LABELS[CallStatus(status)]) if status in set(CallStatus) else status


def progress_bar(said: str | None) -> SafeString | str:
    """Return how far a call says it is as a bar, with the numbers as text; nothing if it does not say, or of what."""
    progress = Progress.from_json(said)
    if progress is None or not progress.total or progress.total < 0:
        return ""
    share = f"{min(max(progress.done / progress.total, 0), 1) * 100:.0f}"
    words = f"{share} %: {progress.text}" if progress.text else f"{share} %"
    return format_html(
        '<svg class="lrp-progress" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{0}"><title>{0}</title>'
        '<rect class="lrp-whole" width="100" height="4"/><rect width="{1}" height="4"/></svg>'
        '<span class="lrp-under">{2} %</span>',
        words,
        share,
        share,
    )


def exact(instant: datetime) -> str:
    """Return an instant to the millisecond, in the current time zone, with that zone's name."""
    local = timezone.localtime(instant)
    return f"{local.replace(tzinfo=None).isoformat(sep=' ', timespec='milliseconds')} {local.tzname()}"


def number(value: int) -> str:
    """Return a number as people write it."""
    return str(number_format(value, use_l10n=True, force_grouping=True))


def clock_time(instant: datetime) -> str:
    """Return an instant as a clock shows it, in the current time zone."""
    return date_format(timezone.localtime(instant), "H:i:s")


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
