"""Any tracked call, by its id, from any process.

For example `calls.get(result.id)` tells what became of `result = task.delay()`.
"""

from __future__ import annotations

from celery._state import get_current_app

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.store import ReportStore
from lrp_celery.tracking.tracking import tracking_of

__all__ = ["aget", "get"]


def get(call_id: str) -> CallSnapshot | None:
    """Return the call with this id (the Celery task id) as its row stands now, or None if it has no row.

    None means: never tracked, or purged. Raises `StoreError` when the store cannot be read
    and `ConfigurationError` when no store is set up or the id cannot be one.
    """
    return _store().get_status(call_id)


async def aget(call_id: str) -> CallSnapshot | None:
    """Async twin of `get`."""
    return await _store().aget_status(call_id)


def _store() -> ReportStore:
    tracking = tracking_of(get_current_app())
    if tracking is None:
        raise ConfigurationError(
            "No call is tracked in this process: add 'django_app' to INSTALLED_APPS and call django.setup(), "
            "or without Django create LrpCelery(app, store=...)."
        )
    return tracking.store
