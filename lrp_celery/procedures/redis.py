"""The store of seed 000 in Redis or Valkey: one text for each item, under `<prefix>:item:<id>`, with Redis' own expiry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from redis.exceptions import RedisError

from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import StoreError
from lrp_celery.procedures.stores import Item, from_text, to_text
from lrp_celery.tracking.redis import connect
from lrp_celery.tracking.store import require_id


class RedisStore:
    """A `Store` in Redis >= 6.2 or Valkey, shared by all that use one `prefix` on one database.

    `url` is redis-py's; connecting happens at first use. Safe for threads and across fork. Times
    to live are rounded up to milliseconds and counted by the server. Eviction must be off
    (`maxmemory-policy noeviction`), or calls vanish.
    """

    def __init__(self, url: str, prefix: str = "lrp") -> None:
        self._redis = connect(url)
        self._prefix = f"{prefix}:item:"

    def close(self) -> None:
        """Close the idle connections; the store opens new ones when it is used again."""
        self._redis.close()

    def set(self, id: str, item: Item, ttl: timedelta | float | None = None) -> None:  # noqa: A002 - see Store
        """Keep `item`, in place of the one that was there."""
        require_id(id)
        live = seconds(ttl, "ttl")
        with _errors():
            self._redis.set(self._prefix + id, to_text(item), px=None if live is None else math.ceil(live * 1000))

    def get(self, id: str) -> Item | None:  # noqa: A002 - see Store
        """Return the item, or None."""
        require_id(id)
        with _errors():
            text = self._redis.get(self._prefix + id)
        return None if text is None else from_text(str(text))

    def delete(self, id: str) -> None:  # noqa: A002 - see Store
        """Forget the item."""
        require_id(id)
        with _errors():
            self._redis.delete(self._prefix + id)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreError(f"The store in Redis failed: {type(error).__name__}: {error}") from error
