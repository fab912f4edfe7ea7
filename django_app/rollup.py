"""How calls ended, hour by hour: counts that stay when their rows are purged.

Every worker's side process enters what has ended within some seconds; this is for where there is none, and for the
rows of before. Any number may count at once: each call is counted by one of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django_app.conf import options
from django_app.stores import DjangoTrackingStore

CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How many calls were counted, and whether that were all."""

    calls: int
    complete: bool


def roll_up(*, using: str | None = None, chunk: int = CHUNK, budget: timedelta | None = None) -> Counted:
    """Enter all calls that have ended into the hourly counts.

    `chunk` is the number of calls per transaction, `budget` how long to go on (None: to the end). What others count
    meanwhile is left to them. Raises `StoreError` when the database cannot be reached.
    """
    store = DjangoTrackingStore(using or options().DATABASE)
    deadline = None if budget is None else time.monotonic() + budget.total_seconds()
    calls = 0
    while counted := store.count_ended(chunk):
        calls += counted
        if deadline is not None and time.monotonic() >= deadline:
            return Counted(calls=calls, complete=False)
    return Counted(calls=calls, complete=True)
