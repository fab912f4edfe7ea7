"""The store of owned calls: a tracking store that also decides who may run a call and who may end it.

`CallStore` is the contract. `OwningStore` keeps it on the two primitives of
`MergingStore` and four more; what is decided stands in `lrp_celery.tracking.owned`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from lrp_celery.core.errors import StoreError
from lrp_celery.core.text import bounded
from lrp_celery.core.values import replace
from lrp_celery.tracking import decisions, items, owned
from lrp_celery.tracking.items import Put
from lrp_celery.tracking.merge import merge
from lrp_celery.tracking.news import Newsroom, Watch
from lrp_celery.tracking.owned import (
    AbortRequest,
    Care,
    Changed,
    Claim,
    Delivery,
    Note,
    Order,
    Retry,
    Settlement,
    Timing,
    Verdict,
)
from lrp_celery.tracking.record import CallRecord, LogLine
from lrp_celery.tracking.reports import Report
from lrp_celery.tracking.rescue import Patience, Suspicion
from lrp_celery.tracking.steps import Merged
from lrp_celery.tracking.store import MAX_ERROR, MAX_NAME, Found, MergingStore, ReportStore, require_id

A = TypeVar("A")

#: Told of an order whose id has a row already, and of that row; raises if this is not the same call.
Taken = Callable[[Order, CallRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What is kept of an owned call beside its row; each None if there is none."""

    message: str | None = None
    """The whole message that brings its present turn, as JSON."""
    result: str | None = None
    """What it returned, as JSON."""
    error: str | None = None
    """What it raised, as JSON."""


#: What no run asks of its call's row: who made the call, and how.
NOT_FOR_RUNS: Final = frozenset(
    {"app", "group_id", "owner", "parent_id", "published_at", "queue", "rerun_of", "root_id", "schedule"}
    | {"source_instance_id", "source_node", "source_script", "target_summary"}
)


