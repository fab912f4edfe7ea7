"""What is remarkable about a call, seen from its row alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_app.conf import options
from django_app.durations import ago, duration
from django_app.models import Call
from django_app.querysets import PATIENCE
from lrp_celery.tracking.record import AttemptOutcome
from lrp_celery.tracking.status import CallStatus


class Level(StrEnum):
    """How much a flag asks for attention."""

    QUIET = "quiet"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Flag:
    """A remark beside a call: some words, and what they mean."""

    text: str
    title: str
    level: Level = Level.WARNING


def is_silent(call: Call, now: datetime) -> bool:
    """Whether `CallQuerySet.silent` has the call."""
    if call.is_terminal:
        return False
    heard = now - timedelta(seconds=options().SILENT_AFTER)
    unheard = call.updated_at < heard and (call.due_at is None or call.due_at < heard)
    return unheard or (call.run is None and call.expires_at is not None and call.expires_at < now)


def is_overdue(call: Call, now: datetime) -> bool:
    """Whether `CallQuerySet.overdue` has the call."""
    if call.is_terminal or call.run is not None:
        return False
    return (call.due_at or call.updated_at) < now - PATIENCE


def is_unpublished(call: Call) -> bool:
    """Whether publishing the call raised, and nobody has heard of it since."""
    return call.status == CallStatus.SUBMITTED and call.published_at is None and call.last_error is not None


def is_interrupted(call: Call) -> bool:
    """Whether the newest run was unwound from outside and the call waits for what comes of it."""
    return not call.is_terminal and call.run_outcome == AttemptOutcome.INTERRUPTED


def flags_of(call: Call, now: datetime) -> list[Flag]:
    """Return what is remarkable about the call, the worst first."""
    return [*_bad(call, now), *_strange(call), *_coming(call, now), *_quiet(call)]


def _bad(call: Call, now: datetime) -> list[Flag]:
    flags = []
    if is_unpublished(call):
        flags.append(Flag(_("publish failed"), _("The broker did not take the message."), Level.BAD))
    if is_silent(call, now):
        heard = ago(call.updated_at, now)
        flags.append(Flag(_("silent"), _("Last heard of %(ago)s.") % {"ago": heard}, Level.BAD))
    elif is_overdue(call, now):
        late = duration(now - (call.due_at or call.updated_at))
        flags.append(Flag(_("overdue"), _("It should have begun %(late)s ago.") % {"late": late}))
    return flags


def _strange(call: Call) -> list[Flag]:
    flags = []
    if is_interrupted(call):
        flags.append(Flag(_("interrupted"), _("Its newest run was cut off from outside.")))
    if call.redelivered:
        flags.append(Flag(_("redelivered"), _("The broker delivered its message again.")))
    if call.late_runs:
        text = ngettext("%(count)s late run", "%(count)s late runs", call.late_runs) % {"count": call.late_runs}
        flags.append(Flag(text, _("It ran, or ended, again after it had its outcome.")))
    if call.abort_requested_at is not None and not call.is_terminal:
        flags.append(Flag(_("abort asked"), _("Somebody asked for its end.")))
    return flags


def _coming(call: Call, now: datetime) -> list[Flag]:
    if call.is_terminal or call.due_at is None or call.due_at <= now:
        return []
    when = {"when": ago(call.due_at, now)}
    retrying = call.status == CallStatus.RETRYING
    text = _("retries %(when)s") % when if retrying else _("due %(when)s") % when
    return [Flag(text, _("It is not meant to begin earlier."), Level.QUIET)]


def _quiet(call: Call) -> list[Flag]:
    flags = []
    if call.schedule:
        flags.append(Flag(f"beat: {call.schedule}", _("Sent by this entry of the beat schedule."), Level.QUIET))
    if call.handled_at is not None:
        flags.append(Flag(_("handled"), _("Somebody has dealt with its failure."), Level.QUIET))
    if call.rerun_of:
        flags.append(Flag(_("rerun"), _("It repeats an earlier call."), Level.QUIET))
    return flags
