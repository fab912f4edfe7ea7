"""The filters of the list. None asks the database which values there are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.db.models import F, Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_app.admin.bars import AttentionFilter, StatusFilter
from django_app.admin.display import exact, short_id
from django_app.admin.narrowing import CallFilter
from django_app.admin.values import offered_values
from django_app.admin.windows import ErrorFilter, KindFilter, OwnerFilter, QueueFilter, ScheduleFilter, WorkerFilter
from django_app.models import Call
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.store import MAX_ID

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as Text

#: Longer than two time zones ever differ.
_MORE: Final = timedelta(days=2)


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
        chosen = request.GET.get(self.parameter_name, "")
        shown = [(chosen, chosen)] if ".." in chosen else []
        return [("1h", _("last hour")), ("24h", _("last 24 hours")), ("7d", _("last 7 days")), *shown]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls that are younger, or were asked for between two instants: "2026-01-31T10:00Z..2026-01-31T11:00Z"."""
        if value in self.AGES:
            return calls.filter(enqueued_at__gte=timezone.now() - self.AGES[value])
        since, until = (_instant(text) for text in value.partition("..")[::2])
        if since is not None:
            calls = calls.filter(enqueued_at__gte=since)
        return calls if until is None else calls.filter(enqueued_at__lt=until)


class TaskFilter(CallFilter):
    """By task, offering those that have calls."""

    title = _("task")
    parameter_name = "task"
    template = "lrp_celery/filter_menu.html"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the tasks, and the chosen one even if it has no call."""
        chosen = request.GET.get(self.parameter_name)
        names = {*offered_values(request, model_admin, "task"), *([chosen] if chosen else [])}
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


class BeforeFilter(CallFilter):
    """Older than a call: how one turns pages beyond those that are numbered. Offered only where a link has chosen it."""

    title = _("older than")
    parameter_name = "before"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the chosen moment."""
        place = request.GET.get(self.parameter_name, "")
        return [(place, exact(found[0]))] if (found := _place(place)) else []

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return what stands behind that call in the list."""
        found = _place(value)
        if found is None:
            return calls
        instant, call_id = found
        return calls.filter(Q(enqueued_at__lt=instant) | Q(pk__lt=call_id), enqueued_at__lte=instant)


def place_of(call: Call) -> str:
    """Return the place of a call in the list, as `BeforeFilter` takes it."""
    return f"{call.enqueued_at.isoformat()}_{call.pk}"


def _place(text: str) -> tuple[datetime, str] | None:
    moment, _separator, call_id = text.partition("_")
    instant = _instant(moment)
    return None if instant is None or not call_id else (instant, call_id)


def _instant(text: str) -> datetime | None:
    """Return an instant that every time zone can say."""
    try:
        found = datetime.fromisoformat(text.strip().replace(" ", "+"))
        found = timezone.make_aware(found) if timezone.is_naive(found) else found
        # Compared so that what lies at the end of time overflows here, and not where it is shown or asked for.
        return found if found - _MORE < found < found + _MORE else None
    except (ValueError, OverflowError):
        return None


def parameters() -> frozenset[str]:
    """Return the names in the query string by which the list may be narrowed."""
    return frozenset(kind.parameter_name for kind in FILTERS)


#: Those with a window last: it is of what all others leave.
FILTERS: tuple[type[CallFilter], ...] = (
    *(StatusFilter, AttentionFilter, EnqueuedFilter, TaskFilter, TreeFilter, BeforeFilter),
    *(QueueFilter, WorkerFilter, ScheduleFilter, OwnerFilter, KindFilter, ErrorFilter),
)
