"""What readers learn of a call: one table for the answers and for their schema.

Where it runs (hosts, workers, queues) is left out: callers need not know, and may be outsiders.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from django_app.api.schemas import Schema
from lrp_celery.core import codec
from lrp_celery.core.errors import CallRejected, NotDecodable
from lrp_celery.procedures import failures
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.state import CallState
from lrp_celery.tracking.callstore import Payload
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.status import CallStatus, Reason

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_INSTANT: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One member of a call's representation."""

    name: str
    of: Callable[[CallRecord], Any]
    schema: Schema


def _instant(name: str, words: str) -> Shown:
    def of(record: CallRecord) -> str | None:
        at: datetime | None = getattr(record, name)
        return None if at is None else at.astimezone(UTC).isoformat()

    return Shown(name, of, {**_INSTANT, "description": words})


def _progress(record: CallRecord) -> dict[str, Any] | None:
    progress = record.progress
    return None if progress is None else {"done": progress.done, "total": progress.total, "text": progress.text}


def _abort(record: CallRecord) -> dict[str, Any] | None:
    if record.abort_requested_at is None and record.status is not CallStatus.ABORTED:
        return None
    cause = record.reason if record.status.is_terminal else record.stop_reason
    return {"reason": record.abort_reason, "is_timeout": cause == Reason.TIMEOUT}


SHOWN: Final = (
    Shown("id", lambda record: record.call_id, {**_TEXT, "description": "The id of the call."}),
    Shown("procedure", lambda record: record.task, {**_TEXT, "description": "The name of its task."}),
    Shown(
        "state",
        lambda record: CallState.of(record.status).value,
        {**_TEXT, "enum": [state.value for state in CallState], "description": "What a caller needs to know."},
    ),
    Shown(
        "status",
        lambda record: record.status.value,
        {**_TEXT, "enum": [status.value for status in CallStatus], "description": "Where it stands in detail."},
    ),
    Shown(
        "done", lambda record: record.status.is_terminal, {"type": "boolean", "description": "Whether it has ended."}
    ),
    Shown(
        "reason",
        lambda record: record.reason and str(record.reason),
        {**_TEXT_OR_NULL, "description": "Why it ended so, where that is not just an exception."},
    ),
    Shown("attempt", lambda record: record.attempt, {**_COUNT, "description": "The newest run, counted from 1."}),
    Shown("retries", lambda record: record.retries, _COUNT),
    Shown("owner", lambda record: record.owner, {**_TEXT_OR_NULL, "description": "The user name of its owner."}),
    Shown(
        "target_summary",
        lambda record: record.target_summary,
        {**_TEXT_OR_NULL, "description": "Its arguments, shortened, and redacted by key."},
    ),
    Shown("rerun_of", lambda record: record.rerun_of, {**_TEXT_OR_NULL, "description": "The call that it repeats."}),
    Shown(
        "progress",
        _progress,
        {
            "type": ["object", "null"],
            "properties": {"done": {"type": "number"}, "total": {"type": ["number", "null"]}, "text": _TEXT},
            "required": ["done", "total", "text"],
            "additionalProperties": False,
            "description": "How far it says that it is.",
        },
    ),
    Shown(
        "abort",
        _abort,
        {
            "type": ["object", "null"],
            "properties": {"reason": _TEXT_OR_NULL, "is_timeout": {"type": "boolean"}},
            "required": ["reason", "is_timeout"],
            "additionalProperties": False,
            "description": "Not null since somebody has asked for its end, or its timeout has passed.",
        },
    ),
    _instant("enqueued_at", "When it was called."),
    _instant("started_at", "When its newest run began."),
    _instant("updated_at", "When its row was written last."),
    _instant("terminal_at", "When it ended."),
    _instant("deadline_at", "When its timeout passes."),
    _instant("expires_at", "Before when it must begin."),
    _instant("purge_at", "When it is forgotten."),
    _instant("abort_requested_at", "When somebody asked for its end."),
)
#: For those only who may read the payload: members that are not always there.
RESULT: Final[Schema] = {
    "description": "What it returned: of a call that has succeeded, for its owner and for whoever has `view_payload`."
}
ERROR: Final[Schema] = {
    "type": "object",
    "properties": {
        "type": {**_TEXT_OR_NULL, "description": "The dotted name of the exception; builtins by their bare name."},
        "message": {
            **_TEXT_OR_NULL,
            "description": "What it said, or whoever ended the call; null: nothing more is known.",
        },
        "args": {
            "type": "array",
            "items": {},
            "description": "What the exception was made with, if that is plain; where `result` would be shown.",
        },
    },
    "required": ["type", "message"],
    "additionalProperties": False,
    "description": "Why there is no result: of a call that has ended otherwise.",
}
SCHEMA: Final[Schema] = {
    "type": "object",
    "properties": {**{shown.name: shown.schema for shown in SHOWN}, "result": RESULT, "error": ERROR},
    "required": [shown.name for shown in SHOWN],
    "additionalProperties": False,
}


def represent(record: CallRecord, payload: Payload | None) -> dict[str, Any]:
    """Return a call as its readers see it; `payload` None: this one may not see its result."""
    shown = {each.name: each.of(record) for each in SHOWN}
    if not record.status.is_terminal:
        return shown
    if record.status is not CallStatus.SUCCEEDED:
        shown["error"] = _error(record, None if payload is None else payload.error)
    elif payload is not None:
        shown["result"] = None if payload.result is None else codec.loads(payload.result)
    return shown


def etag_of(record: CallRecord, *, with_payload: bool) -> str:
    """Return the entity tag; a result does not change once it is there, so it need not be read for this."""
    seen = json.dumps([represent(record, None), with_payload], sort_keys=True)
    return f'W/"{sha256(seen.encode()).hexdigest()[:32]}"'


def _error(record: CallRecord, kept: str | None) -> dict[str, Any]:
    raised = failures.of_record(record, kept)
    # One that could be raised again as itself brings along what is told of it.
    told = raised if isinstance(raised, CallRejected) else getattr(raised, "__cause__", None)
    assert isinstance(told, CallRejected)  # noqa: S101 - it has not succeeded
    error: dict[str, Any] = {"type": told.type, "message": told.message}
    args = None if kept is None else _args(kept)
    if args is not None:
        error["args"] = list(args)
    return error


def _args(kept: str) -> tuple[Any, ...] | None:
    try:
        stored = StoredError.from_json(kept)
    except NotDecodable:
        return None
    return None if stored is None else stored.args
