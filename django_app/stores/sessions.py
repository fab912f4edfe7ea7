"""Whose connection a write uses: the caller's, or one of our own.

A row about a call must survive the rollback of whoever made the call, must not wait in
his open transaction, and must not end with Celery's closing of Django's connections
around each task. So writes normally use a connection of our own, in autocommit, one for
each thread. The caller's is used where a second one would be wrong: see `wiring`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import lru_cache
from typing import Any, Final, Protocol

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.committing import after_commit
from django_app.executing import execute
from django_app.surroundings import under_test


class Session(Protocol):
    """Lends a connection to one database."""

    alias: str

    def connection(self) -> BaseDatabaseWrapper:
        """Return the connection to use in this thread."""
        ...

    def atomic(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context whose writes happen all or not at all, without harming an outer transaction."""
        ...

    def single(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context for one statement that is atomic by itself."""
        ...

    def failed(self) -> bool:
        """Tell the session that the database raised; return whether a second try may succeed."""
        ...

    def release(self) -> None:
        """Tell the session that the work is done for now."""
        ...

    def after_commit(self, work: Callable[[], None]) -> None:
        """Do what is to follow a write where only whoever commits it can: on the caller's connection; else nobody does."""
        ...


class CallerSession:
    """Django's own connection of this thread; writes belong to the caller's transaction, if he has one."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def connection(self) -> BaseDatabaseWrapper:
        """Return `connections[alias]`."""
        return connections[self.alias]

    def atomic(self) -> contextlib.AbstractContextManager[Any]:
        """Return a transaction, or a savepoint in the caller's: our errors must not poison his work."""
        return transaction.atomic(using=self.alias)

    def single(self) -> contextlib.AbstractContextManager[Any]:
        """Return a savepoint inside the caller's transaction, else nothing."""
        return self.atomic() if self.connection().in_atomic_block else contextlib.nullcontext()

    def release(self) -> None:
        """Leave the connection to Django."""

    def after_commit(self, work: Callable[[], None]) -> None:
        """Do it when the caller has committed; now, if he has no transaction."""
        connection = self.connection()
        # Of a transaction without `atomic` nobody tells when it ends; after that others see what was written.
        if connection.in_atomic_block or connection.get_autocommit():
            after_commit(self.alias, work)

    def failed(self) -> bool:
        """Never: a second try inside somebody's transaction could only fail again."""
        return False


class OwnSession:
    """A connection of our own for each thread, in autocommit, that Django does not know of.

    So it is neither closed around tasks nor rolled back with anybody. It is opened at the
    first use with the alias's settings of that moment, and again after it broke. A forked
    child never touches its parent's.

    `lasting` False: what is written may be lost if the database's machine fails within a second, but
    never by the end of a process. That is for what was only observed: no commit waits for a disk, and
    a lost row is made again by its worker.
    """

    #: Seconds to wait for a server that does not answer: a task must not wait for its watcher.
    CONNECT_TIMEOUT: Final = 3
    ANSWER_TIMEOUT: Final = 5
    #: Seconds for which PostgreSQL may be silent: it may have to wait for its disk.
    SILENCE: Final = 10.0
    LOCK_TIMEOUT: Final = 2
    #: How often PostgreSQL is asked the same before it is asked to remember the question.
    PREPARE_AFTER: Final = 3

    def __init__(self, alias: str, *, lasting: bool = True) -> None:
        self.alias = alias
        self._lasting = lasting
        self._mine = threading.local()
        self._kept: set[BaseDatabaseWrapper] = set()
        os.register_at_fork(after_in_child=self._forked)

    def connection(self) -> BaseDatabaseWrapper:
        """Return this thread's connection, opened if need be."""
        lent: _Lent | None = getattr(self._mine, "lent", None)
        if lent is None or lent.wrapper.settings_dict["NAME"] != connections.settings[self.alias]["NAME"]:
            self.close()
            lent = _Lent(self._open(), self._kept)
            self._mine.lent = lent
        return lent.wrapper

    def single(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context for one statement, which autocommit makes atomic."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def atomic(self) -> Iterator[None]:
        """Run a transaction of its own, of which one inside it is a part: nothing else uses this connection."""
        wrapper = self.connection()
        wrapper.ensure_connection()
        if not wrapper.get_autocommit():
            yield
            return
        wrapper.set_autocommit(False)
        try:
            yield
            _end(wrapper, "COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                _end(wrapper, "ROLLBACK")
            raise
        finally:
            with contextlib.suppress(Exception):
                wrapper.set_autocommit(True)

    def failed(self) -> bool:
        """Drop the connection: whatever broke it, the next one is new."""
        lent: _Lent | None = getattr(self._mine, "lent", None)
        # One that still answers failed for another reason, and would fail again.
        was_lost = lent is not None and not lent.is_usable()
        self.close()
        return was_lost

    def release(self) -> None:
        """Keep the connection, unless a test runner is about to drop its database."""
        if under_test():
            self.close()

    def after_commit(self, work: Callable[[], None]) -> None:
        """Leave it: others see what was written."""

    def close(self) -> None:
        """Close this thread's connection, if there is one."""
        lent: _Lent | None = getattr(self._mine, "lent", None)
        self._mine.lent = None
        if lent is not None:
            lent.close()

    def _open(self) -> BaseDatabaseWrapper:
        wrapper = open_connection(self.alias)
        is_ours = is_direct(wrapper)
        hurried = ("SET synchronous_commit = off",) if is_ours and not self._lasting else ()
        for statement in (*_bounds(wrapper, is_ours=is_ours), *hurried):
            with wrapper.cursor() as cursor:
                cursor.execute(statement)
        if is_ours and hasattr(wrapper.connection, "prepare_threshold") and hasattr(select, "poll"):
            # For `execute`; the driver's own cursors would forget what it has prepared, too.
            wrapper.connection.prepare_threshold = None
            vars(wrapper)["lrp_celery_statements"] = self._statements(wrapper)
        return wrapper

    def _statements(self, wrapper: BaseDatabaseWrapper) -> Any:
        from django_app.stores.statements import Statements  # which needs a driver that not every project has

        return Statements(wrapper.connection, _manners(wrapper), within=self.SILENCE, prepare_after=self.PREPARE_AFTER)

    def _forked(self) -> None:
        self._mine = threading.local()


@lru_cache(maxsize=8)
def own_session(alias: str) -> OwnSession:
    """Return the one session of our own for a database, which all stores on it share."""
    return OwnSession(alias)


@lru_cache(maxsize=8)
def observing_session(alias: str) -> OwnSession:
    """Return the one session for what is only observed: it does not wait for the database's disk."""
    return OwnSession(alias, lasting=False)


def open_connection(alias: str) -> BaseDatabaseWrapper:
    """Return a new connection to the database of `alias`, which Django does not know of, in autocommit."""
    lent = connections[alias]
    wrapper: BaseDatabaseWrapper = type(lent)(_bounded(lent), alias=alias)
    wrapper.inc_thread_sharing()
    return wrapper


def is_direct(wrapper: BaseDatabaseWrapper) -> bool:
    """Whether what is set, prepared or listened to on this connection to PostgreSQL stays its own.

    A pooler between may hand the server's session to others after each transaction. It shows
    by a process id that is not the server's; Django's setting for poolers says so, too.
    """
    if wrapper.vendor != "postgresql" or wrapper.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return False
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return bool(cursor.fetchone()[0] == wrapper.connection.info.backend_pid)


class _Lent:
    """A thread's connection: closed when the thread ends, but never by a forked child.

    `kept` holds on to it meanwhile: a child that let go of its parent's connection would
    thereby send a goodbye on the socket that both share.
    """

    def __init__(self, wrapper: BaseDatabaseWrapper, kept: set[BaseDatabaseWrapper]) -> None:
        self.wrapper = wrapper
        self._kept = kept
        self._pid = os.getpid()
        kept.add(wrapper)

    def is_usable(self) -> bool:
        """Whether the server still answers on it; one that only waited too long for a lock does."""
        if self.wrapper.connection is None:
            return False
        try:
            return bool(execute(self.wrapper, "SELECT 1").fetchone())
        except Error:
            return False

    def close(self) -> None:
        if os.getpid() == self._pid:
            self._kept.discard(self.wrapper)
            with contextlib.suppress(Exception):
                self.wrapper.close()

    def __del__(self) -> None:
        self.close()


def _bounded(lent: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return the alias's settings as they are now (under test: the test database), with bounded waits."""
    settings = {**lent.settings_dict, "OPTIONS": dict(lent.settings_dict.get("OPTIONS") or {})}
    settings.update(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=False, ATOMIC_REQUESTS=False, AUTOCOMMIT=True)
    options = settings["OPTIONS"]
    if lent.vendor == "postgresql":
        options.pop("pool", None)
        # Each write is one decision on what is there now; a stricter level would refuse some of them.
        options.pop("isolation_level", None)
        options.setdefault("connect_timeout", OwnSession.CONNECT_TIMEOUT)
        options.setdefault("tcp_user_timeout", OwnSession.ANSWER_TIMEOUT * 1000)
        # A statement that carries its values as text cannot be prepared.
        options.setdefault("server_side_binding", True)
    elif lent.vendor == "mysql":
        options.setdefault("connect_timeout", OwnSession.CONNECT_TIMEOUT)
        options.setdefault("read_timeout", OwnSession.ANSWER_TIMEOUT)
        options.setdefault("write_timeout", OwnSession.ANSWER_TIMEOUT)
    elif lent.vendor == "sqlite":
        options["timeout"] = min(options.get("timeout", OwnSession.LOCK_TIMEOUT), OwnSession.LOCK_TIMEOUT)
    return settings


def _end(wrapper: BaseDatabaseWrapper, how: str) -> None:
    """End a transaction; not by the driver where it would have to be waited for for ever."""
    if "lrp_celery_statements" in vars(wrapper):
        execute(wrapper, how)
    elif how == "COMMIT":
        wrapper.commit()
    else:
        wrapper.rollback()


def _manners(wrapper: BaseDatabaseWrapper) -> Any:
    """Return how values are read: instants by the driver's own compiled code, where Django's would say the same: in UTC."""
    cursor = wrapper.connection.cursor()
    if wrapper.timezone is UTC:
        from psycopg.types.datetime import TimestamptzLoader

        cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
    return cursor


def _bounds(wrapper: BaseDatabaseWrapper, *, is_ours: bool) -> tuple[str, ...]:
    """Return what keeps a connection from waiting long for somebody's lock."""
    seconds = OwnSession.LOCK_TIMEOUT
    if wrapper.vendor == "mysql":
        return (f"SET SESSION innodb_lock_wait_timeout = {seconds}", f"SET SESSION lock_wait_timeout = {seconds}")
    # Behind a pooler it would be others who get the bound.
    if is_ours:
        return (f"SET lock_timeout = '{seconds}s'",)
    return ()
