"""The views: one for each path, made of the contract and the handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError, connections
from django.http import HttpRequest, HttpResponse

from django_app.api import contract, handlers, openapi, problems, starting, waits
from django_app.api.asked import Asked, Later
from django_app.api.bodies import body_of, check_media_type, query_of
from django_app.api.contract import RETRY_AFTER, Endpoint
from django_app.api.problems import Problem, no_call
from django_app.api.visitors import admit, by_token, refuse_forged
from django_app.conf import options
from django_app.wiring import current_runtime
from lrp_celery.core.errors import StoreError
from lrp_celery.procedures.results import Apart

#: Requests that an event loop has answered at once: each needs a thread and a connection to the database meanwhile,
#: and those who wait may all come back in the same moment.
AT_ONCE: Final = 16

Handler = Callable[[Asked], HttpResponse | Later]


class _Path:
    """The view of one path: what is asked for decides which handler answers."""

    def __init__(self, **handlers_: tuple[Endpoint, Handler]) -> None:
        self._by_method = handlers_
        markcoroutinefunction(self)
        # Who may not is told so in the API's own words, instead of being sent to a page to log in.
        self.login_required = False
        # It asks for the token itself, from those whom a session has told.
        self.csrf_exempt = True
        # Django refuses async views where ATOMIC_REQUESTS is on; and a wait must not hold a transaction.
        self._non_atomic_requests = set(connections)

    async def __call__(self, request: HttpRequest, **path: str) -> HttpResponse:
        try:
            endpoint, handle = self._chosen(request.method or "")
            async with _few_at_once():
                user = await by_token(request)
                answer = await current_runtime().apart(partial(_answer, request, user, endpoint, handle, path))
                looks = await waits.lookers() if isinstance(answer, Later) else None
            return await _later(answer, looks) if isinstance(answer, Later) else answer
        except Problem as problem:
            return problem.response()
        except PermissionDenied as error:
            # By HTTP_AUTHENTICATE, which may know more than that nobody is known.
            return Problem(problems.FORBIDDEN, str(error) or "You may not do this.").response()
        except (StoreError, OperationalError, InterfaceError):
            # Where users, sessions and rights are kept may be away, too.
            detail = "Nothing is known of what was asked for: ask again, with the same id."
            return Problem(problems.UNAVAILABLE, detail, {"Retry-After": str(RETRY_AFTER)}).response()

    def _chosen(self, method: str) -> tuple[Endpoint, Handler]:
        found = self._by_method.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = ", ".join(self._by_method)
            raise Problem(problems.NO_METHOD, f"Here one can {allowed}.", {"Allow": allowed})
        return found


def _answer(
    request: HttpRequest, user: Any, endpoint: Endpoint, handle: Handler, path: Mapping[str, str]
) -> HttpResponse | Later:
    """Answer in one go, in one thread; nothing is read of a request before it is known who asks."""
    visitor = admit(request, user)
    if endpoint.body is not None:
        # Before Django looks for a token in what may be a form.
        check_media_type(request)
    if endpoint.is_unsafe and visitor.is_by_session:
        refuse_forged(request)
    if endpoint.right is not None:
        visitor.demand(endpoint.right)
    query = query_of(request, endpoint)
    body = body_of(request, endpoint, options().MAX_PAYLOAD)
    return handle(Asked(request=request, visitor=visitor, path=path, query=query, body=body))


async def _later(later: Later, looks: Apart | None) -> HttpResponse:
    news = await waits.news_of(later.record, later.seconds, looks)
    # The id may have been given to somebody else's call meanwhile.
    if news is None or news[0].generation != later.record.generation:
        raise no_call()
    return handlers.settled(*news)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _few_at_once() -> asyncio.Semaphore:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))


_DOCUMENT: Final = Endpoint(
    name="describe",
    method="GET",
    path=contract.DOCUMENT,
    summary="This document",
    description="For every user.",
    answers=(),
)


def _describe(asked: Asked) -> HttpResponse:
    return HttpResponse(openapi.text(), content_type="application/json", headers={"Cache-Control": "no-cache"})


#: Name and path of each view.
VIEWS: Final[Mapping[str, tuple[str, _Path]]] = {
    "calls": (contract.START.path, _Path(POST=(contract.START, starting.start))),
    "call": (
        contract.READ.path,
        _Path(GET=(contract.READ, handlers.read), DELETE=(contract.REMOVE, handlers.remove)),
    ),
    "result": (contract.RESULT.path, _Path(GET=(contract.RESULT, handlers.result))),
    "abort": (contract.ABORT.path, _Path(POST=(contract.ABORT, handlers.abort))),
    "openapi": (contract.DOCUMENT, _Path(GET=(_DOCUMENT, _describe))),
}
