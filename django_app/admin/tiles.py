"""The numbers on top of the dashboard, each a link to what it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from celery._state import get_current_app
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from django_app.admin.bars import in_trouble
from django_app.admin.counts import Count, capped
from django_app.admin.display import number
from django_app.admin.links import Links
from django_app.admin.present import LiveWorker, OpenCall
from django_app.admin.trends import Trends
from django_app.beat import is_in_database, until_next
from django_app.durations import NOTHING, duration
from django_app.querysets import CallQuerySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number, or a few words, with what it is; `level` becomes a CSS class: a colour that asks for attention."""

    label: str
    text: str
    title: str = ""
    link: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class Troubles:
    """How many calls need attention, by the names of the list's filter, and how many have ended but are not counted."""

    counts: dict[str, Count]
    uncounted: Count


def troubles(calls: CallQuerySet) -> Troubles:
    """Count them by one bounded statement."""
    kinds = {kind: in_trouble(calls, kind) for kind in ("recent", "failed", "overdue", "silent", "aborting")}
    ended = calls.model.objects.using(calls.db).filter(terminal_at__isnull=False, counted_at__isnull=True)
    counts = capped({**kinds, "": ended})
    uncounted = counts.pop("")
    return Troubles(counts, uncounted)


def of_troubles(found: Troubles, links: Links) -> list[Tile]:
    """Return one for each kind of trouble."""
    said = {
        "recent": (_("failed in the last hour"), _("And not handled yet."), "bad"),
        "failed": (_("failed, not handled"), "", "bad"),
        "overdue": (_("overdue"), _("They should have begun more than a minute ago."), "warning"),
        "silent": (_("silent"), _("Nothing has been heard of them for long."), "bad"),
        "aborting": (_("abort asked"), _("Somebody asked for their end."), "warning"),
    }
    return [
        Tile(
            label=label,
            text=str(found.counts[kind]),
            title=title,
            link=links.to(attention=kind),
            level=level if found.counts[kind] else "",
        )
        for kind, (label, title, level) in said.items()
    ]


def of_work(trends: Trends, waiting: Sequence[OpenCall], workers: Sequence[LiveWorker], links: Links) -> list[Tile]:
    """Return those of what gets done."""
    alive = sum(worker.level == "succeeded" for worker in workers)
    longest = waiting[0] if waiting else None
    return [
        _rate(trends, links),
        Tile(
            label=_("oldest waiting"),
            text=longest.took if longest else NOTHING,
            title=longest.task if longest else "",
            link=longest.link if longest else "",
        ),
        Tile(
            label=_("workers alive"),
            text=_("%(alive)s of %(all)s") % {"alive": alive, "all": len(workers)} if workers else "0",
            level="" if workers and alive == len(workers) else "warning",
        ),
    ]


def _rate(trends: Trends, links: Links) -> Tile:
    facts = {"failed": number(trends.failed), "total": number(trends.total)}
    return Tile(
        label=_("failed or parked"),
        text=f"{number_format(trends.failed / trends.total * 100, 1)} %" if trends.total else NOTHING,
        title=_("%(failed)s of %(total)s that ended.") % facts,
        link=links.to(attention="failed", enqueued=trends.over.value),
    )


def of_tracking(workers: Sequence[LiveWorker], found: Troubles) -> list[Tile]:
    """Return those of tracking itself."""
    waiting, dropped = sum(worker.waiting for worker in workers), sum(worker.dropped for worker in workers)
    return [
        Tile(
            label=_("bytes in spools"),
            text=number(waiting),
            title=_("What workers have reported and their side processes have not written yet."),
        ),
        Tile(
            label=_("reports dropped"),
            text=number(dropped),
            title=_("Because spools were full or could not be written, since the workers' start."),
            level="bad" if dropped else "",
        ),
        Tile(
            label=_("not counted yet"),
            text=str(found.uncounted),
            title=_("They have ended, and will be counted within seconds where a worker is up, else by lrp_rollup."),
            level="warning" if found.uncounted.is_more else "",
        ),
        _purge(),
    ]


def _purge() -> Tile:
    app = get_current_app()
    label, title = _("next purge"), _("When beat asks for the next one.")
    if is_in_database(app):
        return Tile(label=label, text="?", title=_("Beat keeps its schedule in a database."))
    wait = until_next(app, "lrp_celery.purge")
    if wait is None:
        return Tile(label=label, text=_("never"), title=_("Beat has no entry for it."), level="warning")
    return Tile(label=label, text=_("in %(length)s") % {"length": duration(max(wait, timedelta(0)))}, title=title)
