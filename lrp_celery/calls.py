"""Any tracked call, by its id, from any process.

For example `calls.get(result.id)` tells what became of `result = task.delay()`.
"""

from __future__ import annotations

from typing import Any

from celery._state import get_current_app

from lrp_celery.core.errors import CallPending, ConfigurationError, LrpError
from lrp_celery.procedures import rerunning
from lrp_celery.procedures.actions import Action, Deed, bounded, name_of_user
from lrp_celery.procedures.runtime import Runtime, runtime_of
from lrp_celery.procedures.stopping import Stopping
from lrp_celery.tracking.owned import AbortRequest
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.store import ReportStore
from lrp_celery.tracking.tracking import tracking_of

__all__ = ["aabort", "abort", "aget", "aremove", "arerun", "get", "remove", "rerun"]


def get(call_id: str) -> CallSnapshot | None:
    """Return the call with this id (the Celery task id) as its row stands now, or None if it has no row.

    None means: never tracked, or purged. Raises `StoreError` when the store cannot be read
    and `ConfigurationError` when no store is set up or the id cannot be one.
    """
    return _store().get_status(call_id)


async def aget(call_id: str) -> CallSnapshot | None:
    """Async twin of `get`."""
    return await _store().aget_status(call_id)


def abort(call_id: str, *, reason: str | None = None, by: Any = None, tree: bool = False, force: bool = False) -> None:
    """Ask for the end of a call; silent if it has ended, or is unknown.

    A procedure's call that does not run ends at once and never runs; one that runs is told
    through its signal, and interrupted after its grace. Another task's call is not ours to stop:
    the request is kept, and workers are told not to run it, also those that start later; it is
    ABORTED once one of them drops it, at once if it has been silent for `SILENT_AFTER`, and goes
    on if it runs already. That a broker is away never raises.
    `tree`: its open descendants, too, as far as there are any now; not those made later.
    `force`: kill the pool process that runs it, whatever it is at; prefork only, else
    `ConfigurationError` where the pool is known, and nothing changes. `by`: who asks, a text or a
    Django user. The request counts at once, whatever becomes of the caller's transaction, unless
    only that sees the call, or it is on SQLite, which has one writer.
    """
    runtime = _runtime()
    request = AbortRequest(reason=bounded(reason), by=name_of_user(by), force=force)
    stopping = Stopping(get_current_app(), runtime, request)
    for each in (call_id, *(stopping.descendants(call_id) if tree else ())):
        outcome = stopping.stop(each)
        if outcome is not None:
            runtime.log(Action(deed=Deed.ABORT, call_id=each, by=request.by, reason=request.reason, outcome=outcome))


async def aabort(
    call_id: str, *, reason: str | None = None, by: Any = None, tree: bool = False, force: bool = False
) -> None:
    """Async twin of `abort`."""
    await _runtime().apart(lambda: abort(call_id, reason=reason, by=by, tree=tree, force=force))


def rerun(call_id: str, *, by: Any = None) -> str:
    """Run an ended call once more, as a new call that points back (`rerun_of`); return the new id.

    Task, arguments and owner are those of the old call; its links, chain, queue and other
    options are not taken over. Made like any call of a procedure, in the caller's transaction.
    Raises `CallNotFound`, and `NotRerunnable` for a call that is open, that was only observed
    without its arguments being kept, or whose procedure this process does not know.
    """
    runtime = _runtime()
    try:
        again = rerunning.rerun(get_current_app(), runtime, call_id)
    except LrpError as error:
        runtime.log(_action(Deed.RERUN, call_id, by, f"refused: {type(error).__name__}"))
        raise
    runtime.after_commit(lambda: runtime.log(_action(Deed.RERUN, call_id, by, f"runs again as {again}")))
    return again


async def arerun(call_id: str, *, by: Any = None) -> str:
    """Async twin of `rerun`."""
    return await _runtime().apart(lambda: rerun(call_id, by=by))


def remove(call_id: str, *, by: Any = None) -> None:
    """Forget an ended call and all that was kept of it; silent if it is unknown, `CallPending` if it is open.

    Belongs to the caller's transaction, if there is one.
    """
    runtime = _runtime()
    if runtime.callers.look(call_id) is None:
        return
    if not runtime.callers.remove(call_id):
        raise CallPending(call_id=call_id)
    runtime.after_commit(lambda: runtime.log(_action(Deed.REMOVE, call_id, by, "removed")))


async def aremove(call_id: str, *, by: Any = None) -> None:
    """Async twin of `remove`."""
    await _runtime().apart(lambda: remove(call_id, by=by))


def _action(deed: Deed, call_id: str, by: Any, outcome: str) -> Action:
    return Action(deed=deed, call_id=call_id, by=name_of_user(by), outcome=outcome)


def _runtime() -> Runtime:
    return runtime_of(get_current_app())


def _store() -> ReportStore:
    tracking = tracking_of(get_current_app())
    if tracking is None:
        raise ConfigurationError(
            "No call is tracked in this process: add 'django_app' to INSTALLED_APPS and call django.setup(), "
            "or without Django create LrpCelery(app, store=...)."
        )
    return tracking.store
