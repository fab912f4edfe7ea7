"""Acting on calls in the admin: the buttons, the page that asks once more, and the record of what was done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from celery._state import get_current_app
from django.contrib import admin, messages
from django.contrib.admin import options as admin_options
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import model_format_dict, quote
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_app.admin.acting import Level, Result, Wish, act, summed
from django_app.admin.display import number, short_id
from django_app.admin.offers import ABORT, ABORT_TREE, HANDLE, OFFERS, REMOVE, RERUN, RESEND, Offer
from django_app.admin.plans import JUDGED, facts_for, plan
from django_app.models import Call
from django_app.querysets import CallQuerySet
from lrp_celery.core.ids import new_id
from lrp_celery.core.text import clean
from lrp_celery.procedures.deeds import Deeds
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking.store import MAX_ERROR, MAX_ID

if TYPE_CHECKING:
    CallModelAdmin = admin.ModelAdmin[Call]
else:
    CallModelAdmin = admin.ModelAdmin

T = TypeVar("T")

#: Django's own word for where an action is offered; None: it is of before 6.1, and has none.
ActionLocation: Final[Any] = getattr(admin_options, "ActionLocation", None)
#: Says that an action was asked for on the page of a call.
_FROM_PAGE: Final = "from_page"
#: Calls that the page that asks once more names one by one.
_NAMED: Final = 10
#: Kinds of outcomes that are told one by one.
_TOLD: Final = 12
_LEVELS: Final = {
    Level.CONFIRMED: messages.SUCCESS,
    Level.ASKED: messages.INFO,
    Level.SKIPPED: messages.WARNING,
    Level.REFUSED: messages.ERROR,
}


@dataclass(frozen=True, slots=True)
class Button:
    """An action on the page of a call: `why_not` empty: it may be pressed."""

    name: str
    label: str
    title: str
    why_not: str = ""
    is_grave: bool = False
    asks: bool = True
    """Whether it asks once more."""


def _everywhere(permission: str, offer: Offer) -> Callable[[T], T]:
    """Return the decorator of one of Django's actions, which from Django 6.1 on says that it is for single pages, too."""
    where = {} if ActionLocation is None else {"location": list(ActionLocation)}
    decorate: Any = admin.action
    decorator: Callable[[T], T] = decorate(permissions=[permission], description=offer.label, **where)
    return decorator


