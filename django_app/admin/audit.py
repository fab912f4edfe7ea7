"""The record of actions in the admin: who did what to which call, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_app.admin.display import moment, short_id
from django_app.admin.paginator import CappedPaginator
from django_app.conf import options
from django_app.models import ActionLog, Call

if TYPE_CHECKING:
    ActionModelAdmin = admin.ModelAdmin[ActionLog]
else:
    ActionModelAdmin = admin.ModelAdmin

_LAST: Final = chr(0x10FFFF)


@admin.register(ActionLog)
class ActionLogAdmin(ActionModelAdmin):
    """Shows what people did to calls, whether by the admin, a command or code; nobody can change it here."""

    list_display = ("shown_at", "by", "deed", "shown_call", "outcome", "reason")
    list_display_links = None
    list_filter = ("deed",)
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("call_id",)
    search_help_text = _("A call id, or how it begins.")
    sortable_by = ()
    ordering = ("-at", "-id")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = None

    class Media:
        css = {"all": ("lrp_celery/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: acting adds."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ActionLog | None = None) -> bool:
        """Refuse: what was done was done."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ActionLog | None = None) -> bool:
        """Refuse: it outlives the calls."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ActionLog]:
        """Return all actions, from the database that the setting DATABASE names."""
        return ActionLog.objects.using(options().DATABASE).order_by(*self.get_ordering(request))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ActionLog], search_term: str
    ) -> tuple[QuerySet[ActionLog], bool]:
        """Return what was done to calls whose id begins so."""
        term = search_term.replace("\x00", "").strip()
        return (queryset.filter(call_id__gte=term, call_id__lt=term + _LAST) if term else queryset), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse lookups that are not a filter's own: they could read the whole table."""
        return lookup == "deed__exact"

    @admin.display(description=_("when"))
    def shown_at(self, action: ActionLog) -> SafeString | str:
        """Return when it was."""
        return moment(action.at, timezone.now())

    @admin.display(description=_("call"))
    def shown_call(self, action: ActionLog) -> SafeString:
        """Return a link to the call; it may be gone."""
        name = f"admin:{Call._meta.app_label}_{Call._meta.model_name}_change"
        path = reverse(name, args=[quote(action.call_id)], current_app=self.admin_site.name)
        return format_html('<a href="{}"><code title="{}">{}</code></a>', path, *_named(action))


def _named(action: ActionLog) -> tuple[str, str]:
    call_id = cast("str", action.call_id)
    return call_id, short_id(call_id)
