"""What has failed, by task and by type of error, within the last hour, day and week."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from django.utils.translation import gettext as _

from django_app.admin.display import number, short_task
from django_app.admin.links import Links
from django_app.admin.trends import Over
from django_app.querysets import CallQuerySet
from django_app.rollups import RollupQuerySet

#: Failures of the last hour that are counted, and kinds of failures of the last week.
_RECENT: Final = 2_000
_KINDS: Final = 500
#: Lines of a table; the last one sums up all others.
LINES: Final = 10


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of failures, and the link to them; an empty text: there are none."""

    text: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What has failed of a task, or with an error, in the last hour, day and week."""

    name: str
    title: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Failures:
    """Both tables; what has failed lately comes first."""

    by_task: Sequence[Line]
    by_error: Sequence[Line]

    def __bool__(self) -> bool:
        return bool(self.by_task)


class _Said(NamedTuple):
    """So many failures of a kind, within an hour, a day and a week."""

    task: str
    error: str
    status: str
    numbers: tuple[int, int, int]


@dataclass(slots=True)
class _Sum:
    """All failures of a line, and which of the two statuses they have."""

    numbers: tuple[int, ...] = (0, 0, 0)
    statuses: set[str] = field(default_factory=set)

    def add(self, said: _Said) -> None:
        self.numbers = tuple(one + other for one, other in zip(self.numbers, said.numbers, strict=True))
        self.statuses.add(said.status)


def failures(calls: CallQuerySet, rollups: RollupQuerySet, now: datetime, links: Links) -> Failures:
    """Return both tables by two bounded queries.

    The last hour is as the rows are now, without what somebody has handled; the others are the hourly counts.
    """
    # By the index of what has ended; the first ones that it has, for to sort them would take all.
    recent = calls.terminal().unhandled().filter(terminal_at__gte=now - timedelta(hours=1)).order_by()
    rows = list(recent.values_list("task", "error_type", "status")[: _RECENT + 1])
    said = [_Said(task, error or "", status, (1, 0, 0)) for task, error, status in rows]
    kinds = rollups.since(Over.WEEK.begin(now)).failures().by_failure(Over.DAY.begin(now), _KINDS)
    said += [_Said(task, error, status, (0, day, week)) for task, error, status, week, day in kinds]
    table = partial(_table, said, links, is_more=len(rows) > _RECENT)
    return Failures(by_task=table("task"), by_error=table("error"))


def _table(said: Sequence[_Said], links: Links, kind: str, *, is_more: bool) -> list[Line]:
    """Return the lines by task or by error; `is_more`: of the last hour there are more than were read."""
    sums: dict[str, _Sum] = defaultdict(_Sum)
    for each in said:
        sums[getattr(each, kind)].add(each)
    # What has failed most within the last hour comes first.
    ordered = sorted(sums.items(), key=lambda item: (*(-number for number in item[1].numbers), item[0]))
    shown = ordered if len(ordered) <= LINES else ordered[: LINES - 1]
    rest = [each for _name, each in ordered[len(shown) :]]
    lines = [_line(name, each, kind, links, is_more=is_more) for name, each in shown]
    return [*lines, _rest(rest)] if rest else lines


def _line(name: str, sums: _Sum, kind: str, links: Links, *, is_more: bool) -> Line:
    hour, day, week = sums.numbers
    # Failed and parked ones together are what is to be dealt with.
    (only, *others) = sorted(sums.statuses)
    chosen = {"attention": "failed"} if others else {"status": only}
    narrow = {kind: name}
    return Line(
        short_task(name) if name else _("no exception"),
        name,
        [
            _cell(hour, links.to(attention="recent", **narrow), is_more=is_more),
            _cell(day, links.to(**chosen, enqueued=Over.DAY.value, **narrow)),
            _cell(week, links.to(**chosen, enqueued=Over.WEEK.value, **narrow)),
        ],
    )


def _cell(value: int, link: str, *, is_more: bool = False) -> Cell:
    if not value:
        return Cell("")
    return Cell(f"{number(value)}{'+' if is_more else ''}", link)


def _rest(sums: Iterable[_Sum]) -> Line:
    numbers = [sum(column) for column in zip(*(each.numbers for each in sums), strict=True)]
    return Line(_("all others"), "", [Cell(number(value) if value else "") for value in numbers])
