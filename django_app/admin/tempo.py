"""How long calls of each task wait and run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django_app.admin.display import number, short_task
from django_app.admin.links import Links
from django_app.admin.trends import Over
from django_app.charts import Scale, Strip
from django_app.durations import duration
from django_app.histogram import Histogram
from django_app.rollups import RollupQuerySet

#: Tasks that are shown, those with the most calls.
TASKS: Final = 15
#: Rows of counts that are read for them, and for what runs.
_ROWS: Final = 4_000
SHARES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths that 50, 95 and 99 of 100 calls did not exceed, as texts, and as a picture."""

    texts: Sequence[str]
    strip: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A task of the last day."""

    task: str
    name: str
    link: str
    calls: str
    wait: Lengths | None
    run: Lengths | None


@dataclass(slots=True)
class Measured:
    """What was measured of a task: how long its calls waited, and how long they ran."""

    waits: Histogram = field(default_factory=Histogram)
    runs: Histogram = field(default_factory=Histogram)


def measured(rollups: RollupQuerySet, tasks: Iterable[str]) -> Mapping[str, Measured]:
    """Return what was measured of these tasks, by one bounded query: the latest hours, where there are too many rows."""
    found: dict[str, Measured] = defaultdict(Measured)
    rows = rollups.filter(task__in=sorted(set(tasks))).order_by("-hour").values_list("task", "waits", "runs")
    for task, waits, runs in rows[:_ROWS]:
        found[task].waits.update(Histogram.from_json(waits))
        found[task].runs.update(Histogram.from_json(runs))
    return found


def paces(tasks: Sequence[tuple[str, int]], lengths: Mapping[str, Measured], links: Links) -> Sequence[Pace]:
    """Return how long calls of these tasks waited and ran; all pictures of one kind have the same scale."""
    quantiles = {
        task: (_quantiles(lengths[task].waits), _quantiles(lengths[task].runs))
        for task, _calls in tasks
        if task in lengths
    }
    scales = [Scale.of([length for both in quantiles.values() for length in both[kind] or ()]) for kind in range(2)]
    return [
        Pace(
            task=task,
            name=short_task(task),
            link=links.to(task=task, enqueued=Over.DAY.value),
            calls=number(calls),
            wait=_lengths(quantiles.get(task, (None, None))[0], scales[0]),
            run=_lengths(quantiles.get(task, (None, None))[1], scales[1]),
        )
        for task, calls in tasks
    ]


def _quantiles(histogram: Histogram) -> tuple[timedelta, timedelta, timedelta] | None:
    found = [histogram.quantile(share) for share in SHARES]
    first, second, third = found
    return None if first is None or second is None or third is None else (first, second, third)


def _lengths(quantiles: tuple[timedelta, timedelta, timedelta] | None, scale: Scale | None) -> Lengths | None:
    if quantiles is None or scale is None:
        return None
    return Lengths([duration(each) for each in quantiles], scale.strip(quantiles))
