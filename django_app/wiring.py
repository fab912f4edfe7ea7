"""How Celery's signals reach this app's tables."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final

from django.db import connections

from django_app.committing import after_commit
from django_app.conf import Options, options
from django_app.procedures import DjangoRuntime
from django_app.stores import DjangoTrackingStore
from django_app.stores.sessions import CallerSession, observing_session
from django_app.surroundings import is_callers_only, under_test
from lrp_celery.core.redaction import Redactor
from lrp_celery.procedures import runtime, workers
from lrp_celery.tracking import signals
from lrp_celery.tracking.recorder import Pause, losses
from lrp_celery.tracking.reports import Enqueued, Report
from lrp_celery.tracking.selection import Selection
from lrp_celery.tracking.spool.recorder import SpoolRecorder
from lrp_celery.tracking.tracking import Tracking, install


def connect() -> None:
    """Track every Celery app of this process that has no tracking of its own."""
    install(current_tracking)
    runtime.install(current_runtime)
    signals.connect()
    workers.connect()


def current_tracking() -> Tracking:
    """Return what the settings of this moment say; `ConfigurationError` if they are wrong."""
    return _built_of(options())[0]


def current_runtime() -> DjangoRuntime:
    """Return what procedures stand on by the settings of this moment; `ConfigurationError` if they are wrong."""
    return _built_of(options())[1]


_built: tuple[Options, tuple[Tracking, DjangoRuntime]] | None = None


def _built_of(chosen: Options) -> tuple[Tracking, DjangoRuntime]:
    global _built  # noqa: PLW0603 - built once for each reading of the settings
    if _built is None or _built[0] is not chosen:
        _built = chosen, (_build(chosen), DjangoRuntime(chosen))
    return _built[1]


def _build(chosen: Options) -> Tracking:
    store = DjangoTrackingStore(chosen.DATABASE)
    in_place = RoutingRecorder(chosen.DATABASE)
    return Tracking(
        store=store,
        recorder=in_place if chosen.spool is None else SpoolRecorder(in_place, lambda: store.place),
        selection=Selection(chosen.TRACK, chosen.EXCLUDE),
        kept=Selection(chosen.PAYLOAD, ()),
        redactor=Redactor(chosen.REDACT),
        spool=chosen.spool,
    )


#: Writes something to a store, unless that is left alone for a while.
Write = Callable[[Pause, DjangoTrackingStore], None]


class RoutingRecorder:
    """Writes each report at once, over the connection that fits where it comes from.

    Normally over one of our own. Over the caller's where his is the only one that can:
    eager tasks and Django's `TestCase` (so that no test leaves rows behind) and SQLite in
    memory. On SQLite inside a transaction, whose lock a second connection could not pass,
    the row is written when the caller commits; after a rollback the worker's report makes it.
    """

    #: Seconds that a publish from an event loop waits for its row.
    LOOP_WAIT: Final = 5.0

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._callers = DjangoTrackingStore(session=CallerSession(alias))
        self._own = DjangoTrackingStore(session=observing_session(alias))
        self._callers_pause, self._own_pause = Pause(), Pause()

    def record(self, report: Report, *, inline: bool = False) -> None:
        """Bring the report to its row."""
        self._route(lambda pause, store: pause.write(store, report), inline=inline)

    def record_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of these calls."""
        self._route(lambda pause, store: pause.write_all(store, reports), inline=False)

    def _route(self, write: Write, *, inline: bool) -> None:
        lent = connections[self._alias]
        is_callers = inline or is_callers_only(lent)
        if _in_event_loop():
            self._write_from_loop(write, is_callers=is_callers)
        elif is_callers:
            write(self._callers_pause, self._callers)
        elif lent.vendor == "sqlite" and lent.in_atomic_block:
            after_commit(self._alias, lambda: self._write(write))
        elif lent.vendor == "sqlite" and lent.connection is not None and not lent.get_autocommit():
            # A transaction without `atomic` tells nobody that it ends; the worker's report makes the row.
            losses.add("row at publish")
        else:
            self._write(write)

    def _write_from_loop(self, write: Write, *, is_callers: bool) -> None:
        """Write in another thread, for Django refuses to in an event loop's; there the caller's connection is not."""
        if is_callers and under_test():
            losses.add("report from an event loop under test")
            return
        written = _helper(os.getpid()).submit(self._write, write)
        try:
            written.result(timeout=self.LOOP_WAIT)
        except TimeoutError as error:
            losses.add("report in time, from an event loop", error)

    def _write(self, write: Write) -> None:
        write(self._own_pause, self._own)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@lru_cache(maxsize=1)
def _helper(pid: int) -> ThreadPoolExecutor:
    # One for each process: a forked child has none of its parent's threads.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lrp_celery")
