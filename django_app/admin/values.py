"""Which queues, workers, schedules and owners there are, as far as the newest calls tell: no index has them."""

from __future__ import annotations

import time
from typing import Final

from django.db import connections

from django_app.models import Call

#: Fields whose values the list offers.
FIELDS: Final = ("queue", "worker", "schedule", "owner")
#: Seconds for which the values are remembered.
REMEMBERED: Final = 15.0
#: Calls that are looked at, the newest, and values of one field that are offered.
_NEWEST: Final = 1_000
_MOST: Final = 100

_remembered: dict[tuple[str, str], tuple[float, dict[str, tuple[str, ...]]]] = {}


def known_values(alias: str, field: str) -> tuple[str, ...]:
    """Return the sorted values that `field` has among the newest calls, as of the last `REMEMBERED` seconds."""
    database = alias, str(connections[alias].settings_dict["NAME"])
    found = _remembered.get(database)
    if found is None or time.monotonic() - found[0] > REMEMBERED:
        found = time.monotonic(), _look(alias)
        _remembered[database] = found
    return found[1][field]


def forget() -> None:
    """Look at the table again the next time."""
    _remembered.clear()


def _look(alias: str) -> dict[str, tuple[str, ...]]:
    rows = list(Call.objects.using(alias).order_by("-enqueued_at").values_list(*FIELDS)[:_NEWEST])
    columns = zip(*rows, strict=True) if rows else [()] * len(FIELDS)
    kept = (sorted({value for value in column if value})[:_MOST] for column in columns)
    return dict(zip(FIELDS, map(tuple, kept), strict=True))
