"""Waiting for a call without keeping anything busy.

Under ASGI a waiting request holds neither a thread nor a connection to the database: asgiref
keeps a thread for each request, which is given back before the wait, and a few threads of
this process look at the calls of all who wait; where the database does not tell of news, one
more asks it for all of them at once. Under WSGI, or beneath a middleware that is
not async, each request holds a thread anyway; there only so many wait at once, and the
others are told to ask again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.db import connections

from django_app.api.lookout import lookout
from django_app.stores import DjangoTrackingStore
from django_app.wiring import current_runtime
from lrp_celery.core.errors import CallNotCommitted, CallNotFound, ResultTimeout
from lrp_celery.procedures.results import Apart, News, Waiting, await_news
from lrp_celery.procedures.runtime import in_this_app
from lrp_celery.tracking.record import CallRecord

#: Threads that look for all who wait under ASGI.
LOOKERS: Final = 4
#: Threads of one process that waiting requests may hold at once.
HELD: Final = 4

_held: Final = threading.BoundedSemaphore(HELD)


async def lookers() -> Apart | None:
    """Give back this request's thread, and return what looks for it instead; None: it keeps its thread."""
    if not await _leave_thread():
        return None
    loop, pool = asyncio.get_running_loop(), _pool(os.getpid())
    return lambda work: loop.run_in_executor(pool, in_this_app(work))


async def news_of(record: CallRecord, seconds: float, looks: Apart | None) -> News | None:
    """Return how the call stands once there is news of it, or after so many seconds; None: it is gone."""
    if looks is not None:
        own = current_runtime().own
        if isinstance(own, DjangoTrackingStore):
            lookout(own, os.getpid()).ensure()
        return await _wait(record, seconds, looks, is_watched_over=True)
    apart = current_runtime().apart
    if not _held.acquire(blocking=False):
        return await _look(record, apart)
    try:
        return await _wait(record, seconds, apart)
    finally:
        _held.release()


async def _wait(record: CallRecord, seconds: float, apart: Apart, *, is_watched_over: bool = False) -> News | None:
    waiting = Waiting(
        current_runtime(),
        record.task,
        record.call_id,
        seconds,
        allow_in_task=True,
        is_outside=True,
        is_watched_over=is_watched_over,
    )
    try:
        return await await_news(waiting, apart)
    except CallNotFound:
        return None
    except (ResultTimeout, CallNotCommitted):
        return await _look(record, apart)


async def _look(record: CallRecord, apart: Apart) -> News | None:
    return await apart(lambda: current_runtime().own.look_with_result(record.call_id))


async def _leave_thread() -> bool:
    """Give back the thread that asgiref keeps for this request, with its connections; False: it has none, or needs it.

    Whatever runs in a thread for this request later gets a new one.
    """
    # asgiref's own, and no part of what it promises.
    executors = getattr(SyncToAsync, "context_to_thread_executor", None)
    context = SyncToAsync.thread_sensitive_context.get(None)
    # Beneath a middleware that is not async the request's thread waits for us.
    is_beneath = getattr(AsyncToSync.executors, "current", None) is not None
    if executors is None or context is None or is_beneath or not await sync_to_async(_close_connections)():
        return False
    executor = executors.pop(context, None)
    if executor is not None:
        executor.shutdown(wait=False)
    return True


def _close_connections() -> bool:
    """Close this thread's connections; False: one is in a transaction of somebody's."""
    if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
        return False
    connections.close_all()
    return True


@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    # One for each process: a forked child has none of its parent's threads.
    return ThreadPoolExecutor(max_workers=LOOKERS, thread_name_prefix="lrp_celery-http")
