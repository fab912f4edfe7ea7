"""Bodies and query parameters of requests: bounded, strict, and compared with the contract."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from django.core.exceptions import TooManyFieldsSent
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from django_app.api import problems
from django_app.api.contract import Endpoint
from django_app.api.problems import Problem
from django_app.api.schemas import complaint

_MEDIA_TYPE: Final = "application/json"
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)


def check_media_type(request: HttpRequest) -> None:
    """Refuse a body that says of itself that it is something else than JSON, before anybody reads it."""
    if request.content_type != _MEDIA_TYPE and _has_body(request):
        raise Problem(problems.NOT_JSON, f"Send the body as {_MEDIA_TYPE}, and say so in the header Content-Type.")


def body_of(request: HttpRequest, endpoint: Endpoint, limit: int) -> dict[str, Any]:
    """Return the members of the body, which agree with the contract; none where there is no body.

    `limit`: bytes that it may have.
    """
    if endpoint.body is None:
        return {}
    text = _read(request, limit)
    if not text and not endpoint.is_body_required:
        return {}
    try:
        tree = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        # What a bad body holds stays out of the answer.
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Problem(problems.MALFORMED, f"The body is not JSON: {why}.") from None
    wrong = complaint(tree, endpoint.body, "The body")
    if wrong is not None:
        raise Problem(problems.INVALID, wrong)
    members: dict[str, Any] = tree
    return members


def query_of(request: HttpRequest, endpoint: Endpoint) -> Mapping[str, Any]:
    """Return the query parameters that the contract knows; others are not looked at."""
    found: dict[str, Any] = {}
    try:
        given = request.GET
    except TooManyFieldsSent:
        raise Problem(problems.INVALID, "There are too many parameters.") from None
    for name, schema in endpoint.query.items():
        text = given.get(name)
        if text is None:
            continue
        value: Any = float(text) if schema["type"] == "number" and _NUMBER.fullmatch(text) else text
        wrong = complaint(value, schema, f"The parameter {name!r}")
        if wrong is not None:
            raise Problem(problems.INVALID, wrong)
        found[name] = value
    return found


def _has_body(request: HttpRequest) -> bool:
    return request.META.get("CONTENT_LENGTH") not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in request.META


def _read(request: HttpRequest, limit: int) -> bytes:
    said = request.META.get("CONTENT_LENGTH") or "0"
    if isinstance(request, WSGIRequest) and "HTTP_TRANSFER_ENCODING" in request.META and said == "0":
        # Django takes it for none: what it asks for must not be done without what it says.
        raise Problem(problems.MALFORMED, "This server reads no body in chunks: send it with a Content-Length.")
    is_announced = said.isdecimal() and int(said[:20]) > limit
    text = b"" if is_announced else request.read(limit + 1)
    if is_announced or len(text) > limit:
        raise Problem(
            problems.TOO_LARGE,
            f"The body may have {limit} bytes (MAX_PAYLOAD): pass the place where the data can be found.",
        )
    return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of the same text must not take it for two different things.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found
