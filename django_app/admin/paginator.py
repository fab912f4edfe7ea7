"""Counting no further than anybody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

from django_app.admin.display import number

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
else:
    AnyPaginator = Paginator


class CappedPaginator(AnyPaginator):
    """Counts at most `LIMIT` rows, however many there are, and pages through no more than these.

    A full count reads the whole table, and a page far behind all the rows before it.
    `is_capped` tells that there are more; `shown` is the count as it is printed.
    """

    #: Rows: the time for counting grows with it, above all where a filter leaves few of those that are read.
    LIMIT: Final = 1_000

    @property
    def _limit(self) -> int:
        # What fits into one page Django reads without a limit.
        return max(self.LIMIT, 2 * self.per_page)

    @cached_property
    def _seen(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[: self._limit + 1].count()
        return len(rows)

    @cached_property
    def count(self) -> int:
        """How many rows the pages hold."""
        return min(self._seen, self._limit)

    @property
    def is_capped(self) -> bool:
        """Whether there are rows behind the last page."""
        return self._seen > self._limit

    @property
    def shown(self) -> str:
        """The count for readers: "17", or "1,000+"."""
        text = number(self.count)
        return f"{text}+" if self.is_capped else text
