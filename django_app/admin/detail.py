"""Everything the page of one call shows, gathered by a fixed number of bounded queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db.models import BooleanField, Case, ExpressionWrapper, F, Q, TextField, Value, When
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_app.admin.conditions import Flag, flags_of
from django_app.admin.display import badge, exact, moment, short_id
from django_app.admin.history import Run, runs_of, spans_of
from django_app.admin.payloads import Kept, kept_of
from django_app.admin.relatives import Lineage, Relative, earlier_calls, lineage_of
from django_app.admin.sentence import sentence
from django_app.durations import duration
from django_app.lengths import run_time_of, wait_of
from django_app.models import ActionLog, Attempt, Call, LogLine
from django_app.querysets import CallQuerySet
from django_app.timeline import Timeline, lay_out
from lrp_celery.procedures.deeds import id_of_rerun
from lrp_celery.tracking.snapshot import Progress

#: Attempts shown, the newest.
MOST_ATTEMPTS: Final = 50
#: Those of them whose tracebacks are shown unasked.
MOST_TRACED: Final = 2
#: Lines of its log, the newest.
MOST_LINES: Final = 100
#: Things that were done to it, the newest.
MOST_DEEDS: Final = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the summary: `value` None shows that there is nothing."""

    label: str
    value: SafeString | str | None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Facts under one heading."""

    title: str
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Log:
    """What a procedure's call has logged: (time, text), the newest last."""

    lines: Sequence[tuple[str, str]]
    earlier: int
    """How many lines before these are not shown."""
    later: int
    """How many lines after these were not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that a person or code did to the call."""

    at: SafeString | str
    by: str | None
    label: str
    outcome: str
    reason: str | None
    again: str | None
    """The id of the call that runs in its stead, if that is what came of it."""

    @property
    def short_again(self) -> str:
        """The end of that id."""
        return short_id(self.again or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """The page of one call."""

    call: Call
    now: datetime
    badge: SafeString
    sentence: str
    timeline: Timeline | None
    runs: Sequence[Run]
    hidden_runs: int
    asked: int | None
    """The attempt whose traceback was asked for."""
    sections: Sequence[Section]
    lineage: Lineage
    earlier: Sequence[Relative]
    flags: Sequence[Flag] = field(default_factory=list)
    kept: Sequence[Kept] = ()
    log: Log | None = None
    deeds: Sequence[Deed] = ()

    @property
    def first(self) -> str:
        """Where the timeline begins."""
        return exact(self.timeline.start) if self.timeline else ""

    @property
    def last(self) -> str:
        """Where the timeline ends; an open call's goes on."""
        if self.timeline is None:
            return ""
        return exact(self.timeline.end) if self.call.is_terminal else _("now")

    @property
    def took(self) -> str:
        """How long the timeline is."""
        return duration(self.timeline.length) if self.timeline else ""


def detail_of(
    call: Call,
    now: datetime,
    calls: CallQuerySet,
    *,
    shows_payload: bool = False,
    shows_deeds: bool = False,
    attempt: int | None = None,
) -> Detail:
    """Return what the page of `call` shows; `calls` are those that may be linked to.

    `shows_payload`: also what is kept of what it was given, returned or raised, without what keys hide.
    `shows_deeds`: also who did what to it. `attempt`: whose traceback is shown besides those of the newest.
    """
    attempts = _attempts(call, calls.db, attempt)
    actions = list(ActionLog.objects.using(calls.db).filter(call_id=call.pk).order_by("-at")[:MOST_DEEDS])
    runs = runs_of(call, attempts[:MOST_ATTEMPTS], _tracebacks(attempts[:MOST_ATTEMPTS], attempt))
    return Detail(
        call=call,
        now=now,
        badge=badge(call.status),
        sentence=sentence(call, now),
        flags=flags_of(call, now),
        timeline=lay_out(spans_of(call, runs, now)),
        runs=runs[::-1],
        asked=attempt,
        hidden_runs=max(0, call.runs - len(runs)) if len(attempts) > MOST_ATTEMPTS else 0,
        sections=[*_sections(call, now)],
        lineage=lineage_of(call, now, calls, _reruns(actions)),
        earlier=earlier_calls(call, now, calls),
        kept=kept_of(call, calls.db) if shows_payload else (),
        log=_log(call, calls.db),
        deeds=_deeds(actions, now) if shows_deeds else (),
    )


# --- its attempts


def _attempts(call: Call, alias: str, asked: int | None) -> list[Attempt]:
    """Return the newest attempts, with the tracebacks of those that may be shown: others stay in the table."""
    is_shown = Q(number__gt=call.attempt - MOST_TRACED - 1) | Q(number=asked)
    traced = ExpressionWrapper(Q(traceback__isnull=False), output_field=BooleanField())
    text = Case(When(is_shown, then=F("traceback")), default=Value(None), output_field=TextField())
    found = Attempt.objects.using(alias).filter(call_id=call.pk).defer("traceback")
    return list(found.annotate(is_traced=traced, text=text).order_by("-number")[: MOST_ATTEMPTS + 1])


def _tracebacks(attempts: Sequence[Any], asked: int | None) -> dict[int, str]:
    """Return, by the attempts' keys, those of the newest that have one, and that which was asked for."""
    traced = [attempt for attempt in attempts if attempt.text is not None]
    return {a.pk: a.text for place, a in enumerate(traced) if place < MOST_TRACED or a.number == asked}


# --- the summary


def _sections(call: Call, now: datetime) -> Iterator[Section]:
    yield _times(call, now)
    yield _place(call)
    yield _origin(call)
    if call.abort_requested_at is not None:
        yield _abort(call, now)
    if call.owned:
        yield _procedure(call)


def _times(call: Call, now: datetime) -> Section:
    facts = [
        _time(_("Enqueued"), call.enqueued_at, now),
        _time(_("Started (newest attempt)") if call.attempt > 1 else _("Started"), call.started_at, now),
        _time(_("Ended"), call.terminal_at, now),
        Fact(_("Wait"), duration(wait_of(call, now)), _("From when it was due to the start of the newest attempt.")),
        Fact(_("Run"), duration(run_time_of(call, now)), _("How long the newest attempt took.")),
        _time(_("Last heard of"), call.updated_at, now),
    ]
    optional = [
        (_("Due"), call.due_at),
        (_("Must start before"), call.expires_at),
        (_("Deadline"), call.deadline_at),
        (_("Purged after"), call.purge_at),
    ]
    facts.extend(_time(label, instant, now) for label, instant in optional if instant is not None)
    return Section(_("Times"), facts)


def _time(label: str, instant: datetime | None, now: datetime) -> Fact:
    if instant is None:
        return Fact(label, None)
    return Fact(label, format_html("{} <small>({})</small>", exact(instant), moment(instant, now)))


def _place(call: Call) -> Section:
    return Section(
        _("Where it ran"),
        [
            Fact(_("Queue"), call.queue),
            Fact(_("Worker"), call.worker),
            Fact(_("Process"), None if call.pid is None else str(call.pid)),
            Fact(_("Attempts"), str(call.attempt)),
            Fact(_("Retries"), str(call.retries)),
            Fact(_("Redelivered"), _("yes") if call.redelivered else _("no")),
            Fact(_("Acknowledged"), _("after the run") if call.acks_late else _("before the run")),
        ],
    )


def _origin(call: Call) -> Section:
    facts = [
        Fact(_("Code"), call.source_script),
        Fact(_("Process"), call.source_node),
        Fact(_("Host"), call.source_instance_id),
        Fact(_("Schedule"), call.schedule),
    ]
    if call.owner:
        facts.append(Fact(_("Owner"), call.owner))
    return Section(_("Who asked for it"), facts)


def _abort(call: Call, now: datetime) -> Section:
    facts = [
        _time(_("Requested"), call.abort_requested_at, now),
        Fact(_("By"), call.abort_by),
        Fact(_("Reason"), call.abort_reason),
    ]
    return Section(_("Abort requested"), facts)


def _procedure(call: Call) -> Section:
    lost = _("%(lost)s of %(most)s") % {"lost": call.losses, "most": call.max_attempts}
    facts = [
        Fact(_("Progress"), _progress(call.progress)),
        Fact(
            _("Idempotent"), _("yes") if call.idempotent else _("no"), _("Whether it runs again when a worker is lost.")
        ),
        Fact(_("Workers lost"), lost if call.idempotent else str(call.losses)),
        Fact(_("Sent again"), str(call.sends), _("How often its message was sent again.")),
    ]
    return Section(_("Procedure"), facts)


def _progress(said: str | None) -> str | None:
    progress = Progress.from_json(said)
    if progress is None:
        return None
    done = _number(progress.done)
    if progress.total is not None:
        done = _("%(done)s of %(total)s") % {"done": done, "total": _number(progress.total)}
    return f"{done}: {progress.text}" if progress.text else done


def _number(value: float) -> str:
    return number_format(round(value, 2))


# --- what it said and what was done to it


def _log(call: Call, alias: str) -> Log | None:
    newest = LogLine.objects.using(alias).filter(call_id=call.pk).order_by("-number")[:MOST_LINES]
    lines = list(newest)[::-1] if call.lines else []
    if not lines:
        return None
    said = [(exact(line.at), line.text) for line in lines]
    return Log(said, earlier=lines[0].number - 1, later=max(0, call.lines - lines[-1].number))


def _deeds(actions: Sequence[ActionLog], now: datetime) -> list[Deed]:
    return [
        Deed(
            at=moment(action.at, now),
            by=action.by,
            label=action.get_deed_display(),
            outcome=action.outcome,
            reason=action.reason,
            again=id_of_rerun(action.outcome),
        )
        for action in actions
    ]


def _reruns(actions: Sequence[ActionLog]) -> list[str]:
    return [again for action in actions if (again := id_of_rerun(action.outcome)) is not None]