class CallActions(CallModelAdmin):
    """The actions of `CallAdmin`, each with a right of its own, a page that asks once more, and its place in the record.

    They are Django's admin actions: leave one out of `actions`, add others, or override
    `has_..._permission`. Of a selection of more than `action_limit` calls only the newest are acted on.
    The page of a call offers these, and from Django 6.1 on all that are said to be for single pages.
    """

    actions = tuple(OFFERS)
    action_limit = 1_000
    confirmation_template: str | None = None

    # --- rights

    def has_abort_permission(self, request: HttpRequest) -> bool:
        """Whether calls may be aborted."""
        return self._may(request, ABORT)

    def has_abort_tree_permission(self, request: HttpRequest) -> bool:
        """Whether calls may be aborted with all that came of them."""
        return self._may(request, ABORT_TREE)

    def has_rerun_permission(self, request: HttpRequest) -> bool:
        """Whether calls may be run again."""
        return self._may(request, RERUN)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Whether messages may be sent again."""
        return self._may(request, RESEND)

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Whether failures may be marked as handled."""
        return self._may(request, HANDLE)

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Whether calls may be removed."""
        return self._may(request, REMOVE)

    def _may(self, request: HttpRequest, offer: Offer) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{offer.permission}")

    def calls_for(self, request: HttpRequest) -> CallQuerySet:
        """Return the calls that this person may see, and so act on."""
        return cast("CallQuerySet", self.get_queryset(request))

    # --- Django's actions

    @_everywhere("abort", ABORT)
    def abort_calls(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then abort."""
        return self.confirm(request, ABORT, queryset)

    @_everywhere("abort_tree", ABORT_TREE)
    def abort_trees(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then abort with all that came of it."""
        return self.confirm(request, ABORT_TREE, queryset)

    @_everywhere("rerun", RERUN)
    def rerun_calls(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then run again."""
        return self.confirm(request, RERUN, queryset)

    @_everywhere("resend", RESEND)
    def resend_calls(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then send again."""
        return self.confirm(request, RESEND, queryset)

    @_everywhere("handle", HANDLE)
    def handle_calls(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then mark as handled."""
        return self.confirm(request, HANDLE, queryset)

    @_everywhere("remove", REMOVE)
    def remove_calls(self, request: HttpRequest, queryset: CallQuerySet) -> HttpResponse:
        """Ask once more, then remove."""
        return self.confirm(request, REMOVE, queryset)

    # --- asked for

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list; what is posted to it is an action."""
        name = request.POST.get("action", "") if request.method == "POST" else ""
        on_page = _FROM_PAGE in request.POST
        if name not in OFFERS and not (name and on_page):
            return super().changelist_view(request, extra_context)
        # Not Django's "No action selected": whoever posts this without the right is to know.
        if not self.has_view_permission(request) or name not in self._offered(request, on_page=on_page):
            raise PermissionDenied
        if "calls" in request.POST and name in OFFERS:
            return self.perform(request, OFFERS[name])
        return self._selected(request, name, on_page=on_page)

    def _offered(self, request: HttpRequest, *, on_page: bool) -> Mapping[str, Any]:
        """Return the actions for the list, or for the page of one call, that this person may take, by their names."""
        # Until Django 6.0 there is no such difference.
        where: Any = {"action_location": ActionLocation.CHANGE_FORM} if on_page and ActionLocation else {}
        return self.get_actions(request, **where)

    def _selected(self, request: HttpRequest, name: str, *, on_page: bool) -> HttpResponse:
        """Act on what is ticked; on all that match if nothing is, but never on simply everything."""
        if ticked := request.POST.getlist(ACTION_CHECKBOX_NAME):
            # Those that do not match any more are still what was meant.
            known = [call_id for call_id in ticked if clean(call_id) == call_id]
            return self._take(request, name, self.calls_for(request).filter(pk__in=known), on_page=on_page)
        if on_page:
            raise BadRequest("This is for the page of a call, and names none.")
        try:
            listed = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            raise BadRequest("These filters mean nothing.") from None
        if not (listed.has_active_filters or listed.query):
            self.message_user(request, _("Tick calls, or filter the list first."), messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        return self._take(request, name, cast("CallQuerySet", listed.get_queryset(request)), on_page=on_page)

    def _take(self, request: HttpRequest, name: str, calls: CallQuerySet, *, on_page: bool) -> HttpResponse:
        """Let an action do what it does with calls: a subclass may have one of its own under this name."""
        found: Any = self._offered(request, on_page=on_page)[name]
        # A tuple until Django 6.0, an `Action` from 6.1 on.
        function = found[0] if isinstance(found, tuple) else found.func
        answer: HttpResponse | None = function(self, request, calls)
        # As in Django: an action that returns nothing leads back to where it was asked for.
        return answer or HttpResponseRedirect(self._back(request, list(calls[:2])))

    def confirm(self, request: HttpRequest, offer: Offer, calls: CallQuerySet) -> HttpResponse:
        """Show what would be done to `calls`, and ask."""
        found = list(calls.only(*JUDGED)[: self.action_limit + 1])
        is_capped, found = len(found) > self.action_limit, found[: self.action_limit]
        if not found:
            self.message_user(request, _("No call fits any more."), messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        planned = plan(offer, found, facts_for([offer], found, self.calls_for(request)))
        context = {
            **self.admin_site.each_context(request),
            "title": offer.label,
            "opts": self.opts,
            "media": self.media,
            "plan": planned,
            "named": [(call, short_id(call.pk)) for call in planned.doable[:_NAMED]],
            "unnamed": max(0, len(planned.doable) - _NAMED),
            "count": number(len(found)),
            "limit": number(self.action_limit) if is_capped else None,
            "is_all": not request.POST.getlist(ACTION_CHECKBOX_NAME),
            "ids": json.dumps([call.pk for call in found]),
            "key": new_id(),
            "from_page": _FROM_PAGE in request.POST,
            "back": self._back(request, found),
            "max_reason": MAX_ERROR,
        }
        request.current_app = self.admin_site.name
        template = self.confirmation_template or "admin/lrp_celery/call/confirm.html"
        return TemplateResponse(request, template, context)

    def _back(self, request: HttpRequest, calls: Sequence[Call]) -> str:
        """Return where the person came from: the page of the one call, or the list as it was filtered."""
        if _FROM_PAGE in request.POST and len(calls) == 1:
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
            return reverse(name, args=[quote(calls[0].pk)], current_app=self.admin_site.name)
        return request.get_full_path()

    # --- confirmed

    def perform(self, request: HttpRequest, offer: Offer) -> HttpResponse:
        """Do what was confirmed, to exactly those calls that were shown, as they stand now."""
        ids = _ids(request.POST["calls"], self.action_limit)
        source = self.calls_for(request)
        # What no database can hold is the id of no call.
        found = source.only(*JUDGED).in_bulk([call_id for call_id in ids if clean(call_id) == call_id])
        calls = [found[call_id] for call_id in ids if call_id in found]
        planned = plan(offer, calls, facts_for([offer], calls, source))
        results = []
        for result in act(planned, self._deeds(request), _wish(request, offer), source.db):
            self._note(request, offer, result, source)
            results.append(result)
        self._tell(request, offer, results, gone=len(ids) - len(calls))
        is_gone = offer is REMOVE and any(result.level is Level.CONFIRMED for result in results)
        back = self._back(request, calls)
        if is_gone and _FROM_PAGE in request.POST:
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
            back = reverse(name, current_app=self.admin_site.name)
        return HttpResponseRedirect(back)

    def _deeds(self, request: HttpRequest) -> Deeds:
        app = get_current_app()
        calls = self.calls_for(request).only("pk")
        # What came of a call that somebody may see need not be his to see.
        return Deeds(app, runtime_of(app), request.user, sees=lambda ids: calls.in_bulk(list(ids)))

    def _note(self, request: HttpRequest, offer: Offer, result: Result, source: CallQuerySet) -> None:
        """Keep it in Django's record, too: our own was written where it was done."""
        if result.entry is not None:
            if offer is REMOVE:
                # The stubs ask for a queryset, Django for anything that can be iterated.
                self.log_deletions(request, cast("Any", [result.call]))
            else:
                self.log_change(request, result.call, result.entry)
        others = {action.call_id: action.outcome for action in result.others}
        for call in source.only("call_id", "task").in_bulk(list(others)).values() if others else ():
            self.log_change(request, call, f"Abort, with {result.call.pk}: {others[call.pk]}.")

    def _tell(self, request: HttpRequest, offer: Offer, results: Sequence[Result], *, gone: int) -> None:
        said = list(summed(results))
        for level, words, count in said[:_TOLD]:
            self.message_user(request, _told(offer, words, count), _LEVELS[level])
        if rest := sum(count for _level, _words, count in said[_TOLD:]):
            # Each may have failed in words of its own.
            self.message_user(request, _told(offer, _("not done either, for reasons like these"), rest), messages.ERROR)
        if gone:
            self.message_user(request, _told(offer, _("it is gone"), gone), messages.WARNING)
        again = [result.new_id for result in results if result.new_id is not None]
        others = sum(len(result.others) for result in results)
        if others:
            text = ngettext(
                "%(count)s descendant was asked to end.", "%(count)s descendants were asked to end.", others
            )
            self.message_user(request, text % {"count": number(others)}, messages.INFO)
        if len(again) == 1:
            self.message_user(request, self._link(again[0]), messages.INFO)

    def _link(self, call_id: str) -> SafeString:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        path = reverse(name, args=[quote(call_id)], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', path, _("See the new call."))

    # --- the page of one call

    def buttons(self, request: HttpRequest, call: Call, open_below: int | None = None) -> list[Button]:
        """Return the actions for the page of `call`, in their order; those that cannot be pressed say why.

        `open_below`: how many calls are open below the root of its tree, if that is known.
        """
        offered = self._offered(request, on_page=True)
        known = [offer for name in self.actions or () if isinstance(name, str) and (offer := OFFERS.get(name))]
        allowed = [offer for offer in known if offer.name in offered]
        others = [found for name, found in offered.items() if name not in OFFERS and ActionLocation is not None]
        counted = None if open_below is None else {call.root_id or call.pk: open_below}
        facts = facts_for(allowed, [call], self.calls_for(request), counted) if allowed else None
        own = [_button(offer, call, facts if offer in allowed else None) for offer in known]
        called = model_format_dict(Call)
        return [*own, *(Button(other.name, other.description % called, "", asks=False) for other in others)]


def _button(offer: Offer, call: Call, facts: Any) -> Button:
    if facts is None:
        why_not = _("You have no right to do this.")
        return Button(offer.name, str(offer.label), why_not, why_not, offer.is_grave)
    verdict = offer.judge(call, facts)
    text = _("This call: %(what)s.") % {"what": verdict.text}
    return Button(offer.name, str(offer.label), text, "" if verdict.is_done else text, offer.is_grave)


def _told(offer: Offer, words: str, count: int) -> str:
    text = ngettext("%(action)s, %(count)s call: %(words)s.", "%(action)s, %(count)s calls: %(words)s.", count)
    return text % {"action": offer.label, "count": number(count), "words": words.rstrip(".")}


def _wish(request: HttpRequest, offer: Offer) -> Wish:
    said = clean(request.POST.get("reason", "").strip(), MAX_ERROR)
    try:
        key = str(UUID(request.POST.get("key", "")))
    except ValueError:
        raise BadRequest("The form has lost its key: ask for the action once more.") from None
    return Wish(
        reason=said if said and offer.takes_reason else None,
        force=offer.takes_force and request.POST.get("force") == "yes",
        key=key,
    )


def _ids(text: str, limit: int) -> list[str]:
    """Return the ids that a confirmation names."""
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError):
        ids = None
    is_list = isinstance(ids, list) and len(ids) <= limit
    if not is_list or not all(isinstance(each, str) and 0 < len(each) <= MAX_ID for each in ids):
        raise BadRequest("The form does not say which calls are meant: ask for the action once more.")
    return list(dict.fromkeys(ids))
