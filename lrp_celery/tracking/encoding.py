"""Records as text, for stores that have no columns: JSON, ASCII, microsecond-exact instants.

A reader ignores names that it does not know, so that processes of two versions can share a
store while they are being upgraded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus, Reason

R = TypeVar("R", CallRecord, AttemptRecord)


def encode(record: CallRecord | AttemptRecord) -> str:
    """Return the JSON text of a record; `None` is left out."""
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return json.dumps({name: _plain(value) for name, value in values if value is not None}, separators=(",", ":"))


def decode_call(text: str) -> CallRecord:
    """Return the call that `encode` wrote; `ValueError` if this is no such text."""
    return _decode(CallRecord, text)


def decode_attempt(text: str) -> AttemptRecord:
    """Return the run that `encode` wrote; `ValueError` if this is no such text."""
    return _decode(AttemptRecord, text)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Progress():
            return value.to_json()
        case StrEnum():
            return value.value
    return value


def _decode(kind: type[R], text: str) -> R:
    readers = _READERS[kind]
    stored = json.loads(text)
    try:
        return kind(**{name: readers[name](value) for name, value in stored.items() if name in readers})
    except (AttributeError, TypeError) as error:
        raise ValueError(f"This is no {kind.__name__}: {error}") from error


def _same(value: Any) -> Any:
    return value


def _reader(name: str, special: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return special.get(name, datetime.fromisoformat if name.endswith("_at") else _same)


_CALL = {
    "lease_until": datetime.fromisoformat,
    "status": CallStatus,
    "reason": Reason,
    "stop_reason": Reason,
    "run_outcome": AttemptOutcome,
    "progress": Progress.from_json,
}
_READERS: dict[type[Any], dict[str, Callable[[Any], Any]]] = {
    CallRecord: {field.name: _reader(field.name, _CALL) for field in fields(CallRecord)},
    AttemptRecord: {field.name: _reader(field.name, {"outcome": AttemptOutcome}) for field in fields(AttemptRecord)},
}
