"""Starting calls: `POST procedures/{procedure}/calls`."""

from __future__ import annotations

import threading
from typing import Any

from celery._state import get_current_app
from django.http import HttpResponse
from django.urls import reverse

from django_app.api import problems
from django_app.api.asked import Asked, as_json
from django_app.api.contract import RETRY_AFTER
from django_app.api.problems import Problem
from django_app.api.visitors import Visitor, lacking
from lrp_celery.core import codec
from lrp_celery.core.errors import CallIdConflict, NotDecodable, NotEncodable
from lrp_celery.core.suggest import suggestion
from lrp_celery.procedures.procedure import LongRunningProcedure
from lrp_celery.tracking.store import is_usable_id


def start(asked: Asked) -> HttpResponse:
    """Make a call of a procedure for the visitor."""
    procedure = _procedure(asked.path["procedure"])
    permission = procedure.options.permission
    if permission is not None and not asked.visitor.user.has_perm(permission):
        raise lacking(permission)
    call_id, is_new = _call(procedure, asked)
    headers = {"Location": _place(asked, call_id), "Cache-Control": "no-store"}
    if is_new:
        headers["Retry-After"] = str(RETRY_AFTER)
    body = {"id": call_id, "procedure": asked.path["procedure"]}
    return as_json(body, status=202 if is_new else 200, headers=headers)


def _place(asked: Asked, call_id: str) -> str:
    """Return the path of a call, below the same place as this request's: that may have parameters, such as a tenant."""
    namespace = getattr(asked.request.resolver_match, "namespace", "")
    above = {name: value for name, value in asked.path.items() if name != "procedure"}
    return reverse(f"{namespace}:call", kwargs={**above, "id": call_id})


def _call(procedure: LongRunningProcedure[..., Any], asked: Asked) -> tuple[str, bool]:
    body = asked.body
    args, kwargs = _arguments(procedure, body.get("args", []), body.get("kwargs", {}))
    chosen: dict[str, Any] = {"owner": _owner(asked.visitor)}
    if "id" in body:
        if not is_usable_id(body["id"]):
            raise Problem(problems.INVALID, "'id' holds a lone surrogate; send another one, or leave it out.")
        chosen["call_id"] = body["id"]
    if "timeout" in body:
        chosen["timeout"] = _timeout(procedure, body["timeout"])
    try:
        return procedure.using(**chosen).call_or_find(args, kwargs)
    except NotEncodable as error:
        raise Problem(problems.INVALID, str(error)) from None
    except CallIdConflict:
        detail = "This id is taken by a call of another procedure or owner: send another one, or leave it out."
        raise Problem(problems.ID_CONFLICT, detail) from None


def _arguments(
    procedure: LongRunningProcedure[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        procedure.parameters.check(args, kwargs)
    except TypeError as error:
        raise Problem(problems.INVALID, f"The arguments do not fit: {error}.") from None
    if any(map(codec.is_untyped, (*args, *kwargs.values()))):
        raise Problem(problems.INVALID, "An argument is marked as one that need not fit; send what fits.")
    try:
        return procedure.parameters.decode(args, kwargs)
    except NotDecodable as error:
        raise Problem(problems.INVALID, f"The arguments do not fit: {error}") from None


def _owner(visitor: Visitor) -> str:
    if visitor.name is None:
        raise Problem(problems.FORBIDDEN, "Your user name is too long to own a call: call with another user.")
    return visitor.name


def _timeout(procedure: LongRunningProcedure[..., Any], seconds: float) -> float:
    """Return the timeout that was asked for. It may not outlive the procedure's: that is its author's word."""
    longest = procedure.options.timeout
    if longest is not None and seconds > longest:
        raise Problem(problems.INVALID, f"'timeout' is {seconds:g}; this procedure allows {longest:g} seconds at most.")
    return seconds


_imports = threading.Lock()
_imported: set[int] = set()


def _procedure(name: str) -> LongRunningProcedure[..., Any]:
    app = get_current_app()
    found = getattr(app.tasks.get(name), "lrp_procedure", None)
    if found is None:
        # A web process imports tasks only as its own code does; a worker's way finds all of them.
        with _imports:
            if id(app) not in _imported:
                app.loader.import_default_modules()
                _imported.add(id(app))
        found = getattr(app.tasks.get(name), "lrp_procedure", None)
    if found is None:
        known = [each for each, task in app.tasks.items() if getattr(task, "lrp_procedure", None) is not None]
        close = suggestion(name, known)
        hint = f" {close}" if close.startswith("Did") else ""
        raise Problem(problems.NO_PROCEDURE, f"{name!r:.300} is no task that is decorated by @procedure.{hint}")
    procedure: LongRunningProcedure[..., Any] = found
    return procedure
