"""Refusals as problem details (RFC 9457): what kind, and a sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.http import HttpResponse

#: Characters of a detail.
_MOST: Final = 1000
MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; `name` stands in its `type`, by which programs tell kinds apart."""

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """What stands in `type`."""
        return f"urn:lrp-celery:{self.name}"


MALFORMED: Final = Kind("malformed", 400, "The body is not JSON")
NOT_AUTHENTICATED: Final = Kind("not-authenticated", 401, "It is not known who asks")
FORBIDDEN: Final = Kind("forbidden", 403, "A right is missing")
FORGED: Final = Kind("csrf", 403, "The token against forged requests is missing or wrong")
NO_PROCEDURE: Final = Kind("no-such-procedure", 404, "There is no such procedure")
NO_CALL: Final = Kind("no-such-call", 404, "There is no such call")
NO_METHOD: Final = Kind("no-such-method", 405, "The method is not allowed here")
PENDING: Final = Kind("call-pending", 409, "The call has not settled")
ID_CONFLICT: Final = Kind("id-conflict", 409, "The id is taken")
TOO_LARGE: Final = Kind("too-large", 413, "The body is too large")
NOT_JSON: Final = Kind("media-type", 415, "The media type is not supported")
INVALID: Final = Kind("invalid", 422, "The request cannot be understood")
UNAVAILABLE: Final = Kind("unavailable", 503, "The database does not answer")
KINDS: Final = (
    MALFORMED,
    NOT_AUTHENTICATED,
    FORBIDDEN,
    FORGED,
    NO_PROCEDURE,
    NO_CALL,
    NO_METHOD,
    PENDING,
    ID_CONFLICT,
    TOO_LARGE,
    NOT_JSON,
    INVALID,
    UNAVAILABLE,
)


class Problem(Exception):
    """A request is refused."""

    def __init__(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        # It may quote what was sent, however long that is.
        self.detail = detail if len(detail) <= _MOST else f"{detail[:_MOST]}..."
        self.headers = dict(headers or {})

    def response(self) -> HttpResponse:
        """Return the answer that says so."""
        body = {"type": self.kind.uri, "title": self.kind.title, "status": self.kind.status, "detail": self.detail}
        return HttpResponse(
            json.dumps(body),
            status=self.kind.status,
            content_type=MEDIA_TYPE,
            headers={"Cache-Control": "no-store", **self.headers},
        )


def no_call() -> Problem:
    """Return the answer for an id that is unknown, or is not for this visitor: the two must not differ."""
    return Problem(NO_CALL, "There is no call with this id, or it is not yours to see. It may have been removed.")
