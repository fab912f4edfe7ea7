"""Looking after the calls of an app from outside its workers: by a command, or by a task that beat asks for.

Every worker's side process does the same all the time; this is for where there is none, and
may run beside any number of them.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from lrp_celery.procedures.caretaker import BATCH
from lrp_celery.procedures.options import name_of
from lrp_celery.procedures.patience import patience_of
from lrp_celery.procedures.post import take_over
from lrp_celery.procedures.relay import Relay
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.procedures.steadiness import Steadiness
from lrp_celery.tracking.callstore import CallStore, WorkerFacts
from lrp_celery.tracking.owned import Care
from lrp_celery.tracking.rescuer import Rescuer


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAfter:
    """What one round found due, and did."""

    calls: int = 0
    """Calls that were due, and were looked after."""
    sent: int = 0
    """Of these, calls whose message was sent."""
    left: int = 0
    """Calls that a run holds, and that were due all the same: whether it lives was not judged."""
    judged: int = 0
    """Calls of other tasks that were settled, or marked as interrupted, because nothing more is heard of them."""


def look_after(app: Any, runtime: Runtime) -> LookedAfter:
    """Do once what is due for calls that no run holds: send their messages, end what is overdue or expired.

    Calls that a run holds are left: who has just come cannot tell a worker that died from a
    database that was away. Safe to run at any time, and several times at once. `StoreError`
    when the store cannot be reached; a broker that is away only leaves messages unsent.
    """
    return _Round(app, runtime, may_judge=False).go()


def rescue(app: Any, runtime: Runtime) -> LookedAfter:
    """Do once what is due for every call, also those whose worker is gone; it takes LEASE seconds.

    So long it first shows that it can reach the store, as a worker does, before it holds the
    silence of others against them. A call that is not idempotent is given up after three leases
    without a sign of life. Calls of tasks that are no procedures are judged, too
    (`lrp_celery.tracking.rescue`).
    """
    store = runtime.own
    host = socket.gethostname()
    facts = WorkerFacts(boot_id=uuid.uuid4().hex[:12], name=f"rescue@{host}", host=host, pid=os.getpid(), pool="")
    try:
        _live_for_a_lease(store, facts)
        done = _Round(app, runtime, may_judge=True).go()
        return replace(done, judged=Rescuer(store, patience_of(app, runtime)).sweep())
    finally:
        store.forget_worker(facts.boot_id)


def _live_for_a_lease(store: CallStore, facts: WorkerFacts) -> None:
    steadiness = Steadiness(store.timing.lease)
    store.beat(facts)
    steadiness.heard()
    while not steadiness.is_reached:
        time.sleep(store.timing.lease / 5)
        store.beat(facts)
        steadiness.heard()


class _Round:
    def __init__(self, app: Any, runtime: Runtime, *, may_judge: bool) -> None:
        self._store = runtime.own
        self._app = app
        self._app_name = name_of(app)
        self._relay = _relay(os.getpid(), app, cast("Any", self._store))
        self._may_judge = may_judge
        self._calls = self._sent = self._left = 0

    def go(self) -> LookedAfter:
        take_over(self._app, self._store)
        seen: set[str] = set()
        while new := [call_id for call_id in self._due() if call_id not in seen]:
            seen.update(new)
            for call_id in new:
                self._attend(call_id)
        return LookedAfter(calls=self._calls, sent=self._sent, left=self._left)

    def _due(self) -> list[str]:
        # What is left stays due, and must not stand in the way of the others.
        return list(self._store.due(BATCH + self._left, self._app_name))

    def _attend(self, call_id: str) -> None:
        record = self._store.look(call_id)
        if record is None:
            return
        if record.lease_until is not None and not self._may_judge:
            self._left += 1
            return
        self._calls += 1
        # A run that was lost is one step, sending its call again is the next.
        if Care.SEND in {self._store.attend(call_id, run=record.run), self._store.attend(call_id)}:
            self._sent += self._relay.send(call_id)


@lru_cache(maxsize=8)
def _relay(pid: int, app: Any, store: Any) -> Relay:
    # It has a thread of its own, so there is one for each process, not for each round.
    return Relay(app, store)
