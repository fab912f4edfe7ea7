"""Everything the page of one call shows, gathered by a fixed number of bounded queries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.db.models import F
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_app.admin.conditions import Flag, flags_of, run_time_of, wait_of
from django_app.admin.display import PREVIEW, badge, error_line, exact, moment, short_id, short_task
from django_app.admin.history import Run, runs_of, spans_of
from django_app.admin.sentence import sentence
from django_app.durations import NOTHING, duration
from django_app.models import Attempt, Call, LogLine, Payload
from django_app.querysets import CallQuerySet
from django_app.timeline import Timeline, lay_out
from lrp_celery.core.text import clean
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus

#: Attempts shown, the newest.
MOST_ATTEMPTS: Final = 50
#: Calls of the same tree that are read, and those of them that are listed as children.
MOST_RELATIVES: Final = 200
MOST_CHILDREN: Final = 20
#: Earlier calls of the same task.
MOST_EARLIER: Final = 10
#: Lines of its log, the newest.
MOST_LINES: Final = 100
#: Characters of a result, or of what is kept of an error.
MOST_PAYLOAD: Final = 20_000

_BRIEF: Final = (
    "call_id",
    "task",
    "status",
    "attempt",
    "run",
    "parent_id",
    "group_id",
    "enqueued_at",
    "started_at",
    "terminal_at",
    "error_type",
    "last_error",
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Another call, or only its id where it has no row (any more)."""

    call_id: str
    call: Call | None = None
    task: str = ""
    badge: SafeString | str = ""
    enqueued: SafeString | str = ""
    length: str = NOTHING
    error: str = ""
    share: str = "0%"
    """Its run, as a share of the longest one beside it."""

    @property
    def short_id(self) -> str:
        """The end of its id."""
        return short_id(self.call_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a call came from, and what came of it."""

    root: Relative | None
    parent: Relative | None
    rerun_of: Relative | None
    children: Sequence[Relative]
    more_children: int
    group_id: str | None
    group_size: int
    tree: str | None
    """The id of the root, if the tree has more calls than this one."""
    is_cut: bool
    """Whether the tree has more calls than were read."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a procedure's call has logged: (time, text), the newest last."""

    lines: Sequence[tuple[str, str]]
    earlier: int
    """How many lines before these are not shown."""
    later: int
    """How many lines after these were not kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a procedure's call returned or raised, as JSON to be read by a person."""

    title: str
    text: str
    is_cut: bool


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
    sections: Sequence[Section]
    lineage: Lineage
    earlier: Sequence[Relative]
    flags: Sequence[Flag] = field(default_factory=list)
    kept: Sequence[Kept] = ()
    log: Log | None = None

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


def detail_of(call: Call, now: datetime, calls: CallQuerySet, *, shows_payload: bool = False) -> Detail:
    """Return what the page of `call` shows; `calls` are those that may be linked to.

    `shows_payload`: also what a procedure returned or raised, which nothing has redacted.
    """
    attempts = list(Attempt.objects.using(calls.db).filter(call_id=call.pk).order_by("-number")[: MOST_ATTEMPTS + 1])
    runs = runs_of(call, attempts[:MOST_ATTEMPTS])
    return Detail(
        call=call,
        now=now,
        badge=badge(call.status),
        sentence=sentence(call, now),
        flags=flags_of(call, now),
        timeline=lay_out(spans_of(call, runs, now)),
        runs=runs[::-1],
        hidden_runs=max(0, call.runs - len(runs)) if len(attempts) > MOST_ATTEMPTS else 0,
        sections=[*_sections(call, now)],
        lineage=_lineage(call, now, calls),
        earlier=_earlier(call, now, calls),
        kept=_kept(call, calls.db) if shows_payload and call.owned else (),
        log=_log(call, calls.db),
    )


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


# --- what it said and left


def _log(call: Call, alias: str) -> Log | None:
    newest = LogLine.objects.using(alias).filter(call_id=call.pk).order_by("-number")[:MOST_LINES]
    lines = list(newest)[::-1] if call.lines else []
    if not lines:
        return None
    said = [(exact(line.at), line.text) for line in lines]
    return Log(said, earlier=lines[0].number - 1, later=max(0, call.lines - lines[-1].number))


def _kept(call: Call, alias: str) -> list[Kept]:
    payload = Payload.objects.using(alias).defer("message").filter(pk=call.pk).first()
    if payload is None:
        return []
    # Null is not kept: a call that succeeded and has nothing has returned it.
    nothing = "null" if call.status == CallStatus.SUCCEEDED and call.keep_result else None
    kept = ((_("Result"), payload.result or nothing), (_("What get_result raises"), payload.error))
    return [_readable(title, text) for title, text in kept if text is not None]


def _readable(title: str, text: str) -> Kept:
    try:
        tree = json.loads(text)
        text = json.dumps(tree, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return Kept(title, clean(text, MOST_PAYLOAD), is_cut=len(text) > MOST_PAYLOAD)


# --- other calls


def _lineage(call: Call, now: datetime, calls: CallQuerySet) -> Lineage:
    root_id = call.root_id or call.pk
    descendants = calls.filter(root_id=root_id).exclude(root_id=F("call_id")).order_by().only(*_BRIEF)
    family = sorted(descendants[: MOST_RELATIVES + 1], key=lambda one: (one.enqueued_at, one.pk))
    children = [one for one in family if one.parent_id == call.pk]
    known = {one.pk: one for one in family}
    wanted = {call.root_id, call.parent_id, call.rerun_of} - {None, call.pk, *known}
    known |= calls.only(*_BRIEF).in_bulk([key for key in wanted if key]) if wanted else {}
    return Lineage(
        root=_relative(call.root_id, call, known, now),
        parent=_relative(call.parent_id, call, known, now),
        rerun_of=_relative(call.rerun_of, call, known, now),
        children=_relatives(children[:MOST_CHILDREN], now),
        more_children=max(0, len(children) - MOST_CHILDREN),
        group_id=call.group_id,
        group_size=sum(one.group_id == call.group_id for one in family) if call.group_id else 0,
        tree=root_id if family else None,
        is_cut=len(family) > MOST_RELATIVES,
    )


def _relative(call_id: str | None, call: Call, known: dict[str, Call], now: datetime) -> Relative | None:
    if call_id is None or call_id == call.pk:
        return None
    found = known.get(call_id)
    return Relative(call_id=call_id) if found is None else _relatives([found], now)[0]


def _earlier(call: Call, now: datetime, calls: CallQuerySet) -> list[Relative]:
    before = calls.for_task(call.task).filter(enqueued_at__lte=call.enqueued_at).order_by("-enqueued_at")
    found = [one for one in before.only(*_BRIEF)[: MOST_EARLIER + 1] if one.pk != call.pk]
    return _relatives(found[:MOST_EARLIER], now)


def _relatives(calls: Iterable[Call], now: datetime) -> list[Relative]:
    lengths = [(call, run_time_of(call, now)) for call in calls]
    longest = max((length for _call, length in lengths if length), default=None)
    return [
        Relative(
            call_id=call.pk,
            call=call,
            task=short_task(call.task),
            badge=badge(call.status),
            enqueued=moment(call.enqueued_at, now),
            length=duration(length),
            error=error_line(call.error_type, call.last_error, PREVIEW),
            share=f"{length / longest * 100:.1f}%" if length and longest else "0%",
        )
        for call, length in lengths
    ]
