"""What a spool says of runs that have begun and not ended, once their process is dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lrp_celery.tracking.reports import Ended, ErrorFacts, GivenUp, Outcome, Report, Started, Unwound
from lrp_celery.tracking.rescue import lost
from lrp_celery.tracking.spool.stamps import Stamp
from lrp_celery.tracking.status import CallStatus, Reason

_UNKNOWN: Final = Outcome(
    status=CallStatus.DISCARDED,
    reason=Reason.LOST,
    error=ErrorFacts(
        message="How it ended is not known: its process is gone, and had to drop reports, for its spool was full."
    ),
)
_DEAD: Final = "The process that ran it is gone: it was killed, or it crashed."


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun, and the process that runs it."""

    started: Started
    stamp: Stamp
    pid: int


class Unended:
    """The runs of one worker that have begun and of which nobody has said how they ended."""

    def __init__(self) -> None:
        self._runs: dict[str, Begun] = {}

    def hear(self, report: Report, stamp: Stamp, pid: int) -> None:
        """Take notice of a report that was written by the process `pid`."""
        if isinstance(report, Started):
            # The last one counts: Celery hands a delivery on whose process died before its main process knew that it ran.
            self._runs[report.run.token] = Begun(report, stamp, pid)
        elif isinstance(report, Ended) and report.run is not None:
            self._runs.pop(report.run.token, None)

    def take(self, pid: int) -> list[Begun]:
        """Return those of a process, and forget them."""
        taken = [begun for begun in self._runs.values() if begun.pid == pid]
        for begun in taken:
            del self._runs[begun.started.run.token]
        return taken

    def has(self, pid: int) -> bool:
        """Whether there are any of this process."""
        return any(begun.pid == pid for begun in self._runs.values())


def verdict(begun: Begun, *, parent_lives: bool, may_have_ended: bool = False) -> Report:
    """Return what has become of a run whose process is dead and of which nobody else has spoken (RULES 21).

    The broker delivers again what was not acknowledged when the whole worker died, or what a main process that lives gives back.
    `may_have_ended`: its process has dropped reports, and its end may be one of them.
    """
    started, run = begun.started, begun.started.run
    if run.acks_late and (not parent_lives or run.reject_on_worker_lost):
        error = lost(f"{_DEAD} The broker delivers the message again.")
        return Unwound(call_id=started.call_id, turn=started.turn, facts=started.facts, run=run, error=error)
    outcome = (
        _UNKNOWN if may_have_ended else Outcome(status=CallStatus.FAILED, reason=Reason.WORKER_LOST, error=lost(_DEAD))
    )
    return GivenUp(call_id=started.call_id, turn=started.turn, facts=started.facts, run=run, outcome=outcome)
