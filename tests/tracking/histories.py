"""True histories of one call, for property tests: what really happened, as reports in true order.

A clean history never has two runs at once and ends at most once. A tangled one does not keep to
that: messages are doubled, or a run goes on after it has published its own retry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import (
    NO_ERROR,
    Again,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
    Published,
    PublishFailed,
    Report,
    RunFacts,
    Started,
    Stopping,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.status import CallStatus, Reason

CALL_ID = "the-call"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
#: Every report of a message carries what can make the row.
FACTS = CallFacts(task="tasks.example", enqueued_at=BEGIN)

#: How a run, or the call instead of a run, may end for good; None: nobody ever says.
ENDS: dict[str, Outcome | None] = {
    "succeeded": Outcome(status=CallStatus.SUCCEEDED),
    "failed": Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="ValueError", message="bad", http_status=502)),
    "parked": Outcome(status=CallStatus.PARKED, reason=Reason.MAX_RETRIES, error=ErrorFacts(type="OSError")),
    "ignored": Outcome(status=CallStatus.DISCARDED, reason=Reason.IGNORED),
    "rejected": Outcome(status=CallStatus.DISCARDED, reason=Reason.REJECTED),
    "time limit": Outcome(status=CallStatus.FAILED, reason=Reason.TIME_LIMIT, error=ErrorFacts(type="TimeLimit")),
    "worker lost": Outcome(status=CallStatus.FAILED, reason=Reason.WORKER_LOST, error=ErrorFacts(type="Lost")),
    "never heard of": None,
}
#: How a message may be dropped without a run.
DROPS: dict[str, Outcome] = {
    "revoked": Outcome(status=CallStatus.DISCARDED, reason=Reason.REVOKED),
    "expired": Outcome(status=CallStatus.DISCARDED, reason=Reason.EXPIRED),
    "unknown": Outcome(status=CallStatus.DISCARDED, reason=Reason.UNKNOWN_TASK, error=ErrorFacts(type="NotFound")),
}
#: What the worker's main process says, which knows less of its child's run, or not even which it is.
BY_PARENT = frozenset({"time limit", "worker lost"})


@dataclass(frozen=True, slots=True)
class History:
    """What was reported, in true order, and how the call truly ended (None: nobody knows)."""

    reports: tuple[Report, ...]
    end: Outcome | None = None


@st.composite
def clean(draw: st.DrawFn, copy: str = "a") -> History:
    """One run at a time, one end."""
    return _stamped(draw(_plain(copy)))


@st.composite
def tangled(draw: st.DrawFn) -> History:
    """Runs that overlap: two deliveries of everything, or a run that outlives its own retry."""
    if draw(st.booleans()):
        return _stamped(History(_interleave(draw, draw(_plain("a")).reports, draw(_plain("b")).reports)))
    early, late = _survivor(draw)
    rest = draw(_plain("b", retries=1)).reports
    return _stamped(History((*early, *_interleave(draw, rest, late))))


def any_history() -> st.SearchStrategy[History]:
    """Clean or tangled."""
    return st.one_of(clean(), tangled())


@st.composite
def arrivals(draw: st.DrawFn, history: History) -> tuple[list[Report], list[Report]]:
    """A subset of the reports in true order, and the same in any order with some of them doubled."""
    kept = draw(st.lists(st.booleans(), min_size=len(history.reports), max_size=len(history.reports)))
    subset = [report for report, keep in zip(history.reports, kept, strict=True) if keep]
    doubles = draw(st.lists(st.sampled_from(subset), max_size=3)) if subset else []
    return subset, _news_of_publishes_in_order(draw(st.permutations([*subset, *doubles])))


def _news_of_publishes_in_order(arrived: list[Report]) -> list[Report]:
    """One process tells of its own publishes, one after the other: that they failed, then that one succeeded."""
    places = [place for place, report in enumerate(arrived) if isinstance(report, PublishFailed | Published)]
    news = sorted((arrived[place] for place in places), key=lambda report: isinstance(report, Published))
    for place, report in zip(places, news, strict=True):
        arrived[place] = report
    return arrived


@st.composite
def _plain(draw: st.DrawFn, copy: str, retries: int = 0) -> History:
    story = _Story(draw, copy, Turn(0, retries))
    for step in draw(st.lists(st.sampled_from(["redelivered", "retry", "replace"]), max_size=4)):
        if step == "redelivered":
            story.runs_in_vain()
        else:
            story.asks_for_more(Again.RETRIED if step == "retry" else Again.REPLACED)
    how = draw(st.sampled_from([*ENDS, *DROPS, "terminated", "killed", "waits"]))
    if how in DROPS:
        end: Outcome | None = story.is_dropped(DROPS[how])
    elif how in ENDS:
        end = story.ends(how, ENDS[how])
    else:
        end = None if how == "waits" else story.is_stopped(certain=how == "killed")
    return History(tuple(story.reports), end)


class _Story:
    """Tells what happens to one message and those that follow it, one thing after the other."""

    def __init__(self, draw: st.DrawFn, copy: str, turn: Turn) -> None:
        self.draw = draw
        self.copy = copy
        self.turn = turn
        self.runs = 0
        self.runs_of_turn = 0
        self.acks_late = draw(st.booleans())
        self.reports: list[Report] = []
        if turn == Turn():
            self.reports.append(Enqueued(call_id=CALL_ID, facts=FACTS))
            if draw(st.integers(0, 9)) == 0:
                self.tell(PublishFailed, error=ErrorFacts(type="Broken"))
                if draw(st.booleans()):
                    self.tell(Published)

    def tell(self, kind: type[Any], **details: Any) -> None:
        self.reports.append(_told(kind, self.turn, **details))

    def begins(self) -> RunFacts:
        self.runs += 1
        self.runs_of_turn += 1
        # Of two tokens of a call the later one sorts later.
        token = f"{self.runs}{self.copy}"
        run = RunFacts(
            token=token, worker="w1", pid=self.runs, redelivered=self.runs_of_turn > 1, acks_late=self.acks_late
        )
        self.tell(Started, run=run)
        return run

    def runs_in_vain(self) -> None:
        """A run, after which the broker delivers the same message again."""
        run = self.begins()
        how = self.draw(st.sampled_from(["lost", "requeued", "cancelled", "interrupted"]))
        if how == "requeued":
            self.tell(Ended, run=run, outcome=Again.REQUEUED)
        elif how == "cancelled":
            self.tell(Ended, run=_by_parent(run), outcome=Again.REQUEUED)
        elif how == "interrupted":
            self.tell(Unwound, run=run)

    def asks_for_more(self, again: Again) -> None:
        """A run that publishes the next turn, and then says so."""
        run = self.begins()
        error = ErrorFacts(type="Again", message=f"try {self.turn.retries}") if again is Again.RETRIED else NO_ERROR
        after = again.turn_after(self.turn)
        self.reports.append(_told(Waiting, after, due_at=BEGIN + timedelta(hours=1)))
        self.tell(Ended, run=run, outcome=again, error=error)
        self.turn, self.runs_of_turn = after, 0

    def is_dropped(self, outcome: Outcome) -> Outcome:
        self.tell(NotRun, outcome=outcome)
        return outcome

    def is_stopped(self, *, certain: bool) -> Outcome:
        run = self.begins()
        # Of several runs of one turn, nobody could tell which one an unnamed report means.
        named = self.runs_of_turn > 1 or self.draw(st.booleans())
        who = _by_parent(run) if named else None
        stop = _told(Stopping, self.turn, run=who, reason=Reason.REVOKED, certain=certain)
        # The parent's word and the child's have no order; a killed child has none.
        words = [stop] if certain else self.draw(st.permutations([stop, _told(Unwound, self.turn, run=run)]))
        self.reports += words
        return Outcome(status=CallStatus.DISCARDED, reason=Reason.REVOKED)

    def ends(self, how: str, outcome: Outcome | None) -> Outcome | None:
        run = self.begins()
        if how == "worker lost" and self.draw(st.booleans()):
            self.tell(Unwound, run=run)
        teller = self.draw(st.sampled_from([_by_parent(run), None])) if how in BY_PARENT else run
        if outcome is not None:
            self.tell(Ended, run=teller, outcome=outcome)
        return outcome


def _survivor(draw: st.DrawFn) -> tuple[list[Report], list[Report]]:
    """`retry(throw=False)`: a run publishes its retry, goes on, and ends as it likes."""
    run = RunFacts(token="survivor", worker="w1", pid=99)
    early = [
        Enqueued(call_id=CALL_ID, facts=FACTS),
        _told(Started, Turn(), run=run),
        _told(Waiting, Turn(0, 1)),
    ]
    end = draw(st.sampled_from([end for end in ENDS.values() if end is not None]))
    return early, [_told(Ended, Turn(), run=run, outcome=end)]


def _by_parent(run: RunFacts) -> RunFacts:
    return RunFacts(token=run.token, worker=run.worker)


def _interleave(draw: st.DrawFn, one: Sequence[Report], other: Sequence[Report]) -> tuple[Report, ...]:
    places = set(draw(st.permutations(range(len(one) + len(other))))[: len(one)])
    first, second = iter(one), iter(other)
    return tuple(next(first if place in places else second) for place in range(len(one) + len(other)))


def _told(kind: type[Any], turn: Turn, **details: Any) -> Report:
    report: Report = kind(call_id=CALL_ID, turn=turn, facts=FACTS, **details)
    return report


def _stamped(history: History) -> History:
    """Let every run begin when its `Started` stands in the history, a second for each report."""
    begun = {
        report.run.token: BEGIN + timedelta(seconds=place + 1)
        for place, report in enumerate(history.reports)
        if isinstance(report, Started)
    }

    def stamp(report: Any) -> Report:
        run: RunFacts | None = getattr(report, "run", None)
        if run is None or run.pid is None:
            stamped: Report = report
        else:
            stamped = replace(report, run=replace(run, started_at=begun[run.token]))
        return stamped

    return History(tuple(stamp(report) for report in history.reports), history.end)


def error_of(report: Report) -> ErrorFacts:
    """Return the error that a report tells of."""
    outcome = getattr(report, "outcome", None)
    if isinstance(outcome, Outcome):
        return outcome.error
    error: ErrorFacts = getattr(report, "error", NO_ERROR)
    return error
