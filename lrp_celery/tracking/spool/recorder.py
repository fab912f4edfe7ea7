"""The recorder that leaves the work to somebody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lrp_celery.tracking.recorder import Recorder
from lrp_celery.tracking.reports import Enqueued, Report
from lrp_celery.tracking.spool.spool import Spool, open_spool


class SpoolRecorder:
    """Writes reports to the worker's spool, and everything else as `in_place` does.

    In place are written: the row of a new call, which is to be there before its message; what is
    reported outside of workers, or inside of a caller (eager mode); and all that the disk does not take. `place` tells
    which store the reports are for (None: one that no other process reaches).
    """

    def __init__(self, in_place: Recorder, place: Callable[[], str | None]) -> None:
        self._in_place = in_place
        self._place = place
        self._known: tuple[Spool, bool] | None = None

    def record(self, report: Report, *, inline: bool = False) -> None:
        """Bring the report on its way."""
        spool = open_spool()
        is_for_spool = spool is not None and not inline and not isinstance(report, Enqueued) and self._fits(spool)
        if spool is None or not is_for_spool or not spool.append(report):
            self._in_place.record(report, inline=inline)

    def record_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of calls that are asked for, in place."""
        self._in_place.record_all(reports)

    def _fits(self, spool: Spool) -> bool:
        """Whether the spool is of the store that the reports are for."""
        known = self._known
        if known is None or known[0] is not spool:
            known = self._known = spool, self._place() == spool.place
        return known[1]
