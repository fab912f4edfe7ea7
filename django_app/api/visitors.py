"""Who asks, how that is known, and what they may."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string

from django_app.api import problems
from django_app.api.problems import Problem
from django_app.conf import options
from lrp_celery.core.text import clean
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.store import MAX_NAME


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user on whose behalf a request is answered."""

    user: Any
    is_by_session: bool
    """Whether a cookie tells: any page that the user's browser shows can have it sent."""

    @property
    def name(self) -> str | None:
        """The name under which they own calls; None: it cannot be one, so that they own none."""
        name = str(self.user.get_username())
        # Not cut: two names that begin alike are not the same owner.
        return name if 1 <= len(name) <= MAX_NAME and clean(name) == name else None

    def may(self, right: str) -> bool:
        """Whether they have one of this app's permissions."""
        return bool(self.user.has_perm(f"lrp_celery.{right}"))

    def recall(self) -> None:
        """Have Django read their rights, as for a call of others: that it took no time would tell that there is none."""
        self.may("view_call")

    def owns(self, record: CallRecord) -> bool:
        """Whether the call is theirs."""
        return record.owner is not None and record.owner == self.name

    def sees(self, record: CallRecord) -> bool:
        """Whether they may know that there is this call, and how it stands."""
        return self.owns(record) or self.may("view_call")

    def reads(self, record: CallRecord) -> bool:
        """Whether they may see what a call that they see has returned, or with what it failed."""
        return self.owns(record) or self.may("view_payload")

    def demand(self, right: str) -> None:
        """Refuse who has not the right."""
        if not self.may(right):
            raise lacking(f"lrp_celery.{right}")


def lacking(permission: str) -> Problem:
    """Return the answer for a right that is missing."""
    return Problem(problems.FORBIDDEN, f"This needs the permission {permission!r}: ask an administrator for it.")


async def by_token(request: HttpRequest) -> Any:
    """Return the user that HTTP_AUTHENTICATE knows the request to come from, or None."""
    named = options().HTTP_AUTHENTICATE
    if named is None:
        return None
    authenticate: Callable[[HttpRequest], Any] = import_string(named) if isinstance(named, str) else named
    called = authenticate if iscoroutinefunction(authenticate) else sync_to_async(authenticate)
    found = await called(request)
    return await found if inspect.isawaitable(found) else found


def admit(request: HttpRequest, user: Any) -> Visitor:
    """Return who asks: `user` if a token has told, else the user of the session."""
    visitor = (
        Visitor(getattr(request, "user", None), is_by_session=True)
        if user is None
        else Visitor(user, is_by_session=False)
    )
    if visitor.user is None or not visitor.user.is_authenticated or not visitor.user.is_active:
        scheme = "Session" if options().HTTP_AUTHENTICATE is None else "Bearer"
        raise Problem(
            problems.NOT_AUTHENTICATED,
            "Log in, or send what this server's HTTP_AUTHENTICATE understands, such as a token.",
            {"WWW-Authenticate": scheme},
        )
    return visitor


def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class _Csrf(CsrfViewMiddleware):
    """Django's own check, which tells the reason instead of rendering a page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def refuse_forged(request: HttpRequest) -> None:
    """Refuse what a session's user may have been tricked into: it lacks the token that only our pages have."""
    check = _Csrf(_nothing)
    check.process_request(request)
    reason = check.process_view(request, _nothing, (), {})
    if reason:
        raise Problem(problems.FORGED, f"{reason} Send the CSRF token of the session in the header X-CSRFToken.")
