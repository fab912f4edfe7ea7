"""Calls in the admin: a list that finds them, and a page that tells what became of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_app.admin.conditions import flags_of, run_time_of, wait_of
from django_app.admin.detail import detail_of
from django_app.admin.display import (
    NOTHING,
    badge,
    duration,
    error_line,
    moment,
    preview,
    short_id,
    short_task,
    short_worker,
)
from django_app.admin.filters import FILTERS, parameters
from django_app.admin.paginator import CappedPaginator
from django_app.admin.search import find
from django_app.conf import options
from django_app.models import Call
from django_app.querysets import CallQuerySet

if TYPE_CHECKING:
    CallModelAdmin = admin.ModelAdmin[Call]
else:
    CallModelAdmin = admin.ModelAdmin

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
)


class CallChangeList(ChangeList):
    """The list, reading no more columns than it shows."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.title = str(capfirst(self.opts.verbose_name_plural))

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Return the page's rows without what a line does not show."""
        return super().get_queryset(request, *args, **kwargs).only(*LISTED)


@admin.register(Call)
class CallAdmin(CallModelAdmin):
    """Shows calls, and changes nothing: whoever may view calls sees all of it.

    To change what it shows, subclass it, unregister `Call` and register it with the subclass.
    """

    list_display = (
        "shown_status",
        "shown_task",
        "shown_id",
        "shown_enqueued",
        "shown_wait",
        "shown_run",
        "shown_attempts",
        "shown_queue",
    )
    list_display_links = ("shown_id",)
    list_filter = FILTERS
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("call_id",)
    search_help_text = gettext_lazy("A call id or how it begins; or how a task's full or short name begins.")
    sortable_by = ()
    ordering = ("-enqueued_at", "-call_id")
    date_hierarchy = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = None

    class Media:
        css = {"all": ("lrp_celery/admin.css",)}

    # --- rights

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: calls come from Celery."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:
        """Refuse: only what happens to a call changes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:
        """Refuse: the purge deletes."""
        return False

    # --- the list

    def get_queryset(self, request: HttpRequest) -> CallQuerySet:
        """Return all calls that are to be seen, from the database that the setting DATABASE names."""
        calls = Call.objects.using(options().DATABASE).visible()
        return calls.order_by(*self.get_ordering(request))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that reads few columns."""
        return CallChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        """Return what an index finds, which is never doubled."""
        return find(cast("CallQuerySet", queryset), search_term), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse lookups that are not a filter's own: they could read the whole table."""
        return lookup in parameters()

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, call: Call) -> SafeString:
        """Return the status, and why."""
        if call.reason is None:
            return badge(call.status)
        return format_html('{}<span class="lrp-under">{}</span>', badge(call.status), call.reason)

    @admin.display(description=gettext_lazy("task"))
    def shown_task(self, call: Call) -> SafeString:
        """Return the task's short name and what is remarkable, above the arguments and the error."""
        flags = format_html_join(
            "",
            ' <span class="lrp-flag lrp-{}" title="{}">{}</span>',
            ((flag.level.value, flag.title, flag.text) for flag in flags_of(call, timezone.now())),
        )
        lines = format_html_join(
            "",
            '<span class="lrp-under lrp-{0}" title="{1}">{1}</span>',
            (
                (kind, text)
                for kind, text in (
                    ("arguments", preview(call.target_summary)),
                    ("error", error_line(call.error_type, call.last_error)),
                )
                if text
            ),
        )
        return format_html(
            '<a class="lrp-task" href="{}" title="{}">{}</a>{}{}',
            reverse(self._url_name("change"), args=[quote(call.pk)], current_app=self.admin_site.name),
            call.task,
            short_task(call.task),
            flags,
            lines,
        )

    @admin.display(description=gettext_lazy("id"))
    def shown_id(self, call: Call) -> SafeString:
        """Return the end of the id."""
        return format_html('<code title="{}">{}</code>', call.pk, short_id(call.pk))

    @admin.display(description=gettext_lazy("attempts"))
    def shown_attempts(self, call: Call) -> str:
        """Return how often it has run."""
        return str(call.attempt) if call.attempt else NOTHING

    @admin.display(description=gettext_lazy("enqueued"))
    def shown_enqueued(self, call: Call) -> SafeString | str:
        """Return when it was asked for."""
        return moment(call.enqueued_at, timezone.now())

    @admin.display(description=gettext_lazy("wait"))
    def shown_wait(self, call: Call) -> str:
        """Return how long it waited, or has so far."""
        return duration(wait_of(call, timezone.now()))

    @admin.display(description=gettext_lazy("run"))
    def shown_run(self, call: Call) -> str:
        """Return how long its newest run took, or has so far."""
        return duration(run_time_of(call, timezone.now()))

    @admin.display(description=gettext_lazy("queue, worker"))
    def shown_queue(self, call: Call) -> SafeString:
        """Return the queue above the worker of the newest run."""
        return format_html(
            '<span class="lrp-queue" title="{0}">{0}</span><span class="lrp-under lrp-worker" title="{1}">{2}</span>',
            call.queue or NOTHING,
            call.worker or "",
            short_worker(call.worker or ""),
        )

    # --- the page of one call

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one call; there is nothing to submit."""
        call = self.get_object(request, unquote(object_id))
        if request.method not in {"GET", "HEAD"} or not self.has_view_permission(request, call):
            raise PermissionDenied
        if call is None:
            return self._unknown(request, unquote(object_id))
        context = {
            **self.admin_site.each_context(request),
            "title": short_task(call.task),
            "opts": self.opts,
            "original": call,
            "media": self.media,
            "detail": detail_of(call, timezone.now(), self.get_queryset(request), shows_payload=self._shows(request)),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.change_form_template or "admin/lrp_celery/call/detail.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Call | None:
        """Return the call, or None; PostgreSQL would refuse to be asked for an id with NUL."""
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def _shows(self, request: HttpRequest) -> bool:
        """Whether what procedures returned or raised may be seen: unlike the rest of the page, nothing redacts it."""
        return request.user.has_perm("lrp_celery.view_payload")

    def _unknown(self, request: HttpRequest, call_id: str) -> HttpResponse:
        text = _("There is no call “%(call_id)s”. It may have been purged.") % {"call_id": call_id}
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(reverse(self._url_name("changelist"), current_app=self.admin_site.name))

    def _url_name(self, page: str) -> str:
        return f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
