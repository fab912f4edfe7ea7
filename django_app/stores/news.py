"""Hearing from PostgreSQL that a call has ended: LISTEN, on a connection that does nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.stores.sessions import open_connection
from django_app.surroundings import under_test
from lrp_celery.tracking.news import Newsroom, Watch

logger = logging.getLogger("lrp_celery.stores")

CHANNEL: Final = "lrp_celery"
#: Seconds after which a connection is closed on which nobody waits any more.
IDLE: Final = 60.0
_TICK: Final = 5.0
#: A test runner cannot drop a database that somebody listens to.
_TICK_UNDER_TEST: Final = 0.1
_RESPITE: Final = 2.0


def can_listen(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database can tell, and this connection's server is no pooler that would hand it to others."""
    pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    return connection.vendor == "postgresql" and not pooled and _has_notifies()


class Listener:
    """Passes what the database tells on to a newsroom, as long as somebody watches there."""

    def __init__(self, alias: str, newsroom: Newsroom) -> None:
        self._alias = alias
        self._newsroom = newsroom
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.is_listening = False
        os.register_at_fork(after_in_child=self._forked)

    @contextlib.contextmanager
    def watching(self, call_id: str) -> Iterator[Watch]:
        """Watch a call; the first one starts listening."""
        with self._newsroom.watching(call_id) as watch:
            self._ensure()
            yield watch

    def _ensure(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lrp_celery-news", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._may_end():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whoever waits looks by himself meanwhile
                logger.warning("Waiters look for themselves, %r does not tell: %s", self._alias, type(error).__name__)
                self.is_listening = False
                self._newsroom.tell_all()
                time.sleep(_RESPITE)

    def _listen(self) -> None:
        wrapper = open_connection(self._alias)
        try:
            with wrapper.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self.is_listening = True
            self._newsroom.tell_all()
            self._pass_on(wrapper.connection)
        finally:
            self.is_listening = False
            with contextlib.suppress(Exception):
                wrapper.close()

    def _pass_on(self, connection: Any) -> None:
        idle_since = time.monotonic()
        while True:
            for told in connection.notifies(timeout=_TICK_UNDER_TEST if under_test() else _TICK):
                self._newsroom.tell(told.payload)
            if not self._newsroom.is_empty:
                idle_since = time.monotonic()
            elif under_test() or time.monotonic() - idle_since > IDLE:
                return

    def _may_end(self) -> bool:
        with self._lock:
            if not self._newsroom.is_empty:
                return False
            self._thread = None
            return True

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._thread = None
        self.is_listening = False


def _has_notifies() -> bool:
    try:
        import psycopg
    except ImportError:
        return False
    return hasattr(psycopg.Connection, "notifies")
