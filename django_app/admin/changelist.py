"""The list of calls: its rows, what it counts, and how one turns its pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst

from django_app.admin.bars import AttentionFilter, StatusFilter, in_trouble
from django_app.admin.counts import Count, capped, of_statuses
from django_app.admin.display import number, short_task
from django_app.admin.filters import BeforeFilter, TaskFilter, place_of
from django_app.admin.windows import ErrorFilter, WindowFilter
from django_app.models import FAILED_VALUES, Call, HourlyRollup
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.status import OPEN, CallStatus

#: The columns that a line of the list needs; everything wide stays in the table.
LISTED: Final = (
    "call_id",
    "task",
    "status",
    "reason",
    "retries",
    "attempt",
    "queue",
    "worker",
    "target_summary",
    "error_type",
    "last_error",
    "schedule",
    "rerun_of",
    "enqueued_at",
    "started_at",
    "updated_at",
    "terminal_at",
    "expires_at",
    "abort_requested_at",
    "due_at",
    "published_at",
    "late_runs",
    "run",
    "run_outcome",
    "redelivered",
    "handled_at",
    "owner",
    "progress",
)
#: Failures that are looked at for what they have in common, and groups of them that are shown.
_FAILURES: Final = 1_000
_GROUPS: Final = 6
_BAR: Final = (StatusFilter.parameter_name, AttentionFilter.parameter_name)


@dataclass(frozen=True, slots=True)
class Cause:
    """What several failures have in common."""

    task: str
    error: str
    count: str
    query_string: str


class CallChangeList(ChangeList):
    """The list, reading no more columns than it shows."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self._request = request
        super().__init__(request, *args, **kwargs)
        self.title = str(capfirst(self.opts.verbose_name_plural))

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Return the page's rows without what a line does not show."""
        return super().get_queryset(request, *args, **kwargs).only(*LISTED)

    def get_query_string(self, new_params: dict[str, Any] | None = None, remove: Iterable[str] | None = None) -> str:
        """Return the query string of a link; one that does not turn pages begins with the newest again."""
        turns = {PAGE_VAR, BeforeFilter.parameter_name} & set(new_params or ())
        dropped = [*(remove or ()), *([] if turns else [BeforeFilter.parameter_name])]
        return super().get_query_string(new_params, dropped)

    @property
    def dashboard_url(self) -> str | None:
        """The link to the dashboard, where the site has it."""
        site = self.model_admin.admin_site
        name = "admin:lrp_celery_hourlyrollup_changelist"
        return reverse(name, current_app=site.name) if site.is_registered(HourlyRollup) else None

    # --- the bar

    @cached_property
    def counts(self) -> dict[str, Count]:
        """How many calls each choice of the bar has, of those that everything else leaves."""
        others = self._without(*_BAR, BeforeFilter.parameter_name)
        statuses = of_statuses(others, is_indexed=self._is_indexed)
        troubles = capped(
            {kind: in_trouble(others, kind) for kind in ("recent", "failed", "overdue", "silent", "aborting")}
        )
        is_open = sum((statuses[status] for status in CallStatus if status in OPEN), Count(0))
        return {
            "status:open": is_open,
            **{f"status:{status}": count for status, count in statuses.items()},
            **{f"attention:{kind}": count for kind, count in troubles.items()},
        }

    @property
    def is_calm(self) -> bool:
        """Whether nothing is stuck, of what everything but the bar leaves."""
        return not (self.counts["attention:overdue"] or self.counts["attention:silent"])

    @property
    def _is_indexed(self) -> bool:
        """Whether the calls of a status are found by an index that has every status: nothing else narrows them."""
        return not self.query and not set(self.filter_params) - {*_BAR, BeforeFilter.parameter_name}

    def _without(self, *parameters: str) -> CallQuerySet:
        """Return the calls that the search and all filters but these leave."""
        calls = cast("CallQuerySet", self.root_queryset)
        for spec in self.filter_specs:
            if spec.parameter_name not in parameters:  # type: ignore[attr-defined]
                found = spec.queryset(self._request, calls)
                calls = calls if found is None else cast("CallQuerySet", found)
        if self.query:
            calls = cast("CallQuerySet", self.model_admin.get_search_results(self._request, calls, self.query)[0])
        return calls

    # --- why

    @cached_property
    def causes(self) -> list[Cause]:
        """What the failures that are listed have in common, the most frequent first; nothing where others are listed."""
        if not self._lists_failures:
            return []
        failed = self.queryset.filter(status__in=FAILED_VALUES).order_by("-enqueued_at")
        pairs = Counter(failed.values_list("task", "error_type")[:_FAILURES])
        is_more = sum(pairs.values()) == _FAILURES
        return [self._cause(task, error, count, is_more=is_more) for (task, error), count in pairs.most_common(_GROUPS)]

    @property
    def _lists_failures(self) -> bool:
        chosen = {self._chosen(StatusFilter), self._chosen(AttentionFilter)}
        return bool(chosen & {*FAILED_VALUES, "recent"})

    def _chosen(self, kind: type[Any]) -> str | None:
        return self._request.GET.get(kind.parameter_name)

    def _cause(self, task: str, error: str | None, count: int, *, is_more: bool) -> Cause:
        narrower = {TaskFilter.parameter_name: task, **({ErrorFilter.parameter_name: error} if error else {})}
        text = number(count)
        return Cause(
            short_task(task),
            short_task(error) if error else "",
            f"{text}+" if is_more else text,
            self.get_query_string(narrower),
        )

    # --- pages

    @property
    def older(self) -> str | None:
        """The link from the last page that has a number to the calls behind it."""
        rows = list(self.result_list)
        if not rows or not self.paginator.is_capped or self.page_num != self.paginator.num_pages:
            return None
        return self.get_query_string({BeforeFilter.parameter_name: place_of(cast("Call", rows[-1]))}, [PAGE_VAR])

    @property
    def newest(self) -> str | None:
        """The link from older calls back to the first page."""
        return self.get_query_string(remove=[PAGE_VAR]) if self._chosen(BeforeFilter) else None

    @property
    def window(self) -> str | None:
        """How many calls were looked through, where that is not all of them."""
        looked = [spec for spec in self.filter_specs if isinstance(spec, WindowFilter) and spec.value()]
        is_cut = any(since is not None for since in self._request.__dict__.get("_lrp_windows", {}).values())
        return number(WindowFilter.WINDOW) if looked and is_cut else None
