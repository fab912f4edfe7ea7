"""Any tracked call, by its id, from any process.

For example `calls.get(result.id)` tells what became of `result = task.delay()`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery._state import get_current_app

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.procedures import enqueuing
from lrp_celery.procedures.deeds import Deeds
from lrp_celery.procedures.runtime import Runtime, runtime_of
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.store import ReportStore
from lrp_celery.tracking.tracking import tracking_of

__all__ = [
    "aabort",
    "abort",
    "aenqueue_many",
    "aget",
    "ahandle",
    "aremove",
    "arerun",
    "aresend",
    "enqueue_many",
    "get",
    "handle",
    "remove",
    "rerun",
    "resend",
]


def get(call_id: str) -> CallSnapshot | None:
    """Return the call with this id (the Celery task id) as its row stands now, or None if it has no row.

    None means: never tracked, or purged. Raises `StoreError` when the store cannot be read
    and `ConfigurationError` when no store is set up or the id cannot be one.
    """
    return _store().get_status(call_id)


async def aget(call_id: str) -> CallSnapshot | None:
    """Async twin of `get`."""
    return await _store().aget_status(call_id)


def enqueue_many(signatures: Iterable[Any], *, chunk: int = 500) -> list[str]:
    """Enqueue many calls, of procedures and other tasks; return their ids, in order.

    `signatures` are Celery's, such as `task.s(1)`, with the options that each of them has; a generator
    is read `chunk` by `chunk`. Each chunk costs a few statements and one round trip to the broker,
    where its transport has pipelines. Chains, groups and chords are refused.

    Procedures' calls are made as `call` makes them: all of a chunk's rows or none, in the caller's
    transaction, and their messages go out after the commit, if need be by the relay. Calls of other
    tasks go out at once, as by `delay`, and what does not is `PublishFailed`, which names the ids:
    `published`, `uncertain`, `unpublished`. Whatever is wrong with a call is raised before anything
    of its chunk is written; earlier chunks have gone out by then.
    """
    return enqueuing.enqueue_many(signatures, chunk)


async def aenqueue_many(signatures: Iterable[Any], *, chunk: int = 500) -> list[str]:
    """Async twin of `enqueue_many`."""
    return await _runtime().apart(lambda: enqueue_many(signatures, chunk=chunk))


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
    _deeds(by).abort(call_id, reason=reason, tree=tree, force=force)


async def aabort(
    call_id: str, *, reason: str | None = None, by: Any = None, tree: bool = False, force: bool = False
) -> None:
    """Async twin of `abort`."""
    await _runtime().apart(lambda: abort(call_id, reason=reason, by=by, tree=tree, force=force))


def rerun(call_id: str, *, by: Any = None) -> str:
    """Run an ended call once more, as a new call that points back (`rerun_of`); return the new id.

    Task, arguments and owner are those of the old call; its links, chain, queue and other
    options are not taken over. Made like any call of a procedure, in the caller's transaction.
    The old one counts as handled then, if it was a failure.
    A task that is no procedure can be run again if its arguments were kept (the setting PAYLOAD). Its
    message goes out after the commit and is not sent again by anybody: if the broker does not take it,
    without a transaction `PublishFailed` is raised, in one the new call only shows it.
    Raises `CallNotFound`, and `NotRerunnable` for a call that is open, that was only observed
    without its arguments being kept, or whose task this process does not know.
    """
    return _deeds(by).rerun(call_id)


async def arerun(call_id: str, *, by: Any = None) -> str:
    """Async twin of `rerun`."""
    return await _runtime().apart(lambda: rerun(call_id, by=by))


def remove(call_id: str, *, by: Any = None) -> None:
    """Forget an ended call and all that was kept of it; silent if it is unknown, `CallPending` if it is open.

    Belongs to the caller's transaction, if there is one.
    """
    _deeds(by).remove(call_id)


async def aremove(call_id: str, *, by: Any = None) -> None:
    """Async twin of `remove`."""
    await _runtime().apart(lambda: remove(call_id, by=by))


def resend(call_id: str, *, by: Any = None) -> bool:
    """Send the message of an open call once more that nobody has claimed; return whether there was one to send.

    For a message that is believed lost: the relay does so by itself after `RESEND_AFTER`, unless
    the queue is long. A copy too many is harmless, only one is claimed. False for a call that has
    ended, runs, is not due yet, is unknown, or was only observed: its message is not ours. It goes
    out after the caller's commit, or from the relay if the broker is away.
    """
    return _deeds(by).resend(call_id)


async def aresend(call_id: str, *, by: Any = None) -> bool:
    """Async twin of `resend`."""
    return await _runtime().apart(lambda: resend(call_id, by=by))


def handle(call_id: str, *, reason: str | None = None, by: Any = None) -> bool:
    """Note that somebody has dealt with a failed or parked call; return whether that was news.

    The outcome stays as it is; the call is no longer among those that need attention, and one that
    was parked is not kept for ever any more. Belongs to the caller's transaction, if there is one.
    """
    return _deeds(by).handle(call_id, reason=reason)


async def ahandle(call_id: str, *, reason: str | None = None, by: Any = None) -> bool:
    """Async twin of `handle`."""
    return await _runtime().apart(lambda: handle(call_id, reason=reason, by=by))


def _deeds(by: Any) -> Deeds:
    return Deeds(get_current_app(), _runtime(), by)


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
