"""What procedures of a Celery app stand on: its stores, its waits, its transactions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from celery import _state as _celery_state

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.redaction import Redactor
from lrp_celery.core.registry import PerApp
from lrp_celery.procedures.actions import Action
from lrp_celery.tracking.callstore import CallStore

T = TypeVar("T")

logger = logging.getLogger("lrp_celery.actions")

#: A day, in seconds.
SILENT_AFTER: Final = 86_400.0

#: Celery's own, which its type stubs do not know of.
_state: Any = _celery_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long procedures wait, in seconds, and how much they keep, in bytes."""

    heartbeat: float = 3.0
    rescue_interval: float = 2.0
    settle_wait: float = 30.0
    publish_wait: float = 1.0
    grace: float = 10.0
    max_payload: int = 262_144
    silent_after: float = SILENT_AFTER


class Runtime(Protocol):
    """The stores of an app's procedures, and how they relate to the caller's transaction."""

    @property
    def callers(self) -> CallStore:
        """What a caller uses: its writes belong to his transaction, if he has one."""
        ...

    def of_new_call(self) -> CallStore:
        """Return what writes the row of a call whose id nobody else has: it belongs to the caller's transaction, too."""
        ...

    @property
    def own(self) -> CallStore:
        """What a run uses: each write counts at once, whatever the body does with its transactions."""
        ...

    @property
    def limits(self) -> Limits:
        """The waits and bounds."""
        ...

    @property
    def redactor(self) -> Redactor:
        """Hides secrets in what is shown."""
        ...

    def of_run(self, *, inline: bool) -> CallStore:
        """Return the store of a run; `inline`: it runs inside its caller, on whose connection it writes."""
        ...

    async def apart(self, work: Callable[[], T]) -> T:
        """Do `work`, which may use the stores, off the event loop; the caller's transaction is still his."""
        ...

    def may_write(self) -> bool:
        """Whether `own` can write now without waiting for what the caller holds in this thread."""
        ...

    def is_alone(self) -> bool:
        """Whether nobody else will ever see what this thread sees, so that waiting for somebody would not end."""
        ...

    def after_commit(self, work: Callable[[], None]) -> None:
        """Do `work` when the caller's transaction has been committed; now, if he has none. It must not raise."""
        ...

    def check_transaction(self) -> None:
        """Refuse a call from a transaction that does not cover the store: `ConfigurationError`."""
        ...

    def log(self, action: Action) -> None:
        """Keep what somebody did to a call, whatever becomes of his transaction. It must not raise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRuntime:
    """A runtime on a store that knows no transactions."""

    own: CallStore
    limits: Limits
    redactor: Redactor

    @property
    def callers(self) -> CallStore:
        """The same store: there is no transaction to belong to."""
        return self.own

    def of_new_call(self) -> CallStore:
        """Return the store."""
        return self.own

    def of_run(self, *, inline: bool) -> CallStore:
        """Return the store."""
        return self.own

    async def apart(self, work: Callable[[], T]) -> T:
        """Do it in another thread."""
        return await asyncio.to_thread(in_this_app(work))

    def may_write(self) -> bool:
        """Nothing is in the way."""
        return True

    def is_alone(self) -> bool:
        """Never: everybody sees the store."""
        return False

    def after_commit(self, work: Callable[[], None]) -> None:
        """Do it now."""
        work()

    def check_transaction(self) -> None:
        """There is none that could be the wrong one."""

    def log(self, action: Action) -> None:
        """Write it to the log: there is no table for it."""
        logger.info("%s", action)


def in_this_app(work: Callable[[], T]) -> Callable[[], T]:
    """Return `work`, to be done in another thread: Celery has a current app for each thread."""
    app = _state.get_current_app()

    def do() -> T:
        before = _state._tls.current_app  # noqa: SLF001 - asking for it would make a default app
        app.set_current()
        try:
            return work()
        finally:
            _state._set_current_app(before)  # noqa: SLF001 - the same

    return do


_registry: PerApp[Runtime] = PerApp()
#: `install(source, app=None)`: let `source` give the runtime of `app` (None: of every app without one of its own).
install = _registry.install
#: `uninstall(app=None)`: undo `install`.
uninstall = _registry.uninstall


def runtime_of(app: Any) -> Runtime:
    """Return what the procedures of `app` stand on; `ConfigurationError` if nothing was set up."""
    runtime = _registry.of(app)
    if runtime is None:
        raise ConfigurationError(
            "Procedures have no store in this process: add 'django_app' to INSTALLED_APPS and call django.setup(), "
            "or without Django create LrpCelery(app, store=...)."
        )
    return runtime
