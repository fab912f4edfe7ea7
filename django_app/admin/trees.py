"""The page of a whole tree of calls, as canvas makes them: each below the one it came from, with its time beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_app.admin.display import PREVIEW, badge, error_line, exact, short_id, short_task
from django_app.admin.families import Place, family_of, nest
from django_app.admin.pages import CallPage
from django_app.admin.relatives import BRIEF, counts_by_status
from django_app.durations import NOTHING, duration
from django_app.lengths import run_time_of
from django_app.models import Call
from django_app.querysets import CallQuerySet

#: Calls of one tree that are read: a line weighs nearly a kilobyte, and a page is to weigh less than 150 of them.
MOST_IN_TREE: Final = 150
#: The least width of a run, in percent.
_LEAST: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A call's wait and its newest run on the time axis of its tree, in percent, as SVG writes it."""

    wait_x: str
    wait_width: str
    run_x: str
    run_width: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the page."""

    call: Call
    depth: int
    task: str
    short_id: str
    badge: SafeString
    wait: str
    run: str
    error: str
    bar: Bar
    is_chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The page of a tree."""

    root_id: str
    chosen: Call
    rows: Sequence[Row]
    counts: Sequence[tuple[str, int]]
    is_cut: bool
    first: str
    last: str
    took: str


def tree_of(chosen: Call, now: datetime, calls: CallQuerySet) -> Tree:
    """Return the page of the tree that `chosen` belongs to, of calls that may be linked to, by two queries."""
    root_id = chosen.root_id or chosen.pk
    family, is_cut = family_of(calls.only(*BRIEF), root_id, MOST_IN_TREE)
    members = {one.pk: one for one in [*calls.only(*BRIEF).filter(pk=root_id)[:1], *family, chosen]}
    places = nest(list(members.values()))
    first = min(call.enqueued_at for call in members.values())
    last = max(_end(call, now) for call in members.values())
    return Tree(
        root_id=root_id,
        chosen=chosen,
        rows=[_row(place, chosen, now, first, last) for place in places],
        counts=counts_by_status(members.values()),
        is_cut=is_cut,
        first=exact(first),
        last=exact(last),
        took=duration(last - first),
    )


def _end(call: Call, now: datetime) -> datetime:
    return max(call.terminal_at or now, call.enqueued_at)


def _row(place: Place, chosen: Call, now: datetime, first: datetime, last: datetime) -> Row:
    call = place.call
    run, end = run_time_of(call, now), _end(call, now)
    began = None if run is None else end - run
    wait = None if began is None else max(began - call.enqueued_at, timedelta(0))
    return Row(
        call=call,
        depth=place.depth,
        task=short_task(call.task),
        short_id=short_id(call.pk),
        badge=badge(call.status),
        wait=duration(wait),
        run=duration(run),
        error=error_line(call.error_type, call.last_error, PREVIEW),
        bar=bar_of(call.enqueued_at, began, end, first, last),
        is_chosen=call.pk == chosen.pk,
    )


def bar_of(asked: datetime, began: datetime | None, end: datetime, first: datetime, last: datetime) -> Bar:
    """Return where a call's wait and run lie between `first` and `last`; without `began` it has only waited."""
    total = (last - first) / timedelta(seconds=1)

    def place(instant: datetime) -> float:
        return min(max((instant - first) / timedelta(seconds=1) / total * 100, 0.0), 100.0) if total > 0 else 0.0

    waited_until = end if began is None else began
    start, middle, stop = place(asked), place(waited_until), place(end)
    width = 0.0 if began is None else max(stop - middle, _LEAST)
    middle = min(middle, 100.0 - width)
    return Bar(
        wait_x=f"{start:.2f}%",
        wait_width=f"{max(middle - start, 0.0):.2f}%",
        run_x=f"{middle:.2f}%",
        run_width=f"{width:.2f}%",
        title=_("waited %(wait)s, ran %(run)s")
        % {
            "wait": duration(max(waited_until - asked, timedelta(0))),
            "run": NOTHING if began is None else duration(end - began),
        },
    )


class TreePage(CallPage):
    """The page of a tree, at `<id of any of its calls>/tree/`, for whoever may view calls."""

    tree_template: str | None = None

    def get_urls(self) -> list[URLPattern]:
        """Return Django's, and that of trees."""
        view: Callable[..., HttpResponse] = self.admin_site.admin_view(self.tree_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_tree"
        # Django's own last one takes whatever is left.
        return [path("<path:object_id>/tree/", view, name=name), *super().get_urls()]

    def tree_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the tree of a call; there is nothing to submit."""
        call = self.get_object(request, unquote(object_id))
        if request.method not in {"GET", "HEAD"} or not self.has_view_permission(request, call):
            raise PermissionDenied
        if call is None:
            return self.unknown(request, unquote(object_id))
        calls: Any = self.get_queryset(request)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Tree of calls"),
            "opts": self.opts,
            "media": self.media,
            "tree": tree_of(call, timezone.now(), calls),
            "call_url": self.url_of("change", quote(call.pk)),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.tree_template or "admin/lrp_celery/call/tree.html", context)
