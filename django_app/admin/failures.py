"""What has failed, by task and by type of error, within the last hour, day and week."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _

from django_app.admin.display import short_task
from django_app.admin.links import Links
from django_app.admin.trends import Over, number
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


@dataclass(slots=True)
class _Sum:
    """Failures by window, and which of the two statuses they have."""

    numbers: list[int] = field(default_factory=lambda: [0, 0, 0])
    statuses: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def add(self, name: str, status: str, numbers: Sequence[int]) -> None:
        self.numbers = [one + other for one, other in zip(self.numbers, numbers, strict=True)]
        self.statuses.add(status)
        self.names.add(name)


def failures(calls: CallQuerySet, rollups: RollupQuerySet, now: datetime, links: Links) -> Failures:
    """Return both tables by two bounded queries.

    The last hour is as the rows are now, without what somebody has handled; the others are the hourly counts.
    """
    # By the index of what has ended; the first ones that it has, for to sort them would take all.
    recent = calls.terminal().unhandled().filter(terminal_at__gte=now - timedelta(hours=1)).order_by()
    rows = list(recent.values_list("task", "error_type", "status")[: _RECENT + 1])
    said = [(task, error or "", status, (1, 0, 0)) for task, error, status in rows]
    week = rollups.since(Over.WEEK.begin(now)).failures().by_failure(Over.DAY.begin(now), _KINDS)
    said += [(task, error, status, (0, lately, all_)) for task, error, status, all_, lately in week]
    is_more = len(rows) > _RECENT

    def table(name: Callable[[tuple[str, str, str, tuple[int, ...]]], str], link: str) -> list[Line]:
        sums: dict[str, _Sum] = {}
        for each in said:
            sums.setdefault(name(each), _Sum()).add(name(each), each[2], each[3])
        ordered = sorted(sums.items(), key=lambda item: (*(-n for n in item[1].numbers), item[0]))
        shown = ordered if len(ordered) <= LINES else ordered[: LINES - 1]
        lines = [_line(key, each, link, links, is_more=is_more) for key, each in shown]
        return lines if len(shown) == len(ordered) else [*lines, _rest([each for _key, each in ordered[len(shown) :]])]

    return Failures(
        by_task=table(lambda each: each[0], "task"),
        by_error=table(lambda each: each[1], "error"),
    )


def _line(name: str, sums: _Sum, link: str, links: Links, *, is_more: bool) -> Line:
    hour, day, week = sums.numbers
    # Failed and parked ones together are what is to be dealt with.
    (only, *others) = sorted(sums.statuses)
    chosen = {"attention": "failed"} if others else {"status": only}
    narrow = {link: name}
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
