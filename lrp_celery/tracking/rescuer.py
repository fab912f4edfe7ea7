"""Looks through the open observed calls again and again, and settles those of which nothing more will be heard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from lrp_celery.core.errors import StoreError, StoreUnavailable
from lrp_celery.tracking.callstore import REMEMBERED, CallStore, WorkerFacts
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import GivenUp, Report
from lrp_celery.tracking.rescue import Patience, Roster, judge

logger = logging.getLogger("lrp_celery.rescue")

#: Seconds that one round takes, about, while nobody is known to have died.
BRIEF: Final = 0.05


class Attendance:
    """Remembers the workers that were there: one whose row is gone was told to end, or has said goodbye."""

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience
        self._seen: dict[str, datetime] = {}

    def call(self, workers: Sequence[WorkerFacts]) -> Roster:
        """Return who is alive and who is gone, by who answers now and who did before."""
        heard = {worker.boot_id: worker.seen_at for worker in workers if worker.seen_at is not None}
        latest = max(heard.values(), default=None)
        if latest is not None:
            kept = {boot_id: at for boot_id, at in self._seen.items() if at >= latest - REMEMBERED}
            self._seen = {**kept, **heard}
        goodbyes = {boot_id: at for boot_id, at in self._seen.items() if boot_id not in heard}
        return Roster.of(heard, goodbyes, self._patience)


class Rescuer:
    """One of any number, in any processes, on one store: each verdict is written only over the row that was judged.

    Whoever uses it gives signs of life himself, and has been heard for a lease: else the silence of
    others may be his own.
    """

    def __init__(self, store: CallStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience
        self._attendance = Attendance(patience.gone)
        self._after: datetime | None = None
        self._mourned: frozenset[str] = frozenset()
        self._mourning: frozenset[str] = frozenset()

    def round(self, seconds: float) -> int:
        """Look on from where the last round stopped; return how many calls were judged.

        It takes BRIEF seconds at most, however many calls are open. When a worker has died all of
        them are looked through from the first on, and a round takes up to `seconds`.
        """
        roster = self._muster()
        return self._walk(roster, time.monotonic() + (seconds if self._mourning else min(BRIEF, seconds)))

    def sweep(self) -> int:
        """Look through all open calls; return how many were judged."""
        self._after = None
        return self._walk(self._muster(), math.inf)

    def _muster(self) -> Roster:
        workers = list(self._store.workers())
        roster = self._attendance.call(workers)
        # Those that have said goodbye have ended their runs before; what little is left of them can wait.
        dead = frozenset(roster.gone) & {worker.boot_id for worker in workers}
        if dead - self._mourned - self._mourning:
            self._mourning, self._after = dead, None
        self._mourned &= dead
        return roster

    def _walk(self, roster: Roster, until: float) -> int:
        judged = 0
        while True:
            found = self._store.suspects(self._after, self._patience, roster.gone)
            for record in found.records:
                judged += self._judge(record, roster, found.now)
                if time.monotonic() > until:
                    # What was judged is no longer suspicious: the same stretch holds the rest.
                    return judged
            self._after = found.until
            if found.until is None:
                self._mourned, self._mourning = self._mourned | self._mourning, frozenset()
            if found.until is None or time.monotonic() > until:
                return judged

    def _judge(self, record: CallRecord, roster: Roster, now: datetime) -> bool:
        verdict = judge(record, roster.fate_of(record.run), now, self._patience)
        if verdict is None or not self._conclude(record, verdict):
            return False
        what = verdict.outcome.reason if isinstance(verdict, GivenUp) else "interrupted"
        logger.info("Call %s of %s: %s.", record.call_id, record.task, what)
        return True

    def _conclude(self, record: CallRecord, verdict: Report) -> bool:
        try:
            return self._store.conclude(record, verdict)
        except StoreUnavailable:
            raise
        except StoreError as error:
            # It must not stand in the way of the others.
            logger.warning("Call %s could not be judged: %s", record.call_id, error)
            return False
