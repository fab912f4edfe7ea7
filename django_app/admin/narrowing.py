"""What the filters of the list have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from django_app.querysets import CallQuerySet
from lrp_celery.core.text import clean
from lrp_celery.tracking.store import MAX_NAME

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
