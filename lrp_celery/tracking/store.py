"""The tracking store: what it promises (seed 003), and how every implementation decides.

`TrackingStore` is the contract. `MergingStore` keeps it on two primitives, a read and one
conditional write, so that memory, Redis and SQL cannot differ in what they decide.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from lrp_celery.core.clock import require_aware
from lrp_celery.core.errors import ConfigurationError, StoreError
from lrp_celery.core.text import bounded, clean
from lrp_celery.tracking.folding import by_call, fold, runs_of
from lrp_celery.tracking.merge import merge, run_of
from lrp_celery.tracking.record import AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import (
    AttemptRecorded,
    CallFacts,
    Enqueued,
    ErrorFacts,
    NeverSent,
    Outcome,
    Report,
    Started,
    TerminalRecorded,
    Told,
)
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.status import CallStatus, Reason, require_open, require_terminal
from lrp_celery.tracking.steps import Merged, made

P = ParamSpec("P")
T = TypeVar("T")

MAX_ID: Final = 200
MAX_NAME: Final = 255
MAX_SUMMARY: Final = 1000
MAX_ERROR: Final = 2000
MAX_TRACEBACK: Final = 20_000
#: What every database holds in an integer column.
_LARGEST: Final = 2**31 - 1


@runtime_checkable
class TrackingStore(Protocol):
    """One row per call, keyed by its id (TRK-01); the truth that status queries read (TRK-02).

    It never dispatches or retries work. Every method may be repeated (TRK-26) and called
    from any thread or process at any time; each write is one atomic, conditional statement
    and returns whether it applied (TRK-24). What does not apply is not an error.
    Every method has an async twin with `a` before its name (TRK-22): cancelling one never
    leaves half a write behind, but the write may still happen.

    Raises `StoreError` when the database cannot be reached. Not promised: that calls are
    seen in any order, or that a row outlives its retention.
    """

    def record_enqueue(
        self,
        call_id: str,
        task: str,
        target_summary: str | None = None,
        source_instance_id: str | None = None,
        source_script: str | None = None,
        source_node: str | None = None,
    ) -> bool:
        """Insert a SUBMITTED row with no retries, unless the id has a row already (TRK-05, TRK-06).

        Called when somebody asks for a call, before its message goes out. A second call with
        the same id, whatever its arguments and whatever has become of the row, changes nothing
        and returns False; of several at once exactly one returns True (TRK-07).
        `call_id`: 1 to 200 characters, compared byte by byte; otherwise `ConfigurationError`.
        The other texts are cut to what the store holds.
        """
        ...

    def record_attempt(
        self,
        call_id: str,
        status: CallStatus | str,
        retries: int,
        last_error: str | None = None,
        http_status: int | None = None,
    ) -> bool:
        """Overwrite status, retries, error and code of an open row; None clears the last two (TRK-08).

        Called whenever an attempt begins, or ends with another to follow. `retries` is absolute
        (TRK-11). Returns False, and changes nothing, when the row is terminal (TRK-09), when there
        is none (TRK-10), and when (retries, rank of status) would go back: late news.
        A terminal `status` is `InvalidStatus` (TRK-12).
        """
        ...

    def record_terminal(
        self,
        call_id: str,
        status: CallStatus | str,
        last_error: str | None = None,
        http_status: int | None = None,
        *,
        reason: str | None = None,
    ) -> bool:
        """End an open row: status, reason, error, code, and `terminal_at` by the store's clock (TRK-13).

        The first one wins; a later one, and one without a row, returns False (TRK-14, TRK-16).
        An open `status` is `InvalidStatus`.
        """
        ...

    def get_status(self, call_id: str) -> CallSnapshot | None:
        """Return the call as it stands, or None: never recorded, or purged (TRK-17)."""
        ...

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete rows that ended strictly before `older_than` (aware); return how many (TRK-19).

        Never an open row, whatever its age (TRK-20). Safe to run several times at once.
        A naive datetime is `ConfigurationError` (TRK-23).
        """
        ...

    async def arecord_enqueue(
        self,
        call_id: str,
        task: str,
        target_summary: str | None = None,
        source_instance_id: str | None = None,
        source_script: str | None = None,
        source_node: str | None = None,
    ) -> bool:
        """Async twin of `record_enqueue`."""
        ...

    async def arecord_attempt(
        self,
        call_id: str,
        status: CallStatus | str,
        retries: int,
        last_error: str | None = None,
        http_status: int | None = None,
    ) -> bool:
        """Async twin of `record_attempt`."""
        ...

    async def arecord_terminal(
        self,
        call_id: str,
        status: CallStatus | str,
        last_error: str | None = None,
        http_status: int | None = None,
        *,
        reason: str | None = None,
    ) -> bool:
        """Async twin of `record_terminal`."""
        ...

    async def aget_status(self, call_id: str) -> CallSnapshot | None:
        """Async twin of `get_status`."""
        ...

    async def apurge_terminal(self, older_than: datetime) -> int:
        """Async twin of `purge_terminal`."""
        ...


