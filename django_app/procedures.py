"""Procedures on this app's tables: which connection each of their writes uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from django_app.committing import after_commit
from django_app.conf import Options
from django_app.stores import DjangoTrackingStore
from django_app.stores.actions import ActionWriter
from django_app.stores.sessions import CallerSession, own_session
from django_app.surroundings import is_callers_only, is_in_transaction, is_test_case
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.redaction import Redactor
from lrp_celery.procedures.actions import Action
from lrp_celery.procedures.runtime import Limits, in_this_app
from lrp_celery.tracking.callstore import CallStore

T = TypeVar("T")


class DjangoRuntime:
    """A `Runtime` as the settings say."""

    def __init__(self, chosen: Options) -> None:
        self._alias = chosen.DATABASE
        self._callers = DjangoTrackingStore(session=CallerSession(self._alias), timing=chosen.timing)
        self._own = DjangoTrackingStore(session=own_session(self._alias), timing=chosen.timing)
        self.redactor = Redactor(chosen.REDACT)
        self.limits = Limits(
            heartbeat=chosen.HEARTBEAT,
            rescue_interval=chosen.RESCUE_INTERVAL,
            settle_wait=chosen.SETTLE_WAIT,
            publish_wait=chosen.PUBLISH_WAIT,
            grace=chosen.GRACE,
            max_payload=chosen.MAX_PAYLOAD,
            silent_after=chosen.SILENT_AFTER,
        )

        self._actions = ActionWriter(self._alias)

    @property
    def callers(self) -> CallStore:
        """The store on Django's own connection."""
        return self._callers

    def of_new_call(self) -> CallStore:
        """Return the store for the row of a call whose id nobody else has.

        Without a transaction our own connection does as well, and faster: on PostgreSQL. On SQLite whoever
        reads on Django's connection would keep it from writing.
        """
        connection = connections[self._alias]
        is_as_good = connection.vendor == "postgresql" and not is_in_transaction(connection)
        return self.own if is_as_good else self._callers

    @property
    def own(self) -> CallStore:
        """The store on a connection of our own; the caller's where a second one would see another database."""
        return self._callers if is_callers_only(connections[self._alias]) else self._own

    def of_run(self, *, inline: bool) -> CallStore:
        """Return the store of a run."""
        return self._callers if inline else self.own

    async def apart(self, work: Callable[[], T]) -> T:
        """Do `work` where Django's async methods do theirs: it sees the caller's transaction."""
        return await sync_to_async(in_this_app(work))()

    def may_write(self) -> bool:
        """Whether no transaction of this thread keeps SQLite's one writer busy."""
        connection = connections[self._alias]
        return connection.vendor != "sqlite" or not connection.in_atomic_block or is_callers_only(connection)

    def is_alone(self) -> bool:
        """Whether a `TestCase` holds the connection: what it writes is never committed."""
        return is_test_case(connections[self._alias])

    def after_commit(self, work: Callable[[], None]) -> None:
        """Do `work` once the caller's transaction on the calls' database has been committed; without one, now."""
        after_commit(self._alias, work)

    def check_transaction(self) -> None:
        """Refuse a call from a transaction on another database only: its rollback would not take the call back."""
        if len(connections.settings) == 1 or connections[self._alias].in_atomic_block:
            return
        others = [c.alias for c in connections.all(initialized_only=True) if c.in_atomic_block and not is_test_case(c)]
        if others:
            raise ConfigurationError(
                f"This transaction is on {others[0]!r}, the calls are kept in {self._alias!r}: a rollback would not "
                "take the call back. Open one there, too, or say using(detached=True) to call regardless."
            )

    def log(self, action: Action) -> None:
        """Keep what somebody did to a call, on a connection of our own; after the commit where that could not write."""
        if self.may_write():
            self._actions.write(action, callers=self.own is self._callers)
        else:
            self.after_commit(lambda: self._actions.write(action))
