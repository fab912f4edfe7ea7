"""What happened to a call, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_app.admin.conditions import is_interrupted, is_overdue, is_silent, is_unpublished
from django_app.admin.display import error_line
from django_app.durations import ago, duration
from django_app.lengths import has_present_run, run_time_of, wait_of
from django_app.models import Call
from lrp_celery.tracking.record import AttemptOutcome
from lrp_celery.tracking.status import CallStatus, Reason


def sentence(call: Call, now: datetime) -> str:
    """Return one sentence, in the current language, that says what became of the call."""
    return _SENTENCES[CallStatus(call.status)](call, now)


def _submitted(call: Call, now: datetime) -> str:
    if is_unpublished(call):
        return _ended_by(_("Could not be published; it will not run unless the broker has the message after all"), call)
    if call.expires_at is not None and call.expires_at < now:
        return _("Expired %(ago)s without having run, and nobody has confirmed it.") % {
            "ago": ago(call.expires_at, now)
        }
    if call.due_at is not None and call.due_at > now:
        return _("Is meant to begin %(when)s.") % {"when": ago(call.due_at, now)}
    waited = {"length": duration(wait_of(call, now)), "queue": call.queue or "?"}
    if is_silent(call, now):
        return _("Asked for, and nothing heard of it for %(length)s; it is probably lost.") % waited
    if is_overdue(call, now):
        return _("Has been waiting in queue “%(queue)s” for %(length)s: no worker takes it.") % waited
    return _("Waits in queue “%(queue)s” for a worker, so far for %(length)s.") % waited


def _started(call: Call, now: datetime) -> str:
    facts = {"length": duration(run_time_of(call, now)), "worker": call.worker or "?", "attempt": call.attempt}
    if is_interrupted(call):
        return _("Attempt %(attempt)s on %(worker)s was cut off; what comes of it has not been reported.") % facts
    if is_silent(call, now):
        return _("Began %(length)s ago on %(worker)s and has not been heard of since.") % facts
    if call.attempt > 1:
        return _("Runs for %(length)s on %(worker)s, at attempt %(attempt)s.") % facts
    return _("Runs for %(length)s on %(worker)s.") % facts


def _retrying(call: Call, now: datetime) -> str:
    attempt = {"attempt": call.attempt}
    if is_interrupted(call):
        return _("Attempt %(attempt)s was cut off; the broker is expected to deliver the call again.") % attempt
    if call.run_outcome == AttemptOutcome.REQUEUED:
        return _("Attempt %(attempt)s gave the call back to the broker, which will deliver it again.") % attempt
    if call.due_at is None:
        what = _("Attempt %(attempt)s asked for a retry") % attempt
    elif call.due_at > now:
        what = _("Attempt %(attempt)s asked for a retry, due %(when)s") % {**attempt, "when": ago(call.due_at, now)}
    else:
        what = _("Attempt %(attempt)s asked for a retry, which was due %(when)s") % {
            **attempt,
            "when": ago(call.due_at, now),
        }
    return _ended_by(what, call)


def _succeeded(call: Call, now: datetime) -> str:
    length = run_time_of(call, now)
    if call.attempt > 1:
        what = _("Succeeded on %(attempt)s") % {"attempt": _attempt(call)}
        return (
            _("%(what)s, which took %(length)s.") % {"what": what, "length": duration(length)} if length else f"{what}."
        )
    if length is None:
        return _("Succeeded.")
    waited = wait_of(call, now)
    if waited is None:
        return _("Succeeded at the first attempt, in %(length)s.") % {"length": duration(length)}
    facts = {"length": duration(length), "wait": duration(waited)}
    return _("Succeeded at the first attempt, in %(length)s after a wait of %(wait)s.") % facts


def _failed(call: Call, now: datetime) -> str:
    facts = {"attempt": _attempt(call), "length": duration(run_time_of(call, now)), "worker": call.worker or "?"}
    ran = call.attempt > 0
    texts = {
        Reason.TIME_LIMIT: _("Was stopped by its time limit on %(attempt)s, after %(length)s"),
        Reason.WORKER_LOST: _("Lost its worker process on %(attempt)s, after %(length)s on %(worker)s"),
        Reason.TIMEOUT: _("Ran out of time on %(attempt)s"),
        Reason.BAD_RESULT: _("Returned a result that cannot be kept, on %(attempt)s"),
        Reason.INTERNAL_ERROR: _("Failed on %(attempt)s by an error of Celery's own"),
    }
    unstarted = {
        Reason.UNKNOWN_TASK: _("Never ran: the worker that got it does not know this task"),
        Reason.WORKER_LOST: _("Lost its worker before any run was reported"),
    }
    reason = _reason(call)
    if ran and has_present_run(call):
        text = texts.get(reason) if reason else None
        return _ended_by((text or _("Failed on %(attempt)s")) % facts, call)
    if reason in unstarted and reason is not None:
        return _ended_by(unstarted[reason], call)
    return _ended_by(_("Failed"), call)


def _parked(call: Call, now: datetime) -> str:
    return _ended_by(_("Gave up on %(attempt)s, and waits for a person to decide") % {"attempt": _attempt(call)}, call)


def _aborted(call: Call, now: datetime) -> str:
    why = _("its timeout passed") if _reason(call) is Reason.TIMEOUT else _("somebody asked for its end")
    if has_present_run(call):
        facts = {"why": why, "attempt": _attempt(call), "length": duration(run_time_of(call, now))}
        return _("Was aborted on %(attempt)s, after %(length)s: %(why)s.") % facts
    if call.attempt:
        return _("Was aborted between two attempts: %(why)s.") % {"why": why}
    return _("Was aborted before it ran: %(why)s.") % {"why": why}


def _discarded(call: Call, now: datetime) -> str:
    reason, facts = _reason(call), {"attempt": _attempt(call), "length": duration(run_time_of(call, now))}
    if has_present_run(call):
        texts = {
            Reason.IGNORED: _("Ended itself without an outcome (Ignore) on %(attempt)s"),
            Reason.REJECTED: _("Refused its own message (Reject) on %(attempt)s"),
            Reason.REVOKED: _("Was revoked while it ran, on %(attempt)s after %(length)s"),
        }
        text = texts.get(reason) if reason else None
        return _ended_by((text or _("Was discarded on %(attempt)s")) % facts, call)
    texts = {
        Reason.EXPIRED: _("Never ran: it had expired when a worker took it"),
        Reason.REVOKED: _("Never ran: it was revoked before a worker took it"),
        Reason.REJECTED: _("Never ran: the worker refused the message"),
        Reason.PUBLISH_FAILED: _("Never ran: it could not be published"),
        Reason.LOST: _("Never ran: nothing was ever heard of it again"),
    }
    if call.attempt:
        texts = {
            Reason.EXPIRED: _("Was not tried again: it had expired when a worker took it"),
            Reason.REVOKED: _("Was not tried again: it was revoked"),
        }
    text = texts.get(reason) if reason else None
    return _ended_by(text or _("Was discarded"), call)


_SENTENCES: Final[dict[CallStatus, Callable[[Call, datetime], str]]] = {
    CallStatus.SUBMITTED: _submitted,
    CallStatus.STARTED: _started,
    CallStatus.RETRYING: _retrying,
    CallStatus.SUCCEEDED: _succeeded,
    CallStatus.FAILED: _failed,
    CallStatus.PARKED: _parked,
    CallStatus.ABORTED: _aborted,
    CallStatus.DISCARDED: _discarded,
}


def _reason(call: Call) -> Reason | None:
    return Reason(call.reason) if call.reason in set(Reason) else None


def _attempt(call: Call) -> str:
    """Return "attempt 3, after 2 retries", or "the first attempt"."""
    if call.attempt <= 1 and not call.retries:
        return _("the first attempt")
    if not call.retries:
        return _("attempt %(attempt)s") % {"attempt": call.attempt}
    text = ngettext(
        "attempt %(attempt)s, after %(count)s retry", "attempt %(attempt)s, after %(count)s retries", call.retries
    )
    return text % {"attempt": call.attempt, "count": call.retries}


def _ended_by(what: str, call: Call) -> str:
    error = error_line(call.error_type, call.last_error)
    return f"{what}: {error}" if error else f"{what}."
