"""A tracking store in the memory of one process: for tests, and to try things out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from lrp_celery.core.clock import Clock, SystemClock
from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.callstore import OwningStore, Payload, WorkerFacts, is_remembered
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.record import AttemptRecord, CallRecord, LogLine
from lrp_celery.tracking.rescue import Suspicion
from lrp_celery.tracking.steps import Merged
from lrp_celery.tracking.store import Found, require_threshold

#: Open calls that are looked through at once.
STRETCH: Final = 1000


class MemoryTrackingStore(OwningStore):
    """A `TrackingStore` and `CallStore` that other processes do not see and that ends with this one.

    Safe for threads. `clock` tells its time (default: the host's).
    """

    def __init__(self, clock: Clock | None = None, timing: Timing | None = None) -> None:
        super().__init__(timing)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._records: dict[str, CallRecord] = {}
        self._attempts: dict[str, dict[str, AttemptRecord]] = {}
        self._payloads: dict[str, Payload] = {}
        self._lines: dict[str, list[LogLine]] = {}
        self._workers: dict[str, WorkerFacts] = {}

    def _now(self) -> datetime:
        return self._clock.now()

    def _find(self, call_id: str, run: str | None) -> Found:
        with self._lock:
            attempts = self._attempts.get(call_id, {})
            return Found(self._records.get(call_id), attempts.get(run) if run else None, self._now())

    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        call_id = merged.record.call_id
        with self._lock:
            if _version(self._records.get(call_id)) != _version(replaces):
                return False
            self._records[call_id] = replace(merged.record, version=_version(replaces) + 1)
            if merged.forgets_runs:
                self._attempts.pop(call_id, None)
                self._lines.pop(call_id, None)
            for attempt in merged.attempts:
                self._attempts.setdefault(call_id, {})[attempt.run] = attempt
            if merged.lines:
                self._lines.setdefault(call_id, []).extend(merged.lines)
            if merged.payload is not None:
                self._payloads[call_id] = replace(self._payloads.get(call_id, Payload()), **merged.payload)
                if self._payloads[call_id] == Payload():
                    del self._payloads[call_id]
        if owned.is_news(merged.record):
            self.newsroom.tell(call_id)
        return True

    @property
    def tells(self) -> bool:
        """Whoever waits is in this process."""
        return True

    def payload(self, call_id: str) -> Payload | None:
        """Return what is kept beside the row."""
        with self._lock:
            return self._payloads.get(call_id)

    def log(self, call_id: str) -> Sequence[LogLine]:
        """Return what a call has logged, in order."""
        with self._lock:
            return tuple(self._lines.get(call_id, ()))

    def revoked(self, limit: int) -> Sequence[str]:
        """Return open observed calls whose end somebody has asked for, the latest request first."""
        with self._lock:
            records = [record for record in self._records.values() if record.status.is_open and not record.owned]
        asked = [(record.abort_requested_at, record.call_id) for record in records if record.abort_requested_at]
        return [call_id for _, call_id in sorted(asked, reverse=True)][:limit]

    def family(self, root_id: str, limit: int) -> Sequence[CallRecord]:
        """Return the calls that stem from this one."""
        with self._lock:
            found = [record for record in self._records.values() if root_id in {record.root_id, record.call_id}]
        return [record for record in found if record.removed_at is None][:limit]

    def due(self, limit: int, app: str | None = None) -> Sequence[str]:
        """Return owned calls that somebody must look after now, the longest overdue first."""
        now = self._now()
        with self._lock:
            records = [record for record in self._records.values() if app is None or record.app == app]
        waiting = [(record.attend_at, record.call_id) for record in records if record.attend_at is not None]
        return [call_id for at, call_id in sorted(waiting) if at <= now][:limit]

    def _suspects(self, after: datetime | None, suspicion: Suspicion) -> tuple[Sequence[CallRecord], datetime | None]:
        with self._lock:
            records = [record for record in self._records.values() if record.status.is_open]
        stretch = sorted(record.enqueued_at for record in records if after is None or record.enqueued_at > after)
        until = stretch[STRETCH - 1] if len(stretch) >= STRETCH else None
        there = [
            record
            for record in records
            if (after is None or record.enqueued_at > after) and (until is None or record.enqueued_at <= until)
        ]
        return [record for record in there if suspicion.falls_on(record)], until

    def is_overtaken(self, record: CallRecord) -> bool:
        """Whether a call of the same queue has been started that was asked for after this one's message went out."""
        since = owned.sent_at(record)
        with self._lock:
            return any(
                other.queue == record.queue and other.runs > 0 and other.enqueued_at > since
                for other in self._records.values()
            )

    def beat(self, worker: WorkerFacts) -> None:
        """Note that a worker is alive."""
        now = self._now()
        with self._lock:
            known = self._workers.get(worker.boot_id)
            began = now if known is None else known.started_at
            self._workers[worker.boot_id] = replace(worker, started_at=began, seen_at=now)

    def workers(self) -> Sequence[WorkerFacts]:
        """Return the workers that were heard of, the latest first."""
        with self._lock:
            return sorted(self._workers.values(), key=lambda worker: str(worker.seen_at), reverse=True)

    def forget_worker(self, boot_id: str) -> None:
        """Forget a worker that has ended in good order."""
        with self._lock:
            self._workers.pop(boot_id, None)

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in order."""
        with self._lock:
            attempts = self._attempts.get(call_id, {}).values()
        return tuple(sorted(attempts, key=lambda attempt: attempt.number))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete calls that ended strictly before `older_than`; return how many."""
        threshold, now = require_threshold(older_than), self._now()
        with self._lock:
            for call_id, record in list(self._records.items()):
                expired = owned.expire(record, now)
                if expired is not None:
                    self._records[call_id] = replace(expired.record, version=record.version + 1)
                    self._forget(call_id)
            old = [
                call_id
                for call_id, record in self._records.items()
                if owned.is_purged(record, threshold, now, self.timing)
            ]
            for call_id in old:
                del self._records[call_id]
                self._forget(call_id)
            heard = {boot_id: worker for boot_id, worker in self._workers.items() if is_remembered(worker, now)}
            self._workers = heard
        return len(old)

    def _forget(self, call_id: str) -> None:
        self._attempts.pop(call_id, None)
        self._payloads.pop(call_id, None)
        self._lines.pop(call_id, None)


def _version(record: CallRecord | None) -> int:
    return -1 if record is None else record.version
