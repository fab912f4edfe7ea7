"""What pages about one call have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from django_app.models import Call

if TYPE_CHECKING:
    CallModelAdmin = admin.ModelAdmin[Call]
else:
    CallModelAdmin = admin.ModelAdmin


class CallPage(CallModelAdmin):
    """Knows where the admin's pages are."""

    def url_of(self, page: str, *args: str) -> str:
        """Return the address of a page of this admin; an id among `args` is quoted by whoever has it."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def unknown(self, request: HttpRequest, call_id: str) -> HttpResponse:
        """Lead back to the list from the page of a call that there is not."""
        text = _("There is no call “%(call_id)s”. It may have been purged.") % {"call_id": call_id}
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.url_of("changelist"))
