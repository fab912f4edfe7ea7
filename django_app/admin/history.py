"""The runs of a call, put together from its row and its attempts, and as spans of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_app.admin.display import error_line, exact, short_worker, status_label
from django_app.admin.tracebacks import of_application
from django_app.durations import NOTHING, duration
from django_app.lengths import has_present_run
from django_app.models import Attempt, Call
from django_app.timeline import Span
from lrp_celery.core.text import clean_tail
from lrp_celery.tracking.record import AttemptOutcome
from lrp_celery.tracking.status import CallStatus

#: Characters of a traceback, and of an error beside others: many of them make a page.
MOST_TRACEBACK: Final = 12_000
MOST_ERROR: Final = 300

OUTCOME_LABELS = {
    AttemptOutcome.RETRIED: gettext_lazy("retried"),
    AttemptOutcome.REPLACED: gettext_lazy("replaced"),
    AttemptOutcome.REQUEUED: gettext_lazy("given back"),
    AttemptOutcome.INTERRUPTED: gettext_lazy("interrupted"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a call. Without `outcome` it goes on, or, if `is_unheard`, nobody has reported its end."""

    number: int
    worker: str | None = None
    pid: int | None = None
    redelivered: bool = False
    late: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    is_unheard: bool = False
    error_type: str | None = None
    last_error: str | None = None
    traceback: str | None = None
    is_traced: bool = False
    """Whether it has a traceback; that of an old one is read only if it is asked for."""

    @property
    def kind(self) -> str:
        """The CSS class of how it ended."""
        if self.outcome is None:
            return "unheard" if self.is_unheard else "started"
        return self.outcome if self.outcome in set(AttemptOutcome) else "unknown"

    @property
    def label(self) -> str:
        """How it ended, in words."""
        if self.outcome is None:
            return _("no end reported") if self.is_unheard else _("running")
        if self.outcome in OUTCOME_LABELS:
            return str(OUTCOME_LABELS[AttemptOutcome(self.outcome)])
        return status_label(self.outcome)

    @property
    def length(self) -> timedelta | None:
        """How long it took, if both ends are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(self.ended_at - self.started_at, timedelta(0))

    @property
    def took(self) -> str:
        """How long it took, as text."""
        return duration(self.length)

    @property
    def started(self) -> str:
        """When it started, as text."""
        return NOTHING if self.started_at is None else exact(self.started_at)

    @property
    def application(self) -> str | None:
        """Its traceback without frames of libraries; None: there is no more to leave out."""
        brief = of_application(self.traceback) if self.traceback else None
        return None if brief is None else clean_tail(brief, MOST_TRACEBACK)

    @property
    def whole(self) -> str:
        """Its traceback, as much of its end as a page shows."""
        return clean_tail(self.traceback or "", MOST_TRACEBACK)

    @property
    def error(self) -> str:
        """Its error, on one line."""
        return error_line(self.error_type, self.last_error, MOST_ERROR)


def runs_of(call: Call, attempts: Sequence[Attempt], tracebacks: Mapping[int, str] | None = None) -> list[Run]:
    """Return the call's runs by number, with those `tracebacks` that were read, by their attempts' keys.

    What the newest run did stands on the row itself; it has an attempt beside it only if it
    did not simply succeed.
    """
    runs = [_of_attempt(call, attempt, tracebacks or {}) for attempt in attempts]
    stands_on_row = call.attempt > 0 and all(attempt.number != call.attempt for attempt in attempts)
    if stands_on_row:
        runs.append(_of_row(call))
    return sorted(runs, key=lambda run: run.number)


def _of_attempt(call: Call, attempt: Attempt, tracebacks: Mapping[int, str]) -> Run:
    is_present = attempt.run == call.run and call.status == CallStatus.STARTED
    return Run(
        number=attempt.number,
        worker=attempt.worker,
        pid=attempt.pid,
        redelivered=attempt.redelivered,
        late=attempt.late,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        is_unheard=attempt.outcome is None and not is_present,
        error_type=attempt.error_type,
        last_error=attempt.last_error,
        traceback=tracebacks.get(attempt.pk),
        is_traced=attempt.pk in tracebacks or getattr(attempt, "is_traced", False),
    )


def _of_row(call: Call) -> Run:
    outcome = call.run_outcome
    if outcome is None and call.is_terminal:
        outcome = call.status
    elif outcome is None and call.status == CallStatus.RETRYING:
        outcome = AttemptOutcome.RETRIED
    failed = outcome is not None and outcome != AttemptOutcome.SUCCEEDED
    return Run(
        number=call.attempt,
        worker=call.worker,
        pid=call.pid,
        redelivered=call.redelivered,
        started_at=call.started_at,
        ended_at=call.terminal_at,
        outcome=outcome,
        error_type=call.error_type if failed else None,
        last_error=call.last_error if failed else None,
    )


def spans_of(call: Call, runs: Sequence[Run], now: datetime) -> list[Span]:
    """Return what the call did from when it was asked for to its end, or to `now`: waits and runs."""
    end = call.terminal_at or max(now, call.enqueued_at)
    known = sorted(_started(runs), key=lambda pair: pair[1])
    spans: list[Span] = []
    free_from = call.enqueued_at
    for index, (run, started_at) in enumerate(known):
        if started_at > free_from:
            # The row knows only when its newest turn was due.
            due = call.due_at if run.number == call.attempt and has_present_run(call) else None
            spans.extend(_waits(free_from, started_at, due, is_first=index == 0))
        following = known[index + 1][1] if index + 1 < len(known) else None
        ended_at = max(run.ended_at or _unheard_end(run, following, end, now), started_at)
        spans.append(_run_span(run, started_at, ended_at))
        free_from = max(free_from, ended_at)
    if free_from < end and not (known and known[-1][0].outcome is None):
        due = None if has_present_run(call) else call.due_at
        spans.extend(_waits(free_from, end, due, is_first=not known))
    return spans


def _started(runs: Sequence[Run]) -> Iterator[tuple[Run, datetime]]:
    for run in runs:
        if run.started_at is not None:
            yield run, run.started_at


def _unheard_end(run: Run, following: datetime | None, end: datetime, now: datetime) -> datetime:
    """Draw a run without an end until the next one begins, the call ends, or now."""
    if following is not None:
        return following
    return now if run.late else end


def _run_span(run: Run, start: datetime, end: datetime) -> Span:
    length = duration(end - start)
    title = _("Attempt %(number)s: %(outcome)s, %(length)s") % {
        "number": run.number,
        "outcome": run.label,
        "length": length,
    }
    words = f"{run.number}: {length}"
    worker = short_worker(run.worker or "")
    if run.late:
        title = _("%(attempt)s; late, so it does not count") % {"attempt": title}
    return Span(
        kind=f"run lrp-{run.kind}" + (" late" if run.late else ""),
        start=start,
        end=end,
        texts=(*([f"{words} · {worker}"] if worker else []), words, str(run.number)),
        title=f"{title}, {run.worker}" if run.worker else title,
    )


def _waits(start: datetime, end: datetime, due: datetime | None, *, is_first: bool) -> Iterator[Span]:
    """Split a wait where the call became due: before that it waits on purpose, after it for a worker."""
    if due is not None and start < due < end:
        yield _wait("held", start, due, _("waited until due, %(length)s"))
        start = due
    elif due is not None and due >= end:
        yield _wait("held", start, end, _("waits until due, %(length)s"))
        return
    if is_first or due is not None:
        yield _wait("queued", start, end, _("queued, %(length)s"))
    else:
        yield _wait("held", start, end, _("between two attempts, %(length)s"))


def _wait(kind: str, start: datetime, end: datetime, title: str) -> Span:
    length = duration(end - start)
    said = title % {"length": length}
    return Span(kind=kind, start=start, end=end, texts=(said, length), title=said)
