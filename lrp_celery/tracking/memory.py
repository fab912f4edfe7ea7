"""A tracking store in the memory of one process: for tests, and to try things out."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime

from lrp_celery.core.clock import Clock, SystemClock
from lrp_celery.tracking.record import AttemptRecord, CallRecord
from lrp_celery.tracking.steps import Merged
from lrp_celery.tracking.store import Found, MergingStore, require_threshold


class MemoryTrackingStore(MergingStore):
    """A `TrackingStore` that other processes do not see and that ends with this one.

    Safe for threads. `clock` tells its time (default: the host's).
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._records: dict[str, CallRecord] = {}
        self._attempts: dict[str, dict[str, AttemptRecord]] = {}

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
            for attempt in merged.attempts:
                self._attempts.setdefault(call_id, {})[attempt.run] = attempt
            return True

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in order."""
        with self._lock:
            attempts = self._attempts.get(call_id, {}).values()
        return tuple(sorted(attempts, key=lambda attempt: attempt.number))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete calls that ended strictly before `older_than`; return how many."""
        threshold = require_threshold(older_than)
        with self._lock:
            old = [
                call_id
                for call_id, record in self._records.items()
                if record.terminal_at is not None and record.terminal_at < threshold
            ]
            for call_id in old:
                del self._records[call_id]
                self._attempts.pop(call_id, None)
        return len(old)


def _version(record: CallRecord | None) -> int:
    return -1 if record is None else record.version
