"""What pages about one call have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from django_app.models import Call

if TYPE_CHECKING:
    CallModelAdmin = admin.ModelAdmin[Call]
else:
    CallModelAdmin = admin.ModelAdmin


def without_messages(request: HttpRequest) -> dict[str, Any]:
    """Return the context of an answer to the script that refreshes pages: a message that it reads, nobody sees."""
    return {"messages": ()} if is_refresh(request) else {}


def is_refresh(request: HttpRequest) -> bool:
    """Whether it was sent by that script."""
    return "X-LRP-Refresh" in request.headers


class CallPage(CallModelAdmin):
    """Knows where the admin's pages are."""

    def url_of(self, page: str, *args: str) -> str:
        """Return the address of a page of this admin; an id among `args` is quoted by whoever has it."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def unknown(self, request: HttpRequest, call_id: str) -> HttpResponse:
        """Lead back to the list from the page of a call that there is not."""
        if is_refresh(request):
            return HttpResponseNotFound()
        text = _("There is no call “%(call_id)s”. It may have been purged.") % {"call_id": call_id}
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.url_of("changelist"))
