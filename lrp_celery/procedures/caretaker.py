"""Looks after the owned calls of one worker, and after those that nobody looks after.

It says that the worker lives, renews the leases of what its processes run, tells them of
aborts, and does what is due for any call: timeouts, lost workers, messages to be sent. It counts what has ended.
Any number may run at once: each step is one conditional write.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from lrp_celery.core.errors import StoreError
from lrp_celery.procedures.options import name_of
from lrp_celery.procedures.patience import patience_of
from lrp_celery.procedures.relay import Relay
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.procedures.steadiness import Steadiness
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.owned import Care
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.rescuer import Rescuer
from lrp_celery.tracking.spool.drainer import Backlog
from lrp_celery.tracking.status import Reason

logger = logging.getLogger("lrp_celery.caretaker")

#: Of its own: who seeds Python's wants it to himself, and this runs in threads of his process.
_chance: Final = random.SystemRandom()

#: Calls looked after in one round.
BATCH: Final = 100
#: Seconds between two looks for aborts of what runs.
WATCH: Final = 0.25
#: Seconds between two rounds of whatever is due.
TICK: Final = 0.1
#: Seconds between two rounds of counting what has ended, and calls that are counted by one step of it.
COUNT: Final = 15.0
COUNTED: Final = 1_000
#: So many RESCUE_INTERVALs pass, about, between two looks for observed calls of which nothing more is heard.
OBSERVED: Final = 2.5


class Processes(Protocol):
    """What is known of the processes that run calls."""

    def runs(self) -> list[tuple[str, str]]:
        """Return (call id, run) of what runs, in processes that live and are not stopped."""
        ...

    def tell(self, call_id: str, run: str, reason: str | None, cause: Reason, *, force: bool = False) -> object:
        """Tell a run that its call is to end (`force`: with its process); False: it could not be reached."""
        ...

    def is_dead(self, pid: int) -> bool:
        """Whether the process is gone for sure."""
        ...


@dataclass(slots=True)
class _Every:
    """Something that is due again and again."""

    seconds: float
    work: Callable[[], None]
    at: float = 0.0
    jitter: float = 0.0
    """By what part of its seconds it may come earlier or later, so that not all workers do it at once."""

    def do(self, now: float) -> None:
        if now >= self.at:
            self.at = now + self.seconds * _chance.uniform(1 - self.jitter, 1 + self.jitter)
            self.work()


class Caretaker:
    """One worker's; `processes` are its own.

    `backlog` tells what waits in its spools, `has_left` whether a process of this number, once it is
    dead, has left anything there.
    """

    def __init__(
        self,
        app: Any,
        runtime: Runtime,
        worker: WorkerFacts,
        processes: Processes,
        backlog: Callable[[], Backlog] = Backlog,
        has_left: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._backlog = backlog
        self._has_left = has_left
        self._store = runtime.own
        self._app_name = name_of(app)
        self._worker = worker
        self._processes = processes
        self._relay = Relay(app, runtime.own)
        self._told: set[tuple[str, bool]] = set()
        self._steadiness = Steadiness(self._store.timing.lease)
        self._rescuer = Rescuer(runtime.own, patience_of(app, runtime))
        limits = runtime.limits
        self._duties = [
            _Every(min(limits.heartbeat, self._store.timing.lease / 3), self._live),
            _Every(WATCH, self._watch),
            _Every(limits.rescue_interval, self._look_after),
            _Every(OBSERVED * limits.rescue_interval, self._rescue_observed, jitter=0.5),
            _Every(COUNT, self._count, jitter=0.5),
        ]

    def round(self) -> None:
        """Do whatever is due. A store that is away costs this round, not the next."""
        for duty in self._duties:
            try:
                duty.do(time.monotonic())
            except StoreError as error:
                self._steadiness.lost()
                logger.warning("The store of the calls is away: %s", error)
            except Exception:
                # The others' leases must not lapse for it.
                logger.exception("Looking after calls failed; it goes on.")

    def close(self) -> None:
        """Say that the worker has ended."""
        try:
            self._store.forget_worker(self._worker.boot_id)
        except StoreError as error:
            logger.warning("The end of worker %s could not be noted: %s", self._worker.name, error)

    def _live(self) -> None:
        self._store.renew(self._processes.runs())
        backlog = self._backlog()
        self._store.beat(replace(self._worker, waiting=backlog.waiting, dropped=backlog.dropped))
        self._steadiness.heard()

    def _watch(self) -> None:
        runs = dict(self._processes.runs())
        for record in self._store.aborts(list(runs)):
            run = runs[record.call_id]
            news = run, record.abort_force
            if run != record.run or news in self._told:
                continue
            cause = record.stop_reason or Reason.ABORTED
            was_told = self._processes.tell(record.call_id, run, record.abort_reason, cause, force=record.abort_force)
            if was_told is not False:
                self._told.add(news)
        self._told = {news for news in self._told if news[0] in runs.values()}

    def _look_after(self) -> None:
        # What takes longer is left to the next round: meanwhile leases are renewed.
        until = time.monotonic() + self._store.timing.lease / 5
        due = self._store.due(BATCH, self._app_name)
        for call_id in due:
            try:
                is_unsent = self._attend(call_id)
            except StoreError:
                raise
            except Exception:
                logger.exception("Call %s could not be looked after.", call_id)
                self._store.put_off(call_id)
                continue
            if is_unsent and len(due) == BATCH:
                # It must not stand in the way of those that are due later.
                self._store.put_off(call_id)
            if time.monotonic() > until:
                return

    def _rescue_observed(self) -> None:
        if self._steadiness.is_reached:
            self._rescuer.round(self._store.timing.lease / 5)

    def _count(self) -> None:
        # What takes longer is left to the next round, as above.
        until = time.monotonic() + self._store.timing.lease / 5
        try:
            while self._store.count_ended(COUNTED) == COUNTED and time.monotonic() < until:
                pass
        except StoreError as error:
            # The next round counts them. That the store is away others notice, and it may only be busy.
            logger.info("What has ended is not counted yet: %s", error)

    def _attend(self, call_id: str) -> bool:
        """Do what is due for a call; return whether its message should have gone out, and did not."""
        record = self._store.look(call_id)
        if record is None:
            return False
        is_dead, may_judge = self._is_dead(record), self._steadiness.is_reached
        if self._store.attend(call_id, is_dead=is_dead, run=record.run, may_judge=may_judge) is not Care.SEND:
            return False
        return not self._relay.send(call_id)

    def _is_dead(self, record: CallRecord) -> bool:
        """Whether the run that holds the call is one of ours, and its process is gone."""
        is_ours = record.run is not None and f"-{self._worker.boot_id}-" in record.run
        if not is_ours or record.pid is None or not self._processes.is_dead(record.pid):
            return False
        # What waits to be told may be how the call ended.
        return not self._has_left(record.pid)
