"""Several reports of one call, merged into one change: what arrives together is written together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lrp_celery.core.values import replace
from lrp_celery.tracking.merge import merge, run_of
from lrp_celery.tracking.record import AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import Ended, Outcome, Report, RunFacts, Started, Told
from lrp_celery.tracking.status import CallStatus
from lrp_celery.tracking.steps import Merged, both

_FIRST: Final = Turn()
_SUCCESS: Final = Outcome(status=CallStatus.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class PlainRun:
    """What nearly all reports say of a call: how long ago its first run began, how long ago it succeeded, or both."""

    call_id: str
    run: RunFacts
    began: timedelta | None
    ended: timedelta | None


def plain_run(told: Sequence[Told]) -> PlainRun | None:
    """Return what all the reports of a call say, if that is no more; None: it is.

    What it makes of a row that is as it was made, or of one that was begun by just this run, needs no rule to be told.
    """
    match [each.report for each in told]:
        case [Started() as started] if _is_plain_start(started):
            return PlainRun(started.call_id, started.run, told[0].age, None)
        case [Ended(run=RunFacts() as run) as ended] if ended.outcome == _SUCCESS:
            return PlainRun(ended.call_id, run, None, told[0].age)
        case [Started() as started, Ended(run=RunFacts() as run) as ended] if (
            run.token == started.run.token and ended.outcome == _SUCCESS and _is_plain_start(started)
        ):
            return PlainRun(started.call_id, started.run, told[0].age, told[1].age)
    return None


def _is_plain_start(started: Started) -> bool:
    return started.turn == _FIRST and started.run.pid is not None and started.run.started_at is not None


def by_call(told: Iterable[Told]) -> dict[str, list[Told]]:
    """Return the reports of each call, in their order."""
    calls: dict[str, list[Told]] = {}
    for each in told:
        calls.setdefault(each.report.call_id, []).append(each)
    return calls


def runs_of(told: Iterable[Told]) -> set[str]:
    """Return the tokens of the runs that reports speak of."""
    return {run for each in told if (run := run_of(each.report)) is not None}


def fold(
    record: CallRecord | None, attempts: Mapping[str, AttemptRecord], told: Sequence[Told], now: datetime
) -> Merged | None:
    """Return what `told` makes of a call, one report after the other; None when they change nothing.

    `record` is the call's row, `attempts` the rows of `runs_of(told)` that there are, by run, and `now` the
    store's time: each report counts from as long before it as it is old.
    """
    changed: Merged | None = None
    runs = dict(attempts)
    for each in told:
        at = now - each.age
        merged = merge(record, runs.get(run_of(each.report) or ""), _dated(each.report, at), at)
        if merged is None:
            continue
        record = merged.record
        runs.update({attempt.run: attempt for attempt in merged.attempts})
        changed = both(changed, merged)
    return changed


def _dated(report: Report, at: datetime) -> Report:
    """Let a run have started when that was said: by the store's clock, and not by its worker's."""
    if not isinstance(report, Started) or report.run.started_at is None:
        return report
    return replace(report, run=replace(report.run, started_at=at))
