"""Hearing from PostgreSQL that a call has ended: LISTEN, on a connection that does nothing else."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.stores.sessions import is_direct, open_connection
from django_app.surroundings import under_test
from lrp_celery.core.errors import StoreUnavailable
from lrp_celery.tracking import news
from lrp_celery.tracking.news import Hear, Newsroom

logger = logging.getLogger("lrp_celery.stores")

CHANNEL: Final = "lrp_celery"
#: A test runner cannot drop a database that somebody listens to.
_TICK_UNDER_TEST: Final = 0.1


def can_listen(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database can tell, and this connection's server is no pooler that would hand it to others."""
    pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    return connection.vendor == "postgresql" and not pooled and _has_notifies()


class PoolerBetween(StoreUnavailable):
    """Whoever listens through a pooler hears nothing."""


class Listener(news.Listener):
    """Passes what the database tells on to a newsroom, as long as somebody watches there."""

    def __init__(self, alias: str, newsroom: Newsroom) -> None:
        super().__init__(newsroom)
        self._alias = alias
        self.is_in_vain = False
        """Whether a pooler is known to stand between: then nobody opens a line again."""

    @contextlib.contextmanager
    def _line(self) -> Iterator[Hear]:
        wrapper = open_connection(self._alias)
        try:
            if not is_direct(wrapper):
                self.is_in_vain = True
                logger.warning("Waiters look for themselves, a pooler stands before the database %r.", self._alias)
                raise PoolerBetween
            with wrapper.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            connection: Any = wrapper.connection
            yield lambda seconds: (told.payload for told in connection.notifies(timeout=seconds))
        finally:
            with contextlib.suppress(Exception):
                wrapper.close()

    def _ensure(self) -> None:
        if not self.is_in_vain:
            super()._ensure()

    @property
    def _is_needless(self) -> bool:
        return self.is_in_vain or super()._is_needless

    @property
    def _place(self) -> str:
        return f"the database {self._alias!r}"

    def _patience(self) -> tuple[float, float]:
        return (_TICK_UNDER_TEST, 0.0) if under_test() else super()._patience()


def _has_notifies() -> bool:
    try:
        import psycopg
    except ImportError:
        return False
    return hasattr(psycopg.Connection, "notifies")
