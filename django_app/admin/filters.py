"""The filters of the list. None asks the database which values there are."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_app.admin.display import short_id
from django_app.admin.tasks import known_tasks
from django_app.conf import options
from django_app.models import FAILED_VALUES, OPEN_VALUES, STATUS_LABELS
from django_app.querysets import CallQuerySet
from lrp_celery.core.text import clean
from lrp_celery.tracking.status import CallStatus
from lrp_celery.tracking.store import MAX_ID, MAX_NAME

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as Text


class CallFilter(admin.SimpleListFilter):
    """A filter that narrows calls by one value of the query string, shown as a row of links."""

    template = "lrp_celery/filter_links.html"
    title: Text
    parameter_name: str

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return those of `calls` that `value` means."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Return `queryset` narrowed, if the query string says so."""
        value = self.value()
        if not value or not isinstance(queryset, CallQuerySet):
            return None
        return self.narrow(queryset, clean(value, MAX_NAME))


class StatusFilter(CallFilter):
    """By status, or by whether the call has ended."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the two groups, then each status."""
        return [("open", _("open")), ("ended", _("ended")), *((s.value, STATUS_LABELS[s]) for s in CallStatus)]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls of a group or of a status."""
        if value in {"open", *OPEN_VALUES}:
            group = calls.open()
        elif value in FAILED_VALUES:
            group = calls.filter(status__in=FAILED_VALUES)
        else:
            group = calls.terminal()
        # Said though the status implies it: so the indexes of the group serve the status too.
        return group if value in {"open", "ended"} else group.filter(status=value)


class AttentionFilter(CallFilter):
    """What somebody should look at."""

    title = _("needs attention")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the kinds of trouble."""
        return [
            ("any", _("any trouble")),
            ("failed", _("failed or parked")),
            ("overdue", _("overdue")),
            ("silent", _("silent")),
        ]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls in that kind of trouble."""
        now = timezone.now()
        failed = calls.filter(status__in=FAILED_VALUES)
        if value == "any":
            return failed | calls.overdue(now=now) | calls.silent(now)
        if value == "overdue":
            return calls.overdue(now=now)
        return calls.silent(now) if value == "silent" else failed


class EnqueuedFilter(CallFilter):
    """By age."""

    title = _("enqueued")
    parameter_name = "enqueued"
    AGES: ClassVar[dict[str, timedelta]] = {
        "1h": timedelta(hours=1),
        "24h": timedelta(hours=24),
        "7d": timedelta(days=7),
    }

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the ages."""
        return [("1h", _("last hour")), ("24h", _("last 24 hours")), ("7d", _("last 7 days"))]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls that are younger."""
        age = self.AGES.get(value)
        return calls if age is None else calls.filter(enqueued_at__gte=timezone.now() - age)


class TaskFilter(CallFilter):
    """By task, offering those that have calls."""

    title = _("task")
    parameter_name = "task"
    template = "lrp_celery/filter_menu.html"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the tasks, and the chosen one even if it has no call."""
        chosen = request.GET.get(self.parameter_name)
        names = {*known_tasks(options().DATABASE), *([chosen] if chosen else [])}
        return [(name, name) for name in sorted(names)]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls of that task."""
        return calls.for_task(value)


class TreeFilter(CallFilter):
    """By root call. Offered only where a link has chosen it."""

    title = _("tree")
    parameter_name = "root"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the chosen tree."""
        root = request.GET.get(self.parameter_name)
        return [(root, short_id(root))] if root else []

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return the root and all that came of it."""
        return calls.filter(Q(pk=value[:MAX_ID]) | Q(root_id=value[:MAX_ID]) & ~Q(root_id=F("call_id")))


def parameters() -> frozenset[str]:
    """Return the names in the query string by which the list may be narrowed."""
    return frozenset(kind.parameter_name for kind in FILTERS)


FILTERS: tuple[type[CallFilter], ...] = (StatusFilter, AttentionFilter, EnqueuedFilter, TaskFilter, TreeFilter)
