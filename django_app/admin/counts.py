"""How many calls there are of each kind: exact where that is cheap, else at least so many. Nothing is counted to its end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections

from django_app.admin.display import number
from django_app.models import FAILED_VALUES
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.status import OPEN, CallStatus

#: Rows of one kind that are counted at most.
LIMIT: Final = 1_000
#: The samples that are not of one status.
_ALL, _OPEN, _FAILED = "", "open", "failing"


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


def of_statuses(calls: CallQuerySet, *, is_indexed: bool) -> dict[str, Count]:
    """Return how many of `calls` are in each status, by one bounded statement.

    Exactly, if they are few. Else of each status there are at least as many as among the newest: of the open calls, of
    those that failed, of all. `is_indexed`: nothing else narrows them, so that an index finds those of one status.
    """
    newest = calls.order_by("-enqueued_at")
    samples = {_ALL: newest, _OPEN: newest.open()}
    if is_indexed:
        ended = calls.terminal().order_by("-terminal_at")
        samples |= {status: ended.filter(status=status) for status in CallStatus if status not in OPEN}
    else:
        samples[_FAILED] = newest.filter(status__in=FAILED_VALUES)
    seen = _seen(samples)
    if seen[_ALL].total() <= LIMIT:
        return {status: Count(seen[_ALL][status]) for status in CallStatus}
    return {status: _at_least(seen[_closest(status, seen)], status) for status in CallStatus}


def _closest(status: CallStatus, seen: Mapping[str, Counter[str]]) -> str:
    """Return the sample that has most of a status."""
    if status in seen:
        return status
    return _OPEN if status in OPEN else _FAILED if status in FAILED_VALUES else _ALL


def _at_least(sample: Counter[str], status: CallStatus) -> Count:
    return Count(min(sample[status], LIMIT), is_more=sample.total() > LIMIT)


def _seen(samples: Mapping[str, CallQuerySet]) -> dict[str, Counter[str]]:
    """Return how often each status is among the first of several samples, by one statement."""
    seen: dict[str, Counter[str]] = {name: Counter() for name in samples}
    parts: list[str] = []
    params: list[Any] = []
    for name, calls in samples.items():
        with contextlib.suppress(EmptyResultSet):
            sql, given = calls.values("status")[: LIMIT + 1].query.get_compiler(calls.db).as_sql()
            parts.append(f"SELECT %s, status, COUNT(*) FROM ({sql}) sample_{len(parts)} GROUP BY status")  # noqa: S608 - as Django compiled it
            params += [name, *given]
    if parts:
        with connections[samples[_ALL].db].cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts), params)
            for name, status, number_of_it in cursor.fetchall():
                seen[name][status] = number_of_it
    return seen


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
