"""Which queues, workers, schedules and owners there are, as far as the newest calls tell: no index has them."""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connections
from django.http import HttpRequest

from django_app.admin.tasks import known_tasks
from django_app.conf import options
from django_app.models import Call
from django_app.querysets import CallQuerySet

#: Fields whose values the list offers, beside the names of tasks.
FIELDS: Final = ("queue", "worker", "schedule", "owner")
#: Seconds for which the values are remembered.
REMEMBERED: Final = 15.0
#: Calls that are looked at, the newest, and values of one field that are offered.
_NEWEST: Final = 1_000
_MOST: Final = 100

_remembered: dict[tuple[str, str], tuple[float, dict[str, tuple[str, ...]]]] = {}


def offered_values(request: HttpRequest, model_admin: Any, field: str) -> tuple[str, ...]:
    """Return the values of `field`, or the names of tasks, to choose from: of calls that this person may see."""
    if not model_admin.sees_all(request):
        seen: dict[str, tuple[str, ...]] = request.__dict__.setdefault("_lrp_seen", {})
        if not seen:
            seen.update(_look(model_admin.get_queryset(request), (*FIELDS, "task")))
        return seen[field]
    alias = options().DATABASE
    return known_tasks(alias) if field == "task" else known_values(alias, field)


def known_values(alias: str, field: str) -> tuple[str, ...]:
    """Return the sorted values that `field` has among the newest calls, as of the last `REMEMBERED` seconds."""
    database = alias, str(connections[alias].settings_dict["NAME"])
    found = _remembered.get(database)
    if found is None or time.monotonic() - found[0] > REMEMBERED:
        found = time.monotonic(), _look(Call.objects.using(alias), FIELDS)
        _remembered[database] = found
    return found[1][field]


def forget() -> None:
    """Look at the table again the next time."""
    _remembered.clear()


def _look(calls: CallQuerySet, fields: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    rows = list(calls.order_by("-enqueued_at").values_list(*fields)[:_NEWEST])
    columns = zip(*rows, strict=True) if rows else [()] * len(fields)
    kept = (sorted({value for value in column if value})[:_MOST] for column in columns)
    return dict(zip(fields, map(tuple, kept), strict=True))
