"""Filters by what no index has."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.core.exceptions import EmptyResultSet
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_app.admin.narrowing import CallFilter
from django_app.admin.values import offered_values
from django_app.querysets import CallQuerySet

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as Text


class WindowFilter(CallFilter):
    """By something that no index has: looked for among the newest `WINDOW` calls that otherwise fit, and the page says so."""

    #: Calls that are looked through.
    WINDOW: ClassVar[int] = 5_000
    template = "lrp_celery/filter_menu.html"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Return `queryset` narrowed to a window, and in it, if the query string says so."""
        if not self.value() or not isinstance(queryset, CallQuerySet):
            return None
        return super().queryset(request, queryset if queryset.is_window else self._window(request, queryset))

    def _window(self, request: HttpRequest, calls: CallQuerySet) -> CallQuerySet:
        """Return the newest of `calls`; where that ends is looked for once for a page."""
        known: dict[str, datetime | None] = request.__dict__.setdefault("_lrp_windows", {})
        try:
            key = str(calls.order_by().query)
        except EmptyResultSet:
            return calls.none()
        if key not in known:
            known[key] = calls.beginning_of_newest(self.WINDOW)
        return calls.window(known[key])


class ValueFilter(WindowFilter):
    """By the value of a field, offering those that the newest calls have, and the chosen one."""

    field: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the values."""
        chosen = request.GET.get(self.parameter_name)
        return [(value, value) for value in sorted({*self.known(request, model_admin), *([chosen] if chosen else [])})]

    def known(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> tuple[str, ...]:
        """Return the values to offer."""
        return offered_values(request, model_admin, self.field)

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls that have this value."""
        return calls.filter(**{self.field: value})


class QueueFilter(ValueFilter):
    """By queue."""

    title, parameter_name, field = _("queue"), "queue", "queue"


class WorkerFilter(ValueFilter):
    """By the worker of the newest run."""

    title, parameter_name, field = _("worker"), "worker", "worker"


class ScheduleFilter(ValueFilter):
    """By the entry of the beat schedule that sent it."""

    title, parameter_name, field = _("schedule"), "schedule", "schedule"


class OwnerFilter(ValueFilter):
    """By whom it belongs to."""

    title, parameter_name, field = _("owner"), "owner", "owner"


class ErrorFilter(ValueFilter):
    """By the type of the error. Offered only where a link has chosen it."""

    title, parameter_name, field = _("error"), "error", "error_type"

    def known(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> tuple[str, ...]:
        """Return none: which there are is shown where calls have failed."""
        return ()


class KindFilter(WindowFilter):
    """By how it came to be, and how often it was tried."""

    title = _("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the kinds."""
        return [
            ("retried", _("retried")),
            ("root", _("without a parent")),
            ("rerun", _("reruns")),
            ("procedure", _("procedures")),
        ]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls of a kind."""
        kinds = {
            "retried": Q(retries__gt=0),
            "root": Q(parent_id__isnull=True),
            "rerun": Q(rerun_of__isnull=False),
            "procedure": Q(owned=True),
        }
        return calls.filter(kinds.get(value, Q()))
