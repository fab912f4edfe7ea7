"""How many calls there are of each kind: exact where that is cheap, else at least so many. Nothing is counted to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections

from django_app.admin.display import number
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.status import OPEN, CallStatus

#: Rows of one kind that are counted at most.
LIMIT: Final = 1_000
#: What an index finds whatever else is asked for: open and failed calls are few.
_INDEXED: Final = frozenset({*OPEN, CallStatus.FAILED, CallStatus.PARKED})


@dataclass(frozen=True, slots=True)
class Count:
    """A number of calls, or a lower bound of it."""

    number: int
    is_more: bool = False

    def __str__(self) -> str:
        text = number(self.number)
        return f"{text}+" if self.is_more else text

    def __bool__(self) -> bool:
        return self.number > 0

    def __add__(self, other: Count) -> Count:
        return Count(self.number + other.number, self.is_more or other.is_more)


def of_statuses(calls: CallQuerySet, indexed: Mapping[str, CallQuerySet], *, is_indexed: bool) -> dict[str, Count]:
    """Return how many of `calls` are in each status, by two bounded statements at most.

    All are counted if they are few. Else `indexed` gives the calls of each status as an index
    finds them; those that none does, unless `is_indexed` says that one does, are at least as
    many as there are among the newest.
    """
    newest = calls.order_by("-enqueued_at").values_list("status", flat=True)[: LIMIT + 1]
    sample = list(newest)
    seen = Counter(sample)
    if len(sample) <= LIMIT:
        return {status: Count(seen[status]) for status in CallStatus}
    counted = capped({status: indexed[status] for status in CallStatus if is_indexed or status in _INDEXED})
    return {status: counted.get(status) or Count(seen[status], is_more=status not in counted) for status in CallStatus}


def capped(kinds: Mapping[str, CallQuerySet], limit: int = LIMIT) -> dict[str, Count]:
    """Return how many calls there are of each kind, none beyond `limit`, by one statement."""
    found: dict[str, Count] = {}
    parts: list[tuple[str, str]] = []
    params: list[Any] = []
    for name, calls in kinds.items():
        try:
            sql, given = calls.order_by().values("pk")[: limit + 1].query.get_compiler(calls.db).as_sql()
        except EmptyResultSet:
            found[name] = Count(0)
            continue
        parts.append((name, f"(SELECT COUNT(*) FROM ({sql}) counted_{len(parts)})"))  # noqa: S608 - as Django compiled it
        params.extend(given)
    if parts:
        alias = next(iter(kinds.values())).db
        numbers = _read(alias, f"SELECT {', '.join(part for _name, part in parts)}", params)
        found |= {name: Count(min(n, limit), n > limit) for (name, _part), n in zip(parts, numbers, strict=True)}
    return found


def _read(alias: str, sql: str, params: Iterable[Any]) -> tuple[int, ...]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, list(params))
        row: tuple[int, ...] = cursor.fetchone()
    return row
