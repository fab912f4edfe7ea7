"""Calls in the admin: a list that finds them, and a page that tells what became of one."""

from __future__ import annotations

from typing import Any, Final, cast

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from django_app.admin.actions import CallActions
from django_app.admin.changelist import CallChangeList
from django_app.admin.conditions import flags_of
from django_app.admin.detail import detail_of
from django_app.admin.display import (
    badge,
    clock_time,
    error_line,
    moment,
    preview,
    progress_bar,
    short_id,
    short_task,
    short_worker,
)
from django_app.admin.filters import FILTERS, parameters
from django_app.admin.pages import without_messages
from django_app.admin.paginator import CappedPaginator
from django_app.admin.search import meaning
from django_app.admin.trees import TreePage
from django_app.conf import options
from django_app.durations import NOTHING, duration
from django_app.lengths import run_time_of, wait_of
from django_app.models import Call
from django_app.querysets import CallQuerySet

#: An attempt's number has fewer.
_DIGITS: Final = 10


@admin.register(Call)
class CallAdmin(CallActions, TreePage):
    """Shows calls, and acts on them: whoever may view calls sees all but payloads; each action has a right of its own.

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
    # A line weighs one and a half kilobytes.
    list_max_show_all = 80
    search_fields = ("call_id",)
    search_help_text = gettext_lazy("A call id or how it begins; or how a task's full or short name begins.")
    sortable_by = ()
    ordering = ("-enqueued_at", "-call_id")
    date_hierarchy = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    #: Seconds between two refreshes by the page's script, of the list, and of the page of a call that has not ended;
    #: None: it never refreshes itself.
    refresh_every: int | None = 15
    refresh_call_every: int | None = 5

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

    def sees_all(self, request: HttpRequest) -> bool:
        """Whether this person may see every call, so that filters may offer what any of them has."""
        return type(self).get_queryset is CallAdmin.get_queryset

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that reads few columns."""
        return CallChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or act on what was ticked in it."""
        context = {
            "at": clock_time(timezone.now()),
            "refresh_every": self.refresh_every,
            **without_messages(request),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        """Return what an index finds, which is never doubled."""
        calls = cast("CallQuerySet", queryset)
        # A page asks several times for what matches.
        known: dict[str, Q | None] = request.__dict__.setdefault("_lrp_meant", {})
        if search_term not in known:
            known[search_term] = meaning(calls, search_term)
        meant = known[search_term]
        return (calls.none() if meant is None else calls.filter(meant)), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse lookups that are not a filter's own: they could read the whole table."""
        return lookup in parameters()

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, call: Call) -> SafeString:
        """Return the status, and why."""
        reason = format_html('<span class="lrp-under">{}</span>', call.reason) if call.reason else ""
        return format_html(
            "{}{}{}", badge(call.status), reason, "" if call.is_terminal else progress_bar(call.progress)
        )

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
            self.url_of("change", quote(call.pk)),
            call.task,
            short_task(call.task),
            flags,
            lines,
        )

    @admin.display(description=gettext_lazy("id, owner"))
    def shown_id(self, call: Call) -> SafeString:
        """Return the end of the id, above whom the call belongs to."""
        owner = (
            format_html('<span class="lrp-under lrp-worker" title="{0}">{0}</span>', call.owner) if call.owner else ""
        )
        return format_html('<code title="{}">{}</code>{}', call.pk, short_id(call.pk), owner)

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
            return self.unknown(request, unquote(object_id))
        now = timezone.now()
        detail = detail_of(
            call,
            now,
            self.get_queryset(request),
            shows_payload=self._may_see(request, "view_payload"),
            shows_deeds=self._may_see(request, "view_actionlog"),
            attempt=_number(request.GET.get("attempt")),
        )
        context = {
            **self.admin_site.each_context(request),
            **without_messages(request),
            "at": clock_time(now),
            "refresh_every": None if call.is_terminal else self.refresh_call_every,
            "title": short_task(call.task),
            "opts": self.opts,
            "original": call,
            "media": self.media,
            # After the details, which have read of the call what these ask for.
            "buttons": self.buttons(request, call, None if detail.lineage.is_cut else detail.lineage.open),
            "act_url": self.url_of("changelist"),
            "call": call,
            "detail": detail,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.change_form_template or "admin/lrp_celery/call/detail.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Call | None:
        """Return the call, or None; PostgreSQL would refuse to be asked for an id with NUL."""
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def _may_see(self, request: HttpRequest, right: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{right}")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < _DIGITS else None
