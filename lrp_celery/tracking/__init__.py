"""Tracking: what became of each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrp_celery.tracking.memory import MemoryTrackingStore
from lrp_celery.tracking.store import TrackingStore

if TYPE_CHECKING:
    from lrp_celery.tracking.redis import RedisTrackingStore

__all__ = ["MemoryTrackingStore", "RedisTrackingStore", "TrackingStore"]


def __getattr__(name: str) -> Any:
    # redis-py is an extra: whoever does not use its store need not have it.
    if name == "RedisTrackingStore":
        from lrp_celery.tracking.redis import RedisTrackingStore

        return RedisTrackingStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
