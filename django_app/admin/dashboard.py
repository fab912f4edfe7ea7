"""The dashboard: how calls went within the last day or week, and what is going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext as _

from django_app.admin import present, tiles
from django_app.admin.display import clock_time
from django_app.admin.failures import Failures, failures
from django_app.admin.links import Links
from django_app.admin.pages import without_messages
from django_app.admin.present import LiveWorker, OpenCall
from django_app.admin.tempo import TASKS, Pace, measured, paces
from django_app.admin.tiles import Tile
from django_app.admin.trends import Over, Trends, trends
from django_app.conf import options
from django_app.histogram import ERROR
from django_app.models import Call, HourlyRollup
from django_app.querysets import CallQuerySet
from django_app.rollups import RollupQuerySet

if TYPE_CHECKING:
    RollupModelAdmin = admin.ModelAdmin[HourlyRollup]
else:
    RollupModelAdmin = admin.ModelAdmin


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """Everything that the page shows."""

    at: str
    troubles: Sequence[Tile]
    work: Sequence[Tile]
    tracking: Sequence[Tile]
    trends: Trends
    failures: Failures
    paces: Sequence[Pace]
    waiting: Sequence[OpenCall]
    running: Sequence[OpenCall]
    unusual: Sequence[OpenCall]
    more_unusual: int
    """How many more run longer than usual than are named."""
    workers: Sequence[LiveWorker]

    @property
    def error(self) -> str:
        """By how much percentiles may be wrong, in percent."""
        return f"{ERROR * 100:.0f}"


def dashboard(calls: CallQuerySet, rollups: RollupQuerySet, now: datetime, over: Over, links: Links) -> Dashboard:
    """Return it by eight bounded queries; `calls` are those that may be seen."""
    found = present.look(calls, now)
    day = rollups.since(Over.DAY.begin(now))
    tasks = list(day.busiest(TASKS))
    lengths = measured(day, {*found.tasks, *(task for task, _calls in tasks)})
    running = present.running(found, lengths, now, links)
    waiting = present.waiting(found, now, links)
    unusual = [call for call in running if call.is_unusual]
    workers = present.workers(calls.db, running, now, links)
    trend = trends(rollups, now, over, links)
    troubles = tiles.troubles(calls)
    return Dashboard(
        at=clock_time(now),
        troubles=tiles.of_troubles(troubles, links),
        work=tiles.of_work(trend, waiting, workers, links),
        tracking=tiles.of_tracking(workers, troubles),
        trends=trend,
        failures=failures(calls, rollups, now, links),
        paces=paces(tasks, lengths, links),
        waiting=waiting,
        running=running,
        unusual=unusual[: present.UNUSUAL],
        more_unusual=max(0, len(unusual) - present.UNUSUAL),
        workers=workers,
    )


@admin.register(HourlyRollup)
class DashboardAdmin(RollupModelAdmin):
    """Shows the dashboard in the place of a list of hourly counts, to whoever may view calls; there is nothing to change.

    Single calls that it names are those that the admin of `Call` lets a person see; the numbers are of all calls.
    To change what it shows, subclass it, unregister `HourlyRollup` and register it with the subclass.
    """

    #: Seconds between two refreshes by the page's script; None: it never refreshes itself.
    refresh_every: int | None = 15
    dashboard_template = "admin/lrp_celery/dashboard.html"

    class Media:
        css = {"all": ("lrp_celery/admin.css", "lrp_celery/dashboard.css")}

    # --- rights

    def has_view_permission(self, request: HttpRequest, obj: HourlyRollup | None = None) -> bool:
        """Whether somebody may view calls."""
        return request.user.has_perm("lrp_celery.view_call")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the admin's index has it."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: what ends is counted by itself."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: HourlyRollup | None = None) -> bool:
        """Refuse: it is as it was."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: HourlyRollup | None = None) -> bool:
        """Refuse: the purge deletes."""
        return False

    # --- the page

    def get_urls(self) -> list[URLPattern]:
        """Return the one address that there is."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.changelist_view), name=name)]

    def get_dashboard(self, request: HttpRequest) -> Dashboard:
        """Return what the page shows."""
        try:
            over = Over(request.GET.get("over", Over.DAY))
        except ValueError:
            over = Over.DAY
        calls = cast("CallQuerySet", self.admin_site.get_model_admin(Call).get_queryset(request))
        rollups = HourlyRollup.objects.using(options().DATABASE)
        return dashboard(calls, rollups, timezone.now(), over, Links.of(self.admin_site))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the dashboard; there is nothing to submit."""
        if request.method not in {"GET", "HEAD"} or not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **without_messages(request),
            "title": _("Dashboard"),
            "opts": self.opts,
            "media": self.media,
            "dashboard": self.get_dashboard(request),
            "overs": [(Over.DAY, _("24 hours")), (Over.WEEK, _("7 days"))],
            "links": Links.of(self.admin_site),
            "refresh_every": self.refresh_every,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.dashboard_template, context)
