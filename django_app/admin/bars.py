"""The bar on top of the list: counts by status and by trouble, which are also the filters for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_app.admin.narrowing import CallFilter
from django_app.models import FAILED_VALUES, OPEN_VALUES, STATUS_LABELS
from django_app.querysets import CallQuerySet, overdue, silent
from lrp_celery.tracking.status import CallStatus

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as Text

_HOUR: Final = timedelta(hours=1)
_DAYS: Final = timedelta(days=7)


class BarFilter(CallFilter):
    """One part of the bar on top: each choice tells how many calls it has, and takes the place of one of the other part."""

    template = "lrp_celery/filter_bar.html"
    others: ClassVar[tuple[str, ...]] = ()

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the choices, with their counts where they have any."""
        for choice, key in zip(super().choices(changelist), [None, *dict(self.lookup_choices)], strict=True):
            given = {} if key is None else {self.parameter_name: key}
            remove = [*self.others, *([] if given else [self.parameter_name])]
            yield {
                **choice,
                "query_string": changelist.get_query_string(given, remove=remove),
                "count": None if key is None else changelist.counts.get(f"{self.parameter_name}:{key}"),
                "is_trouble": self.parameter_name == AttentionFilter.parameter_name,
                "key": key,
            }


class StatusFilter(BarFilter):
    """By status, or by whether the call has ended."""

    title = _("status")
    parameter_name = "status"
    others = ("attention",)

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the two groups, then each status."""
        return [("open", _("open")), ("ended", _("ended")), *((s.value, STATUS_LABELS[s]) for s in CallStatus)]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls of a group or of a status."""
        return in_status(calls, value)


def in_status(calls: CallQuerySet, value: str) -> CallQuerySet:
    """Return calls of a group or of a status, said so that an index serves it."""
    if value in {"open", *OPEN_VALUES}:
        calls = calls.open()
    elif value not in FAILED_VALUES:
        calls = calls.terminal()
    # The group was said though the status implies it: so its indexes serve the status too. Those of what failed
    # are found by the status; were it said twice, PostgreSQL would expect few rows and join indexes.
    return calls if value in {"open", "ended"} else calls.filter(status=value)


class AttentionFilter(BarFilter):
    """What somebody should look at."""

    title = _("needs attention")
    parameter_name = "attention"
    others = ("status",)

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Text]]:
        """Name the kinds of trouble."""
        return [
            ("any", _("any trouble")),
            ("recent", _("failed in the last hour")),
            ("failed", _("failed, not handled")),
            ("overdue", _("overdue")),
            ("silent", _("silent")),
            ("aborting", _("abort asked")),
        ]

    def narrow(self, calls: CallQuerySet, value: str) -> CallQuerySet:
        """Return calls in that kind of trouble."""
        return in_trouble(calls, value)


def in_trouble(calls: CallQuerySet, value: str) -> CallQuerySet:
    """Return calls in a kind of trouble, said so that an index serves it."""
    now = timezone.now()
    match value:
        case "any":
            failed = Q(status__in=FAILED_VALUES, handled_at__isnull=True)
            return calls.filter(failed | Q(terminal_at__isnull=True) & (overdue(now) | silent(now)))
        case "recent":
            # When it ended decides, but the index has when it was asked for: few take days.
            hour = now - _HOUR
            return calls.unhandled().filter(terminal_at__gte=hour, enqueued_at__gte=hour - _DAYS)
        case "overdue":
            return calls.overdue(now=now)
        case "silent":
            return calls.silent(now)
        case "aborting":
            return calls.open().filter(abort_requested_at__isnull=False)
    return calls.unhandled()
