"""How many calls ended hour by hour, as pictures with a table that says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Any, Final

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_app.admin.display import number, status_label
from django_app.admin.links import Links
from django_app.charts import Bar, Chart, stack
from django_app.rollups import HOUR, RollupQuerySet, hour_of
from lrp_celery.tracking.status import CallStatus

#: From the ground up.
OUTCOMES: Final = (
    *(CallStatus.SUCCEEDED, CallStatus.DISCARDED, CallStatus.ABORTED, CallStatus.PARKED),
    CallStatus.FAILED,
)
#: Hours that have one column together in a picture of several days, and those that have a name in one of a day.
_TOGETHER: Final = 3
_NAMED: Final = 3


class Over(StrEnum):
    """How far back the pictures go."""

    DAY = "24h"
    WEEK = "7d"

    @property
    def hours(self) -> int:
        """In hours, the present one included."""
        return 24 if self is Over.DAY else 7 * 24

    def begin(self, now: datetime) -> datetime:
        """Return the first hour."""
        return hour_of(now) - (self.hours - 1) * HOUR


@dataclass(frozen=True, slots=True)
class Stretch:
    """Hours that are shown together: from when to when, and how many calls ended with each outcome."""

    begin: datetime
    end: datetime
    counts: Counter[str]
    name: str
    link: str
    tick: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """An outcome, and how many calls had it."""

    kind: str
    label: str
    number: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart, what its colours mean, and what there is to say instead."""

    name: str
    title: str
    chart: Chart
    legend: Sequence[Share]


@dataclass(frozen=True, slots=True)
class Trends:
    """Both pictures, and their table: of each stretch, the latest first, its numbers in the order of `heads`."""

    over: Over
    pictures: Sequence[Picture]
    heads: Sequence[str]
    rows: Sequence[tuple[Stretch, Sequence[str]]]
    total: int
    failed: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing has ended."""
        return not self.total


def trends(rollups: RollupQuerySet, now: datetime, over: Over, links: Links) -> Trends:
    """Return what ended since the beginning of `over`, by one query."""
    found = rollups.since(over.begin(now)).by_hour()
    stretches = _stretches(now, over, found, links)
    counts = sum((stretch.counts for stretch in stretches), Counter[str]())
    step = _("Calls per hour") if over is Over.DAY else _("Calls per 3 hours")
    troubles = OUTCOMES[1:]
    return Trends(
        over=over,
        pictures=[
            _picture("all", step, stretches, OUTCOMES, counts),
            _picture("troubles", _("Of these, not succeeded"), stretches, troubles, counts),
        ],
        heads=[status_label(status) for status in OUTCOMES],
        rows=[(each, [number(each.counts[status]) for status in OUTCOMES]) for each in reversed(stretches)],
        total=counts.total(),
        failed=counts[CallStatus.FAILED] + counts[CallStatus.PARKED],
    )


def _stretches(now: datetime, over: Over, found: Iterable[tuple[datetime, str, int]], links: Links) -> list[Stretch]:
    counts: dict[datetime, Counter[str]] = {}
    for hour, status, calls in found:
        counts.setdefault(hour, Counter())[status] += calls
    first = over.begin(now)
    hours = [first + each * HOUR for each in range(over.hours + 1)]
    pairs = list(pairwise(hours))
    together = (
        [[pair] for pair in pairs] if over is Over.DAY else [list(group) for _key, group in groupby(pairs, _slot)]
    )
    return [_stretch(several, counts, over, links) for several in together]


def _slot(hour: tuple[datetime, datetime]) -> tuple[Any, int]:
    local = timezone.localtime(hour[0])
    return local.date(), local.hour // _TOGETHER


def _stretch(
    hours: Sequence[tuple[datetime, datetime]], counts: dict[datetime, Counter[str]], over: Over, links: Links
) -> Stretch:
    begin, end = hours[0][0], hours[-1][1]
    local = timezone.localtime(begin)
    clock = f"{local:%H:%M}\N{EN DASH}{timezone.localtime(end):%H:%M}"
    if over is Over.DAY:
        tick = f"{local:%H:%M}" if local.hour % _NAMED == 0 else ""
    else:
        tick = date_format(local, "D j") if local.hour < _TOGETHER else ""
    return Stretch(
        begin=begin,
        end=end,
        counts=sum((counts.get(hour, Counter()) for hour, _end in hours), Counter[str]()),
        name=f"{date_format(local, 'D j M')}, {clock}",
        link=links.between(begin, end),
        tick=tick,
    )


def _picture(
    name: str, title: str, stretches: Sequence[Stretch], outcomes: Sequence[CallStatus], counts: Counter[str]
) -> Picture:
    bars = [
        Bar(
            parts=[(status.value, each.counts[status]) for status in outcomes],
            title=_told(each, outcomes),
            link=each.link,
            tick=each.tick,
        )
        for each in stretches
    ]
    legend = [Share(status.value, status_label(status), number(counts[status])) for status in outcomes]
    return Picture(name, title, stack(bars), legend)


def _told(stretch: Stretch, outcomes: Sequence[CallStatus]) -> str:
    said = [f"{number(stretch.counts[status])} {status_label(status)}" for status in outcomes if stretch.counts[status]]
    total = sum(stretch.counts[status] for status in outcomes)
    calls = ngettext("%(count)s call", "%(count)s calls", total) % {"count": number(total)}
    return f"{stretch.name}: {calls}" + (f" ({', '.join(said)})" if said else "")
