"""The tracking store on Django's models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from datetime import datetime
from functools import cached_property
from typing import Any, Final, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, InterfaceError, NotSupportedError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q, QuerySet

from django_app import models
from django_app.clock import NOW, as_utc, clock_function, read_clock
from django_app.conf import options
from django_app.models import Attempt, Call, Worker
from django_app.stores import at_once, counting, enqueuing, placing, renewal, rows, suspects, telling
from django_app.stores.batch import Batch
from django_app.stores.news import Listener, can_listen
from django_app.stores.sessions import CallerSession, Session
from django_app.surroundings import is_callers_only, is_in_transaction, refresh_connections
from lrp_celery.core.errors import StoreError, StoreUnavailable
from lrp_celery.core.text import clean
from lrp_celery.core.values import replace
from lrp_celery.tracking import callstore, owned
from lrp_celery.tracking.callstore import OwningStore, WorkerFacts
from lrp_celery.tracking.news import Watch
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.record import AttemptRecord, CallRecord, LogLine
from lrp_celery.tracking.reports import CallFacts, Enqueued, Told
from lrp_celery.tracking.rescue import Suspicion
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.steps import Merged, made
from lrp_celery.tracking.store import Found, require_id, require_threshold

logger = logging.getLogger("lrp_celery.telling")

P = ParamSpec("P")
T = TypeVar("T")

#: How often it is tried, before the last time, to note that a call was told of.
_NOTED: Final = 3


class DjangoTrackingStore(OwningStore):
    """A `TrackingStore` and `CallStore` in the tables of this app.

    `using` names the database (default: the setting DATABASE). Writes go through Django's
    own connection, so they belong to the caller's transaction where there is one; what the
    signals record does not, it uses `session`. Each write is one conditional statement, and
    runs of their own, where there are any, are written with it or not at all.
    """

    def __init__(
        self, using: str | None = None, *, session: Session | None = None, timing: Timing | None = None
    ) -> None:
        super().__init__(timing or options().timing)
        self._session = session or CallerSession(using or options().DATABASE)

    def get_status(self, call_id: str) -> CallSnapshot | None:
        """Return the call as it stands, with the moment its retention ends, or None."""
        record = self.look(call_id)
        snapshot = None if record is None else record.snapshot()
        if record is None or snapshot is None or record.until_removed:
            return snapshot
        if snapshot.terminal_at is None or snapshot.purge_at is not None:
            return snapshot
        ends = options().retention.ends(snapshot.task, snapshot.status, snapshot.terminal_at, record.handled_at)
        return snapshot if ends is None else replace(snapshot, purge_at=ends)

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in the order they were first heard of."""
        wanted = Attempt.objects.filter(call_id=call_id).order_by("number").values_list(*rows.ATTEMPT_COLUMNS)
        return tuple(map(rows.attempt_record, self._select(wanted)))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete rows that ended strictly before `older_than`, in chunks; return how many."""
        from django_app.purge import purge_older_than  # which counts what it deletes, by this package

        threshold = require_threshold(older_than)
        try:
            return purge_older_than(threshold, using=self._session.alias)
        except Error as error:
            raise self._failure(error) from error

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        """Merge many reports in a few statements; return those whose rows others hold for now."""
        for each in told:
            require_id(each.report.call_id)
        counting = self._counting(told)
        return self._with_connection(Batch(self._session, self._fold, self._write_within).merge, counting)

    @property
    def place(self) -> str | None:
        """What tells the database from every other; None: it is in memory."""
        connection = connections[self._session.alias]
        if is_callers_only(connection):
            return None
        settings = connection.settings_dict
        return ":".join([connection.vendor, *(str(settings.get(key) or "") for key in ("HOST", "PORT", "NAME"))])

    def _is_past(self, record: CallRecord, now: datetime) -> bool:
        if record.terminal_at is None:
            return False
        keep = options().retention.keep(record.task, record.status)
        return keep is not None and record.terminal_at < now - keep

    def _now(self) -> datetime:
        return self._singly(read_clock)

    def _find(self, call_id: str, run: str | None) -> Found:
        return self._singly(_find, call_id, run)

    def _find_again(self, call_id: str, run: str | None) -> Found:
        return self._singly(_find_again, call_id, run)

    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        is_written = self._with_connection(self._write_on, merged, replaces)
        ended_at = merged.record.terminal_at
        is_end = ended_at is not None and (replaces is None or replaces.terminal_at != ended_at)
        if is_written and is_end and telling.is_heard():
            # Nobody else may ever see what is written here: who listens is told by whoever commits it.
            self._session.after_commit(lambda: self._tell_at_once(merged.record.call_id))
        return is_written

    def _tell_at_once(self, call_id: str) -> None:
        record = self._with_connection(self._within_transaction, telling.take_one, call_id)
        if record is not None:
            telling.tell(record)
            self._singly(telling.told, record)

    def tell_next(self) -> bool:
        """Tell the receivers of `call_ended`, in this process and thread, of the next call that has ended."""
        if not telling.is_heard() or not self._singly(telling.is_due):
            return False
        record = self._with_connection(self._within_transaction, telling.take)
        if record is None:
            return False
        # As around a request: the receivers' own connections may have been lost since the last time.
        refresh_connections()
        try:
            telling.tell(record)
        finally:
            refresh_connections()
        self._note_told(record)
        return True

    def _note_told(self, record: CallRecord) -> None:
        """Note it insistently: somebody may have locked the row for a while, and it would be told of again."""
        for _ in range(_NOTED):
            try:
                return self._singly(telling.told, record)
            except StoreError as error:
                logger.info("That call %s was told of is not noted yet: %s", record.call_id, error)
        return self._singly(telling.told, record)

    def _within_transaction(self, connection: BaseDatabaseWrapper, work: Callable[..., T], *args: Any) -> T:
        with self._session.atomic():
            return work(connection, *args)

    def _enqueue(self, report: Enqueued, facts: CallFacts) -> bool:
        if report.message is not None:
            return self._write(made(report, facts, NOW), None)
        return self._singly(enqueuing.insert, report, facts)

    def enqueue_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of these calls, those of new ones by one statement."""
        new = [report for report in reports if enqueuing.is_new(report)]
        for report in reports:
            require_id(report.call_id)
        if new:
            self._singly(enqueuing.insert_many, new)
        for report in reports:
            if not enqueuing.is_new(report):
                self.report(report)

    def insert_all(self, orders: Sequence[owned.Order], taken: callstore.Taken) -> list[CallRecord | None]:
        """Make the rows of new calls, and keep their messages, by one statement each."""
        for order in orders:
            require_id(order.call_id)
        return self._with_connection(self._insert_all_on, orders, taken) if orders else []

    def _insert_all_on(
        self, connection: BaseDatabaseWrapper, orders: Sequence[owned.Order], taken: callstore.Taken
    ) -> list[CallRecord | None]:
        with self._session.atomic():
            placed = placing.place_all(connection, orders, self.timing)
            known = placing.known(connection, [order.call_id for order in orders if order.call_id not in placed])
            made: list[CallRecord | None] = []
            for order in orders:
                record = placed.pop(order.call_id, None)
                made.append(record or self._insert_known(order, known, taken))
        return made

    def _insert_known(
        self, order: owned.Order, known: Mapping[str, CallRecord], taken: callstore.Taken
    ) -> CallRecord | None:
        """Insert a call whose id has a row: it may be absent to readers, then the id is free."""
        record = known.get(order.call_id) or self.look(order.call_id)
        if record is None or record.is_absent(self._now()):
            return self._insert_or_tell(order, taken)
        taken(order, record)
        return None

    def none_sent(self, call_ids: Sequence[str]) -> None:
        """Note that whoever was to send these messages could not: of what nobody has touched by one statement."""
        for call_id in self._singly(placing.none_sent, call_ids) if call_ids else ():
            self.not_sent(call_id)

    def _make(self, order: owned.Order) -> CallRecord | None:
        if not at_once.may_place(connections[self._session.alias], order):
            return super()._make(order)
        return self._singly(at_once.place, order, self.timing)

    def _begin(self, delivery: owned.Delivery) -> CallRecord | None:
        return self._singly(at_once.claim, delivery, self.timing)

    @cached_property
    def _can_listen(self) -> bool:
        return can_listen(connections[self._session.alias])

    @cached_property
    def _listener(self) -> Listener:
        return Listener(self._session.alias, self.newsroom)

    def count_ended(self, limit: int) -> int:
        """Enter ended calls into the hourly counts; leave them for now if others hold those."""
        return self._with_connection(self._count_ended_on, limit)

    def _count_ended_on(self, connection: BaseDatabaseWrapper, limit: int) -> int:
        if not counting.is_due(connection):
            return 0
        try:
            with self._session.atomic():
                return counting.count_some(connection, limit)
        except Error as error:
            if not rows.is_held_up(error):
                raise
            return 0

    def _write_on(self, connection: BaseDatabaseWrapper, merged: Merged, replaces: CallRecord | None) -> bool:
        if replaces is not None and _is_lost_to_counts(connection, merged.record, replaces):
            with self._session.atomic():
                counting.count_these(connection, [replaces.call_id])
                return self._write_within(connection, merged, replaces)
        if at_once.is_possible(connection, merged):
            with self._session.single():
                return at_once.write(connection, merged, replaces)
        is_more = bool(merged.attempts or merged.lines or merged.forgets_runs) or merged.payload is not None
        with self._session.atomic() if is_more else self._session.single():
            return self._write_within(connection, merged, replaces)

    def _write_within(self, connection: BaseDatabaseWrapper, merged: Merged, replaces: CallRecord | None) -> bool:
        """Write the row and what hangs on it, inside of a transaction if that is more than one statement."""
        call_id = merged.record.call_id
        if not at_once.write_row(connection, merged.record, replaces):
            return False
        if merged.forgets_runs:
            rows.attempts.delete(connection, {"call_id": call_id})
            rows.log_lines.delete(connection, {"call_id": call_id})
        for line in merged.lines:
            rows.log_lines.insert(connection, {"call_id": call_id, **asdict(line)})
        for attempt in merged.attempts:
            _write_attempt(connection, call_id, attempt)
        if merged.payload is not None:
            _write_payload(connection, call_id, merged.payload, is_new=replaces is None)
        return True

    @property
    def tells(self) -> bool:
        """Whether PostgreSQL tells, and we hear it."""
        return self._listener.is_listening

    def watching(self, call_id: str) -> AbstractContextManager[Watch]:
        """Watch a call within this context; it is opened without a statement in this thread."""
        return self._listener.watching(call_id) if self._can_listen else self.newsroom.watching(call_id)

    def await_end(self, call_id: str) -> bool:
        """Note that somebody waits for the end of a call; False: it has ended, or its end was asked for."""
        return super().await_end(call_id) and (not self._can_listen or self._singly(_await_end, call_id))

    def payload(self, call_id: str) -> callstore.Payload | None:
        """Return what is kept beside the row; None: nothing."""
        found = self._singly(rows.payloads.find, {"call_id": call_id}, ("message", "result", "error"))
        return callstore.Payload(message=found[0][0], result=found[0][1], error=found[0][2]) if found else None

    def look_with_result(self, call_id: str) -> tuple[CallRecord, callstore.Payload] | None:
        """Return the row as readers see it, and of one that has ended its result or error, in one statement."""
        require_id(call_id)
        return self._singly(_look_with_result, call_id)

    def log(self, call_id: str) -> Sequence[LogLine]:
        """Return what a call has logged, in order."""
        wanted = models.LogLine.objects.filter(call_id=call_id).order_by("number").values_list("number", "at", "text")
        found = self._select(wanted)
        return [LogLine(number=number, at=at, text=text) for number, at, text in found]

    def aborts(self, call_ids: Sequence[str]) -> Sequence[CallRecord]:
        """Return those of the calls that are open and whose end somebody has asked for."""
        if not call_ids:
            return []
        asked = Call.objects.filter(pk__in=call_ids, terminal_at=None, abort_requested_at__isnull=False).order_by()
        # Asked for all the time, and nearly always in vain: a query for whole rows takes longer to put together.
        return super().aborts([call_id for (call_id,) in self._select(asked.values_list("pk"))])

    def still_open(self, call_ids: Sequence[str]) -> set[str]:
        """Return those of the calls that go on: whoever waits for any other has something to look at."""
        going_on = Call.objects.filter(pk__in=call_ids, terminal_at=None, abort_requested_at=None, removed_at=None)
        return {call_id for (call_id,) in self._select(going_on.order_by().values_list("pk"))}

    def revoked(self, limit: int) -> Sequence[str]:
        """Return open observed calls whose end somebody has asked for, the latest request first."""
        asked = Call.objects.filter(terminal_at=None, owned=False, abort_requested_at__isnull=False)
        newest = asked.order_by("-abort_requested_at").values_list("pk")[:limit]
        return [call_id for (call_id,) in self._select(newest)]

    def family(self, root_id: str, limit: int) -> Sequence[CallRecord]:
        """Return the calls that stem from this one."""
        stem = Call.objects.filter(Q(root_id=root_id) | Q(pk=root_id), removed_at=None).order_by()
        found = self._select(stem.values_list(*rows.CALL_COLUMNS)[:limit])
        return list(map(rows.call_record, found))

    def due(self, limit: int, app: str | None = None) -> Sequence[str]:
        """Return owned calls that somebody must look after now, the longest overdue first."""
        # The clock is read before: on PostgreSQL it is volatile, and no index serves a comparison with it.
        due = Call.objects.filter(attend_at__lte=self._now()).order_by("attend_at").values_list("pk")
        wanted = due[:limit] if app is None else due.filter(app=app)[:limit]
        return [call_id for (call_id,) in self._select(wanted)]

    def _suspects(self, after: datetime | None, suspicion: Suspicion) -> tuple[Sequence[CallRecord], datetime | None]:
        return self._singly(suspects.find, after, suspicion)

    def is_overtaken(self, record: CallRecord) -> bool:
        """Whether a call of the same queue has been started that was asked for after this one's message went out."""
        since = owned.sent_at(record)
        later = Call.objects.filter(queue=record.queue, enqueued_at__gt=since, started_at__isnull=False)
        return bool(self._select(later.order_by("enqueued_at").values_list("pk")[:1]))

    def renew(self, runs: Iterable[tuple[str, str]]) -> dict[str, CallRecord]:
        """Extend the leases of these (call id, run), in one statement that waits for nobody."""
        held = dict(runs)
        return self._with_connection(self._renew_on, held) if held else {}

    def _renew_on(self, connection: BaseDatabaseWrapper, held: dict[str, str]) -> dict[str, CallRecord]:
        # Without locks a transaction that has read may find that it must not write; each write is conditional anyway.
        locks = connection.features.has_select_for_update_skip_locked
        with self._session.atomic() if locks else self._session.single():
            return renewal.renew(connection, held, self.timing)

    def beat(self, worker: WorkerFacts) -> None:
        """Note that a worker is alive."""
        self._singly(_beat, worker)

    def workers(self) -> Sequence[WorkerFacts]:
        """Return the workers that were heard of, the latest first."""
        names = [field.name for field in fields(WorkerFacts)]
        found = self._select(Worker.objects.order_by("-seen_at").values_list(*names))
        return [WorkerFacts(**dict(zip(names, row, strict=True))) for row in found]

    def forget_worker(self, boot_id: str) -> None:
        """Forget a worker that has ended in good order."""
        self._singly(rows.workers.delete, {"boot_id": boot_id})

    def _select(self, wanted: QuerySet[Any, Any]) -> list[tuple[Any, ...]]:
        return self._singly(rows.select, wanted)

    def _singly(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(connection, *args)`, whose statements need no transaction around them."""
        answer: T = self._with_connection(self._within_single, work, args)
        return answer

    def _within_single(self, connection: BaseDatabaseWrapper, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        with self._session.single():
            return work(connection, *args)

    def _with_connection(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(connection, *args)`; once more if the connection turns out to have been lost."""
        try:
            try:
                return rows.insist(self._session.connection(), work, *args)
            except (OperationalError, InterfaceError, NotSupportedError) as error:
                is_worth_it = self._session.failed() or rows.is_outdated(error)
                if rows.is_silence(error) or not is_worth_it:
                    raise
                return work(self._session.connection(), *args)
        except Error as error:
            self._session.failed()
            raise self._failure(error) from error
        except SynchronousOnlyOperation:
            # Django refused before anything was said; in a loop the connection could not even be closed.
            raise
        except BaseException:
            # A time limit, a shutdown: it may have struck in the middle of a statement.
            self._session.failed()
            raise
        finally:
            self._session.release()

    def _failure(self, error: Error) -> StoreError:
        kind = StoreUnavailable if rows.is_away(error) else StoreError
        return kind(f"The database {self._session.alias!r} failed: {_first_line(error)}")

    async def _apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # Thread-sensitive, as Django's own async methods are: the twin sees the caller's transaction.
        return await sync_to_async(work)(*args, **kwargs)


def _is_lost_to_counts(connection: BaseDatabaseWrapper, record: CallRecord, replaces: CallRecord) -> bool:
    """Whether a row that has ended will no longer say how: it is given to a new call, or removed with its error.

    That is not worth keeping others from counting until somebody's transaction ends: then only the error is lost.
    """
    is_blanked = replaces.error_type is not None and record.error_type is None
    return replaces.status.is_terminal and (record.status.is_open or (is_blanked and not is_in_transaction(connection)))


def _find(connection: BaseDatabaseWrapper, call_id: str, run: str | None, *, lock: bool = False) -> Found:
    record, now, _ = _read(connection, call_id, lock=lock)
    if record is None or run is None or run == record.run or record.runs == 0:
        return Found(record, None, now)
    attempts = rows.attempts.find(connection, {"call_id": call_id, "run": run}, rows.ATTEMPT_COLUMNS, lock=lock)
    return Found(record, next(map(rows.attempt_record, attempts), None), now)


def _look_with_result(connection: BaseDatabaseWrapper, call_id: str) -> tuple[CallRecord, callstore.Payload] | None:
    of_ended = f"FROM {rows.payloads.quoted(connection)} AS p WHERE p.call_id = {rows.calls.quoted(connection)}.call_id"
    texts = [f"(SELECT p.{name} {of_ended} AND terminal_at IS NOT NULL)" for name in ("result", "error")]
    record, now, found = _read(connection, call_id, also=texts)
    if record is None or record.is_absent(now):
        return None
    return record, callstore.Payload(result=found[0], error=found[1])


def _read(
    connection: BaseDatabaseWrapper, call_id: str, *, also: Sequence[str] = (), lock: bool = False
) -> tuple[CallRecord | None, datetime, tuple[Any, ...]]:
    """Return the row, the time, and what else was asked for, in one statement.

    SQLite has no clock but the host's, which is read before what it is to tell of.
    """
    clock = clock_function(connection)
    before = None if clock is not None else read_clock(connection)
    told = also if clock is None else [*also, clock]
    found = rows.calls.find(connection, {"call_id": call_id}, rows.CALL_COLUMNS, also=told, lock=lock)
    if not found:
        return None, before or read_clock(connection), ()
    values, more = found[0][: len(rows.CALL_COLUMNS)], found[0][len(rows.CALL_COLUMNS) :]
    return rows.call_record(values), before or as_utc(more[-1]), more


def _find_again(connection: BaseDatabaseWrapper, call_id: str, run: str | None) -> Found:
    # MySQL shows a transaction what was there at its first read; only a lock shows what is there now.
    lock = connection.vendor == "mysql" and not connection.get_autocommit()
    return _find(connection, call_id, run, lock=lock)


def _await_end(connection: BaseDatabaseWrapper, call_id: str) -> bool:
    # No version of the row: whoever is about to write it need not read it again.
    waited_for = {"call_id": call_id, "terminal_at": None, "abort_requested_at": None}
    return rows.calls.update(connection, waited_for, {"awaited": True}) == 1


def _beat(connection: BaseDatabaseWrapper, worker: WorkerFacts) -> None:
    now = read_clock(connection)
    news = {"seen_at": now, "waiting": worker.waiting, "dropped": worker.dropped}
    if rows.workers.update(connection, {"boot_id": worker.boot_id}, news) == 0:
        rows.workers.insert(connection, {**asdict(worker), "started_at": now, "seen_at": now})


def _write_payload(
    connection: BaseDatabaseWrapper, call_id: str, changed: Mapping[str, str | None], *, is_new: bool
) -> None:
    known = {"call_id": call_id}
    if changed == owned.BLANK:
        rows.payloads.delete(connection, known)
    elif is_new or (rows.payloads.update(connection, known, changed) == 0 and any(changed.values())):
        rows.payloads.insert(connection, {**known, **changed})


def _write_attempt(connection: BaseDatabaseWrapper, call_id: str, attempt: AttemptRecord) -> None:
    values = rows.attempt_values(attempt)
    if rows.attempts.update(connection, {"call_id": call_id, "run": attempt.run}, values) == 0:
        rows.attempts.insert(connection, {"call_id": call_id, **values})


def _first_line(error: Error) -> str:
    # The lines after the first may quote the row.
    return clean(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", 300)
