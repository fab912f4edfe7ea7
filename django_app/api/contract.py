"""The requests that are understood and the answers that may come: views and OpenAPI document are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from django_app.api import problems, representation
from django_app.api.problems import Kind
from django_app.api.schemas import Schema
from lrp_celery.core.durations import LONGEST
from lrp_celery.tracking.store import MAX_ERROR, MAX_ID

#: Seconds after which to ask again.
RETRY_AFTER: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no problem; `schema` names one of `SCHEMAS`, None: it has no body."""

    status: int
    description: str
    schema: str | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A request, and what may come of it."""

    name: str
    method: str
    path: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    problems: tuple[Kind, ...] = ()
    right: str | None = None
    """What everybody needs for it; None: that depends on the call."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    is_body_required: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All problems that may come."""
        common = [problems.NOT_AUTHENTICATED, problems.FORBIDDEN, problems.UNAVAILABLE]
        if self.is_unsafe:
            common.append(problems.FORGED)
        if self.body is not None:
            common += [problems.MALFORMED, problems.TOO_LARGE, problems.NOT_JSON, problems.INVALID]
        if self.query:
            common.append(problems.INVALID)
        return tuple(dict.fromkeys((*common, *self.problems)))

    @property
    def is_unsafe(self) -> bool:
        """Whether it changes something, so that nobody may be tricked into it."""
        return self.method != "GET"


HEADERS: Final[Mapping[str, Schema]] = {
    "Location": {"description": "Where the call is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}},
    "ETag": {"description": "Changes whenever the call does.", "schema": {"type": "string"}},
}
#: No slash and no control character, and not what a path takes for a direction.
ID: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_ID,
    "pattern": r"^(?!\.{1,2}$)[^/\u0000-\u001f\u007f]+$",
    "description": (
        "The id that the call is to have: the idempotency key. With an id that you have made, a request whose answer "
        "got lost can be sent again."
    ),
}
START_BODY: Final[Schema] = {
    "type": "object",
    "properties": {
        "args": {"type": "array", "items": {}, "description": "Positional arguments."},
        "kwargs": {"type": "object", "description": "Arguments by name."},
        "id": ID,
        "timeout": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": LONGEST,
            "description": "Seconds from now after which the call is aborted; not more than the procedure's own.",
        },
    },
    "additionalProperties": False,
}
ABORT_BODY: Final[Schema] = {
    "type": "object",
    "properties": {"reason": {"type": ["string", "null"], "maxLength": MAX_ERROR, "description": "Why, in words."}},
    "additionalProperties": False,
}
STARTED: Final[Schema] = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "procedure": {"type": "string"}},
    "required": ["id", "procedure"],
    "additionalProperties": False,
}
ACCEPTED: Final[Schema] = {
    "type": "object",
    "properties": {"id": {"type": "string"}},
    "required": ["id"],
    "additionalProperties": False,
}
PROBLEM: Final[Schema] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": [kind.uri for kind in problems.KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do about it."},
    },
    "required": ["type", "title", "status", "detail"],
}
#: By name, as the document has them.
SCHEMAS: Final[Mapping[str, Schema]] = {
    "Start": START_BODY,
    "Abort": ABORT_BODY,
    "Started": STARTED,
    "Accepted": ACCEPTED,
    "Call": representation.SCHEMA,
    "Problem": PROBLEM,
}

#: What every request about a call takes.
_OF: Final[Mapping[str, Schema]] = {
    "procedure": {"type": "string", "description": "Take a call of any other procedure for unknown."}
}

START: Final = Endpoint(
    name="startCall",
    method="POST",
    path="procedures/{procedure}/calls",
    summary="Call a procedure",
    description=(
        "The call belongs to whoever makes it. Needs `start_call`, and the procedure's own permission where it has one. "
        "Where the id belongs to a call of the same procedure and owner already, nothing is made, whatever the arguments."
    ),
    right="start_call",
    body=START_BODY,
    answers=(
        Answer(status=202, description="The call is made.", schema="Started", headers=("Location", "Retry-After")),
        Answer(status=200, description="An earlier request has made it.", schema="Started", headers=("Location",)),
    ),
    problems=(problems.NO_PROCEDURE, problems.ID_CONFLICT),
)
READ: Final = Endpoint(
    name="readCall",
    method="GET",
    path="calls/{id}",
    summary="How a call stands",
    description=(
        "For its owner, and for whoever has `view_call`; these need `view_payload` to see its result. "
        "Send the ETag as `If-None-Match`, and nothing is sent while nothing changes."
    ),
    query=_OF,
    answers=(
        Answer(status=200, description="The call.", schema="Call", headers=("ETag",)),
        Answer(status=304, description="It has not changed.", headers=("ETag",)),
    ),
    problems=(problems.NO_CALL,),
)
RESULT: Final = Endpoint(
    name="awaitResult",
    method="GET",
    path="calls/{id}/result",
    summary="Wait for a call's result",
    description=(
        "Answers as soon as the call has settled, or somebody asks for its end, and after `wait` seconds at the latest, "
        "or after the server's MAX_WAIT, if that is less. For its owner, and for whoever has `view_call` and "
        "`view_payload`."
    ),
    query={
        **_OF,
        "wait": {
            "type": "number",
            "minimum": 0,
            "default": 0,
            "description": "Seconds; 0 looks once. A server that can hold only few waiting requests may answer sooner.",
        },
    },
    answers=(
        Answer(status=200, description="It has settled.", schema="Call"),
        Answer(status=202, description="It has not; ask again.", schema="Call", headers=("Retry-After",)),
    ),
    problems=(problems.NO_CALL,),
)
ABORT: Final = Endpoint(
    name="abortCall",
    method="POST",
    path="calls/{id}/abort",
    summary="Ask for the end of a call",
    description="For its owner, and for whoever has `abort_call`. Changes nothing if it has settled, or is unknown.",
    query=_OF,
    body=ABORT_BODY,
    answers=(Answer(status=202, description="If there is such a call, it was asked to end.", schema="Accepted"),),
)
REMOVE: Final = Endpoint(
    name="removeCall",
    method="DELETE",
    path="calls/{id}",
    summary="Forget a call",
    description="For its owner, and for whoever has `remove_call`. Changes nothing if it is unknown.",
    query={
        **_OF,
        "when": {
            "type": "string",
            "enum": ["settled"],
            "description": "`settled`: forget a call that is pending as soon as it has settled.",
        },
    },
    answers=(
        Answer(status=204, description="There is no such call any more."),
        Answer(status=202, description="There will be none once it has settled.", schema="Accepted"),
    ),
    problems=(problems.PENDING,),
)
ENDPOINTS: Final = (START, READ, RESULT, ABORT, REMOVE)
#: Where the document of all this is served.
DOCUMENT: Final = "openapi.json"