@dataclass(frozen=True, slots=True)
class Known:
    """A row as it was written, and when that was: who expects it unchanged need not read it."""

    record: CallRecord
    written_at: float = field(default_factory=time.monotonic)
    """By the clock that only counts on; not later than the time that the row says."""

    @classmethod
    def by(cls, claim: Claim, asked_at: float) -> Known | None:
        """Return the row that a claim has written; `asked_at`: when it was asked for, by the clock that only counts on."""
        record = claim.record
        return None if record is None else cls(replace(record, version=record.version + 1), asked_at)

    @property
    def now(self) -> datetime:
        """The store's time, reckoned from when the row was written: rather late than early, for times to live begin then."""
        return self.record.updated_at + timedelta(seconds=time.monotonic() - self.written_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """A worker that looks after owned calls, as it says of itself."""

    boot_id: str
    name: str
    host: str
    pid: int
    pool: str
    started_at: datetime | None = None
    seen_at: datetime | None = None
    waiting: int = 0
    """Bytes that wait in its spools."""
    dropped: int = 0
    """Reports that its processes had to drop because their spools were full."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """What a look through a stretch of the open calls found."""

    records: Sequence[CallRecord]
    """Observed calls that have to be judged, in no order."""
    until: datetime | None
    """Where the next stretch begins; None: there are no more open calls."""
    now: datetime
    """The store's time."""


#: How long a worker that has not said goodbye is remembered.
REMEMBERED: Final = timedelta(days=1)


class CallStore(ReportStore, Protocol):
    """Everything that happens to owned calls; each method is one atomic, conditional write, and may be repeated.

    All raise `StoreError` when the store cannot be reached. What does not apply is not an error.
    `purge_terminal` takes only what no promise keeps: not a call that is kept until it is removed, nor one
    whose time to live is not over, nor a tombstone before its time; and forgets workers unheard of for a day.
    """

    timing: Timing

    def insert(self, order: Order) -> CallRecord | None:
        """Make the row of a new call, in the caller's transaction; None: the id has one already.

        The id of a call that was removed, or whose time to live is over, is free again.
        """
        ...

    def insert_all(self, orders: Sequence[Order], taken: Taken) -> list[CallRecord | None]:
        """Make the rows of new calls, in the caller's transaction and in as few writes as the store can.

        None stands for an id that has a row already; `taken` is told of each, and whatever it raises leaves
        none of the rows, where the store has transactions.
        """
        ...

    def claim(self, delivery: Delivery) -> Claim:
        """Decide whether a delivered message may run its call; if so, its run holds the call.

        The row of one that was granted may lack what is `NOT_FOR_RUNS`.
        """
        ...

    def renew(self, runs: Iterable[tuple[str, str]]) -> dict[str, CallRecord]:
        """Extend the leases of these (call id, run); return the calls that their runs still hold.

        Never waits for a row that somebody else has locked: such a call is left out this time.
        """
        ...

    def settle(self, call_id: str, run: str, settlement: Settlement, known: Known | None = None) -> CallRecord | None:
        """End the call by the run that holds it; return the row, or None: that run does not hold it.

        Settling once more what this run has settled so changes nothing, and returns the row.
        `known`: the row as the claim left it, which saves reading it if nobody has changed it since.
        """
        ...

    def retry(self, call_id: str, run: str, wish: Retry) -> CallRecord | None:
        """Give the call up for a further turn; None: the run does not hold it, or somebody asked for its end.

        A row that is not published is one whose message the relay is to send when it is due.
        """
        ...

    def note(self, call_id: str, run: str, said: Note) -> bool:
        """Keep what a run says of itself; False: it does not hold the call. Lines are not repeated safely: twice is twice."""
        ...

    def log(self, call_id: str) -> Sequence[LogLine]:
        """Return what a call has logged, in order; empty when it was removed."""
        ...

    def request_abort(self, call_id: str, request: AbortRequest) -> CallRecord | None:
        """Ask for the end of a call; return the row, or None: there is none, it has ended, or somebody asked before.

        An owned call that no run holds ends at once.
        """
        ...

    def remove(self, call_id: str, *, when_settled: bool = False, generation: int | None = None) -> bool:
        """Let an ended call read as absent; False: it is open (and is removed once it has ended, if `when_settled`).

        `generation`: which of the calls that have had the id is meant; None: whichever has it now.
        """
        ...

    def handle(self, call_id: str, by: str | None = None) -> bool:
        """Note that somebody has dealt with a call's failure; False: it is none, or somebody has before."""
        ...

    @property
    def tells(self) -> bool:
        """Whether waiters are told of news at this moment; otherwise they have to look."""
        ...

    def watching(self, call_id: str) -> AbstractContextManager[Watch]:
        """Watch a call within this context; no statement is made. News is certain only once `await_end` was called."""
        ...

    def await_end(self, call_id: str) -> bool:
        """Note that somebody waits for the end of a call; False: it has ended, or its end was asked for."""
        ...

    def look(self, call_id: str) -> CallRecord | None:
        """Return the row as readers see it, or None: unknown, removed, or its time to live is over."""
        ...

    def look_with_result(self, call_id: str) -> tuple[CallRecord, Payload] | None:
        """Return the row as readers see it, and of one that has ended its result or error (but no message)."""
        ...

    def payload(self, call_id: str) -> Payload | None:
        """Return what is kept beside the row; None: nothing."""
        ...

    def aborts(self, call_ids: Sequence[str]) -> Sequence[CallRecord]:
        """Return those of the calls that are open and whose end somebody has asked for."""
        ...

    def revoked(self, limit: int) -> Sequence[str]:
        """Return observed calls that are open and whose end somebody has asked for, the latest request first."""
        ...

    def family(self, root_id: str, limit: int) -> Sequence[CallRecord]:
        """Return the calls that stem from this one, ended ones too, in no order; more than `limit` are cut off."""
        ...

    def due(self, limit: int, app: str | None = None) -> Sequence[str]:
        """Return owned calls (None: of all apps) that somebody must look after now, the longest overdue first."""
        ...

    def attend(self, call_id: str, *, is_dead: bool = False, run: str | None = None, may_judge: bool = True) -> Care:
        """Do what is due for an owned call, and say whether its message is to be sent.

        `is_dead`: the run that holds it is, for sure; `run`: if it is still this one. `may_judge`
        False: that a run is silent, or goes on, is not held against it; a timeout counts all the same.
        """
        ...

    def sending(self, call_id: str) -> tuple[CallRecord, str] | None:
        """Note that the message is being sent again, and return it; None: it must not be sent (any more)."""
        ...

    def resend(self, call_id: str) -> tuple[CallRecord, str] | None:
        """Note that the message goes out now, and return it; None: it is not there, not due, or somebody has claimed the call."""
        ...

    def put_off(self, call_id: str) -> None:
        """Let the message wait for its turn in a long queue."""
        ...

    def not_sent(self, call_id: str) -> None:
        """Note that whoever was to send the message could not: the relay is to do it as soon as it is due."""
        ...

    def none_sent(self, call_ids: Sequence[str]) -> None:
        """Note the same of many calls that were just made, in as few writes as the store can."""
        ...

    def is_overtaken(self, record: CallRecord) -> bool:
        """Whether a call of the same queue has been started that was asked for after this one's message went out."""
        ...

    def suspects(self, after: datetime | None, patience: Patience, gone: Iterable[str]) -> Suspects:
        """Look through a stretch of the open calls, those asked for first after `after` (None: the first of all).

        A stretch is bounded by what the store reads, not by what it finds, so that one costs the
        same however many calls are open. `gone`: boot ids of workers.
        """
        ...

    def conclude(self, judged: CallRecord, report: Report) -> bool:
        """Merge what was inferred from a row, if it still is that row; of several that do, one is first."""
        ...

    def beat(self, worker: WorkerFacts) -> None:
        """Note that a worker is alive, and what it says of its spools."""
        ...

    def workers(self) -> Sequence[WorkerFacts]:
        """Return the workers that were heard of, the latest first."""
        ...

    def forget_worker(self, boot_id: str) -> None:
        """Forget a worker that has ended in good order."""
        ...

    def count_ended(self, limit: int) -> int:
        """Enter at most so many calls that have ended into the counts that the store keeps of them, each once for all.

        Returns how many; 0: none is left, others are at it, or the store keeps no counts.
        """
        ...

    def tell_next(self) -> bool:
        """Tell whoever listens in this process of a call that has ended, each at least once among all processes.

        False: there is none, others tell of it, nobody listens, or the store knows no listeners. Raises what a listener
        raises that is no `Exception`; then that call is told of once more, later.
        """
        ...


class OwningStore(MergingStore):
    """Everything of `CallStore` on reads and conditional writes."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.newsroom = Newsroom()

    @abstractmethod
    def payload(self, call_id: str) -> Payload | None:
        """Return what is kept beside the row."""

    def log(self, call_id: str) -> Sequence[LogLine]:
        """Return what a call has logged, in order."""
        return ()

    @abstractmethod
    def revoked(self, limit: int) -> Sequence[str]:
        """Return open observed calls whose end somebody has asked for."""

    @abstractmethod
    def family(self, root_id: str, limit: int) -> Sequence[CallRecord]:
        """Return the calls that stem from this one."""

    @abstractmethod
    def due(self, limit: int, app: str | None = None) -> Sequence[str]:
        """Return owned calls that somebody must look after now."""

    @abstractmethod
    def _suspects(self, after: datetime | None, suspicion: Suspicion) -> tuple[Sequence[CallRecord], datetime | None]:
        """Return the calls of a stretch on which the suspicion falls, and where the next one begins."""

    def suspects(self, after: datetime | None, patience: Patience, gone: Iterable[str]) -> Suspects:
        """Look through a stretch of the open calls."""
        now = self._now()
        records, until = self._suspects(after, Suspicion.at(now, patience, gone))
        return Suspects(records, until, now)

    def conclude(self, judged: CallRecord, report: Report) -> bool:
        """Merge what was inferred from a row, if it still is that row."""
        merged = merge(judged, None, report, self._now())
        return merged is not None and self._write(merged, judged)

    @abstractmethod
    def beat(self, worker: WorkerFacts) -> None:
        """Note that a worker is alive."""

    @abstractmethod
    def workers(self) -> Sequence[WorkerFacts]:
        """Return the workers that were heard of, the latest first."""

    @abstractmethod
    def forget_worker(self, boot_id: str) -> None:
        """Forget a worker that has ended in good order."""

    def count_ended(self, limit: int) -> int:
        """Count none: the rows are all there is."""
        return 0

    def tell_next(self) -> bool:
        """Tell of none: nobody can listen."""
        return False

    @abstractmethod
    def is_overtaken(self, record: CallRecord) -> bool:
        """Whether a later call of the same queue has been started."""

    def insert(self, order: Order) -> CallRecord | None:
        """Make the row of a new call."""
        require_id(order.call_id)
        placed = self._make(order)
        if placed is not None:
            return placed

        def again(found: Found) -> tuple[Merged | None, CallRecord | None]:
            merged = owned.place(found.record, order, found.now, self.timing)
            return merged, None if merged is None else merged.record

        return self._change(order.call_id, again)

    def insert_all(self, orders: Sequence[Order], taken: Taken) -> list[CallRecord | None]:
        """Make the rows of new calls."""
        for order in orders:
            require_id(order.call_id)
        # Nothing takes back what has been written here: so whoever objects is asked before.
        for order in orders:
            known = self.look(order.call_id)
            if known is not None:
                taken(order, known)
        return [self._insert_or_tell(order, taken) for order in orders]

    def _insert_or_tell(self, order: Order, taken: Taken) -> CallRecord | None:
        placed = self.insert(order)
        if placed is None:
            taken(order, holder_of(self, order.call_id))
        return placed

    def _make(self, order: Order) -> CallRecord | None:
        """Make the row of a call whose id is new; None: it has one."""
        fresh = owned.place(None, order, self._now(), self.timing)
        return fresh.record if fresh is not None and self._write(fresh, None) else None

    def claim(self, delivery: Delivery) -> Claim:
        """Decide whether a delivered message may run its call."""
        require_id(delivery.call_id)
        begun = self._begin(delivery)
        if begun is not None:
            return Claim(Verdict.GRANTED, begun)
        return self._change(delivery.call_id, lambda found: owned.claim(found.record, delivery, found.now, self.timing))

    def _begin(self, delivery: Delivery) -> CallRecord | None:
        """Claim without a look at the row, where a store can; None: it cannot, or the row has to be looked at."""
        return None

    def renew(self, runs: Iterable[tuple[str, str]]) -> dict[str, CallRecord]:
        """Extend the leases of these (call id, run)."""
        held = ((call_id, self._renew(call_id, run)) for call_id, run in runs)
        return {call_id: record for call_id, record in held if record is not None}

    def _renew(self, call_id: str, run: str) -> CallRecord | None:
        def rule(found: Found) -> tuple[Merged | None, CallRecord | None]:
            record = found.record and owned.renewed(found.record, run, found.now, self.timing)
            return None if record is None else Merged(record), record

        return self._change(call_id, rule)

    def settle(self, call_id: str, run: str, settlement: Settlement, known: Known | None = None) -> CallRecord | None:
        """End the call by the run that holds it."""
        if known is not None:
            changed = owned.finish(known.record, run, settlement, known.now)
            if changed.merged is not None and self._write(changed.merged, known.record):
                return changed.merged.record
        return self._apply(call_id, lambda found: owned.finish(found.record, run, settlement, found.now))

    def retry(self, call_id: str, run: str, wish: Retry) -> CallRecord | None:
        """Give the call up for a further turn."""
        return self._apply(call_id, lambda found: owned.retry(found.record, run, wish, found.now, self.timing))

    @property
    def tells(self) -> bool:
        """Whether waiters are told of news."""
        return False

    def watching(self, call_id: str) -> AbstractContextManager[Watch]:
        """Watch a call within this context."""
        return self.newsroom.watching(call_id)

    def await_end(self, call_id: str) -> bool:
        """Note that somebody waits for the end of a call."""
        record = self.look(call_id)
        return record is not None and not owned.is_news(record)

    def note(self, call_id: str, run: str, said: Note) -> bool:
        """Keep what a run says of itself."""
        return self._apply(call_id, lambda found: owned.note(found.record, run, said, found.now)) is not None

    def request_abort(self, call_id: str, request: AbortRequest) -> CallRecord | None:
        """Ask for the end of a call."""
        require_id(call_id)
        fitting = replace(request, reason=bounded(request.reason, MAX_ERROR), by=bounded(request.by, MAX_NAME))
        return self._apply(call_id, lambda found: owned.request_abort(found.record, fitting, found.now))

    def remove(self, call_id: str, *, when_settled: bool = False, generation: int | None = None) -> bool:
        """Let an ended call read as absent."""
        require_id(call_id)

        def rule(found: Found) -> tuple[Merged | None, bool]:
            changed = owned.remove(found.record, found.now, when_settled=when_settled, generation=generation)
            return changed.merged, changed.applied

        return self._change(call_id, rule)

    def handle(self, call_id: str, by: str | None = None) -> bool:
        """Note that somebody has dealt with a call's failure."""
        require_id(call_id)
        named = bounded(by, MAX_NAME)
        return self._apply(call_id, lambda found: decisions.handle(found.record, named, found.now)) is not None

    def put(self, item: Put) -> None:
        """Let a row say what an item of seed 000's `Store` says (`lrp_celery.tracking.items`)."""
        require_id(item.call_id)
        self._change(item.call_id, lambda found: (items.put(found.record, item, found.now, self.timing), None))

    def take_out(self, call_id: str) -> None:
        """Let a row read as absent, whatever it says."""
        require_id(call_id)
        self._change(call_id, lambda found: (items.take_out(found.record, found.now), None))

    def look(self, call_id: str) -> CallRecord | None:
        """Return the row as readers see it."""
        require_id(call_id)
        found = self._find(call_id, None)
        return None if found.record is None or found.record.is_absent(found.now) else found.record

    def look_with_result(self, call_id: str) -> tuple[CallRecord, Payload] | None:
        """Return the row as readers see it, and of one that has ended its result or error."""
        record = self.look(call_id)
        if record is None:
            return None
        payload = self.payload(call_id) if record.status.is_terminal else None
        return record, replace(payload or Payload(), message=None)

    def aborts(self, call_ids: Sequence[str]) -> Sequence[CallRecord]:
        """Return those of the calls that are open and whose end somebody has asked for."""
        found = (self.look(call_id) for call_id in call_ids)
        return [
            record for record in found if record is not None and record.abort_requested_at and record.status.is_open
        ]

    def attend(self, call_id: str, *, is_dead: bool = False, run: str | None = None, may_judge: bool = True) -> Care:
        """Do what is due for an owned call."""
        given: dict[str, Any] = {"is_dead": is_dead, "run": run, "may_judge": may_judge}
        return self._change(call_id, lambda found: owned.attend(found.record, found.now, self.timing, **given))

    def sending(self, call_id: str) -> tuple[CallRecord, str] | None:
        """Note that the message is being sent again, and return it."""
        return self._with_message(self._apply(call_id, self._note_sending))

    def resend(self, call_id: str) -> tuple[CallRecord, str] | None:
        """Note that the message goes out now, and return it."""
        require_id(call_id)
        return self._with_message(
            self._apply(call_id, lambda found: decisions.resend(found.record, found.now, self.timing))
        )

    def _with_message(self, record: CallRecord | None) -> tuple[CallRecord, str] | None:
        message = None if record is None else (self.payload(record.call_id) or Payload()).message
        return None if record is None or message is None else (record, message)

    def _note_sending(self, found: Found) -> Changed:
        _, care = owned.attend(found.record, found.now, self.timing)
        if found.record is None or care is not Care.SEND:
            return owned.NOTHING
        return Changed(owned.sent(found.record, found.now, self.timing), applied=True)

    def put_off(self, call_id: str) -> None:
        """Let the message wait for its turn in a long queue."""

        def rule(found: Found) -> Changed:
            _, care = owned.attend(found.record, found.now, self.timing)
            if found.record is None or care is not Care.SEND:
                return owned.NOTHING
            return Changed(owned.put_off(found.record, found.now, self.timing), applied=True)

        self._apply(call_id, rule)

    def none_sent(self, call_ids: Sequence[str]) -> None:
        """Note that whoever was to send these messages could not."""
        for call_id in call_ids:
            self.not_sent(call_id)

    def not_sent(self, call_id: str) -> None:
        """Note that whoever was to send the message could not."""
        self._apply(call_id, lambda found: owned.not_sent(found.record, found.now))

    def _apply(self, call_id: str, rule: Callable[[Found], Changed]) -> CallRecord | None:
        """Write what `rule` changes; return the row if that is what was asked for."""

        def decide(found: Found) -> tuple[Merged | None, CallRecord | None]:
            changed = rule(found)
            record = found.record if changed.merged is None else changed.merged.record
            return changed.merged, record if changed.applied else None

        return self._change(call_id, decide)

    def _change(self, call_id: str, rule: Callable[[Found], tuple[Merged | None, A]]) -> A:
        """Write what `rule` makes of the row, if that is still the row that it saw; else let it decide again."""
        for turn in range(self._PATIENCE):
            found = self._find_again(call_id, None) if turn else self._find(call_id, None)
            merged, answer = rule(found)
            if merged is None or self._write(merged, found.record):
                return answer
        raise StoreError(f"Call {call_id!r} was changed by others {self._PATIENCE} times in a row.")


def holder_of(store: CallStore, call_id: str) -> CallRecord:
    """Return the call that has an id with which a new one could not be made; `StoreError` if it was just being removed."""
    known = store.look(call_id)
    if known is None:
        raise StoreError(f"Call {call_id!r} was being removed while it was made; make it again.")
    return known


def is_remembered(worker: WorkerFacts, now: datetime) -> bool:
    """Whether a purge keeps a worker: it was heard of lately."""
    return worker.seen_at is None or worker.seen_at >= now - REMEMBERED