class ReportStore(TrackingStore, Protocol):
    """A tracking store that takes reports, with all that Celery tells, from a recorder."""

    def report(self, report: Report) -> bool:
        """Merge one report into its call; return whether it changed anything.

        May be repeated, and come late or out of order (`lrp_celery.tracking.merge`).
        Raises `StoreError` when the store cannot be reached.
        """
        ...

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        """Merge many reports, those of each call in their order; return those whose rows others hold for now.

        What is returned was not merged, and is to be told again later. Each call is written as a whole
        or not at all, so everything may be repeated: also after a `StoreError`, which says that the
        store cannot be reached (`StoreUnavailable`) or that it refuses some of it. Never waits long
        for anybody. A call that has no row, and ended so long ago that its retention is over, gets none.
        """
        ...

    @property
    def place(self) -> str | None:
        """What tells the store from every other, the same in all processes; None: no other process reaches it."""
        ...

    def enqueue_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of these calls, in as few writes as the store can: what `report` does of each."""
        ...

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in the order they were first heard of.

        The newest run stands on the call itself, and has one here only if it did not succeed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a store knows before it merges a report."""

    record: CallRecord | None
    attempt: AttemptRecord | None
    now: datetime


class MergingStore(ABC):
    """Everything of `ReportStore` on two primitives; a subclass brings those and the purge."""

    #: A row changed by others this often in a row is given up; each loss means somebody else's write applied.
    _PATIENCE = 100

    @abstractmethod
    def _find(self, call_id: str, run: str | None) -> Found:
        """Read the row of a call, the row of its run `run`, and the store's time."""

    def _find_again(self, call_id: str, run: str | None) -> Found:
        """Read once more after somebody was faster, and see what he wrote."""
        return self._find(call_id, run)

    @abstractmethod
    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        """Write row and runs in one step, if the row still has the version of `replaces`.

        `replaces` None: if there is no row yet. The row is written with the next version
        (the first is 0). Returns False when somebody was faster.
        """

    @abstractmethod
    def purge_terminal(self, older_than: datetime) -> int:
        """Delete rows that ended strictly before `older_than`."""

    @abstractmethod
    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own."""

    def report(self, report: Report) -> bool:
        """Merge one report into its call; return whether it changed anything."""
        require_id(report.call_id)
        if isinstance(report, Enqueued) and report.facts is not None:
            return self._enqueue(report, report.facts)
        if self._is_overruled(report):
            return False
        find = self._find
        for _ in range(self._PATIENCE):
            found = find(report.call_id, run_of(report))
            merged = merge(found.record, found.attempt, report, found.now)
            if merged is None:
                return False
            if self._write(merged, found.record):
                return True
            find = self._find_again
        raise StoreError(f"Call {report.call_id!r} was changed by others {self._PATIENCE} times in a row.")

    def _was_sent(self, call_id: str) -> bool:
        record = self._find(call_id, None).record
        return record is not None and (record.published_at is not None or record.runs > 0)

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        """Merge many reports, call by call; return those whose rows others hold for now."""
        for call_id, several in by_call(self._counting(told)).items():
            self._report_all_of(call_id, several)
        return ()

    def _counting(self, told: Sequence[Told]) -> list[Told]:
        """Return them without the ends of calls whose predecessor was sent after all: of those nothing is known."""
        begun = {each.report.call_id for each in told if isinstance(each.report, Started)}
        return [each for each in told if not self._is_overruled(each.report, begun)]

    def _is_overruled(self, report: Report, begun: Collection[str] = ()) -> bool:
        after = report.after if isinstance(report, NeverSent) else None
        return after is not None and (after in begun or self._was_sent(after))

    def _report_all_of(self, call_id: str, told: Sequence[Told]) -> None:
        runs = runs_of(told)
        for _ in range(self._PATIENCE):
            found = self._find(call_id, None)
            there = {run: each for run in runs if (each := self._find(call_id, run).attempt) is not None}
            merged = self._fold(found.record, there, told, found.now)
            if merged is None or self._write(merged, found.record):
                return
        raise StoreError(f"Call {call_id!r} was changed by others {self._PATIENCE} times in a row.")

    def _fold(
        self, record: CallRecord | None, attempts: Mapping[str, AttemptRecord], told: Sequence[Told], now: datetime
    ) -> Merged | None:
        """Return what the reports make of a call, unless that is a row that would only be purged."""
        merged = fold(record, attempts, told, now)
        if merged is None or (record is None and self._is_past(merged.record, now)):
            return None
        return merged

    def _is_past(self, record: CallRecord, now: datetime) -> bool:
        """Whether an ended call has been kept for as long as it is to be. Without retention: never."""
        return False

    @property
    def place(self) -> str | None:
        """What tells the store from every other; None: no other process reaches it."""
        return None

    def enqueue_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of these calls."""
        for report in reports:
            self.report(report)

    def _enqueue(self, report: Enqueued, facts: CallFacts) -> bool:
        return self._write(made(report, facts, self._now()), None)

    @abstractmethod
    def _now(self) -> datetime:
        """Return the store's time."""

    def record_enqueue(
        self,
        call_id: str,
        task: str,
        target_summary: str | None = None,
        source_instance_id: str | None = None,
        source_script: str | None = None,
        source_node: str | None = None,
    ) -> bool:
        """Insert a SUBMITTED row, unless the id has a row already."""
        facts = CallFacts(
            task=clean(task, MAX_NAME),
            target_summary=bounded(target_summary, MAX_SUMMARY),
            source_instance_id=bounded(source_instance_id, MAX_NAME),
            source_script=bounded(source_script, MAX_NAME),
            source_node=bounded(source_node, MAX_NAME),
        )
        return self.report(Enqueued(call_id=call_id, facts=facts))

    def record_attempt(
        self,
        call_id: str,
        status: CallStatus | str,
        retries: int,
        last_error: str | None = None,
        http_status: int | None = None,
    ) -> bool:
        """Overwrite status, retries, error and code of an open row."""
        status = require_open(status)
        if not 0 <= retries <= _LARGEST:
            raise ConfigurationError(f"retries is {retries}: pass the absolute count, from 0.")
        _require_code(http_status)
        error = ErrorFacts(message=bounded(last_error, MAX_ERROR), http_status=http_status)
        return self.report(AttemptRecorded(call_id=call_id, turn=Turn(0, retries), status=status, error=error))

    def record_terminal(
        self,
        call_id: str,
        status: CallStatus | str,
        last_error: str | None = None,
        http_status: int | None = None,
        *,
        reason: str | None = None,
    ) -> bool:
        """End an open row."""
        _require_code(http_status)
        error = ErrorFacts(message=bounded(last_error, MAX_ERROR), http_status=http_status)
        outcome = Outcome(status=require_terminal(status), reason=_reason(reason), error=error)
        return self.report(TerminalRecorded(call_id=call_id, turn=None, outcome=outcome))

    def get_status(self, call_id: str) -> CallSnapshot | None:
        """Return the call as it stands, or None."""
        require_id(call_id)
        found = self._find(call_id, None)
        return None if found.record is None or found.record.is_absent(found.now) else found.record.snapshot()

    async def arecord_enqueue(self, *args: Any, **kwargs: Any) -> bool:
        """Async twin of `record_enqueue`."""
        return await self._apart(self.record_enqueue, *args, **kwargs)

    async def arecord_attempt(self, *args: Any, **kwargs: Any) -> bool:
        """Async twin of `record_attempt`."""
        return await self._apart(self.record_attempt, *args, **kwargs)

    async def arecord_terminal(self, *args: Any, **kwargs: Any) -> bool:
        """Async twin of `record_terminal`."""
        return await self._apart(self.record_terminal, *args, **kwargs)

    async def aget_status(self, call_id: str) -> CallSnapshot | None:
        """Async twin of `get_status`."""
        return await self._apart(self.get_status, call_id)

    async def apurge_terminal(self, older_than: datetime) -> int:
        """Async twin of `purge_terminal`."""
        return await self._apart(self.purge_terminal, older_than)

    async def _apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` off the event loop. A thread is not cancelled half-way, so neither is a write."""
        return await asyncio.to_thread(work, *args, **kwargs)


def is_usable_id(call_id: object) -> bool:
    """Whether this can be the id of a tracked call."""
    return isinstance(call_id, str) and 1 <= len(call_id) <= MAX_ID and clean(call_id) == call_id


def require_id(call_id: str) -> None:
    """Refuse what cannot be the id of a call: `ConfigurationError`."""
    if not isinstance(cast(object, call_id), str) or not 1 <= len(call_id) <= MAX_ID:
        raise ConfigurationError(f"A call id is a text of 1 to {MAX_ID} characters, not {call_id!r:.220}.")
    if clean(call_id) != call_id:
        raise ConfigurationError(f"A call id holds no NUL and no lone surrogate, unlike {call_id!r:.220}.")


def _require_code(http_status: int | None) -> None:
    if http_status is not None and not 0 <= http_status <= _LARGEST:
        raise ConfigurationError(f"http_status is {http_status}: pass a code from 0, or None.")


def _reason(reason: str | None) -> Reason | None:
    try:
        return None if reason is None else Reason(reason)
    except ValueError:
        raise ConfigurationError(f"{reason!r} is not a reason; use one of {', '.join(Reason)}.") from None


def require_threshold(older_than: datetime) -> datetime:
    """Return a purge threshold in UTC; a naive one is `ConfigurationError` (TRK-23)."""
    return require_aware(older_than, "older_than")
