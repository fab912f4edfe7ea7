"""Reports as bytes, and back: JSON, so that another Python, or somebody with an editor, can read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from lrp_celery.tracking.owned import Note, Settled, Settlement
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import (
    Again,
    AttemptRecorded,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    GivenUp,
    NeverSent,
    NotRun,
    Outcome,
    Published,
    PublishFailed,
    Report,
    RunFacts,
    Started,
    Stopping,
    TerminalRecorded,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import CallStatus, Reason

_KINDS: Final[dict[str, type[Report]]] = {
    kind.__name__: kind
    for kind in (
        *(Enqueued, Waiting, PublishFailed, Published, Started, Ended, Unwound, Stopping, NotRun),
        *(NeverSent, GivenUp, AttemptRecorded, TerminalRecorded, Settled),
    )
}
Reader = Callable[[Any], Any]


def encode(report: Report) -> list[Any]:
    """Return a report as what `to_bytes` can say."""
    turn = report.turn
    place = None if turn is None else [turn.nesting, turn.retries]
    details = _said(report)
    details.pop("call_id")
    details.pop("turn", None)
    return [type(report).__name__, report.call_id, place, details]


def decode(said: Any) -> Report:
    """Return the report of which `encode` returned this; `ValueError` if it is none that this version knows."""
    try:
        kind, call_id, place, details = said
        turn = None if place is None else Turn(*place)
        readers = _READERS[kind]
        # A later version may say more.
        known = {name: readers[name](value) for name, value in details.items() if name in readers}
        return _KINDS[kind](call_id=str(call_id), turn=turn, **known)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"This is no report: {error}") from error


def to_bytes(value: Any) -> bytes:
    """Return JSON as ASCII."""
    return _encoder.encode(value).encode("ascii")


def _said(value: Any) -> dict[str, Any]:
    """Return what differs from the defaults."""
    kind = type(value)
    if kind in _EMPTY_BY_DEFAULT:
        return {name: each for name, each in vars(value).items() if each is not None and each is not False}
    # All at once: a report has many fields, and a task waits for it.
    held = _READING_ALL[kind](value)
    return {
        name: each
        for (name, default), each in zip(_FIELDS[kind], held, strict=True)
        if each is not default and each != default
    }


def _say(value: Any) -> Any:
    """Return as something simpler what JSON cannot say."""
    return value.isoformat() if type(value) is datetime else _said(value)


_encoder: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_say)


def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    # What has no default is always said.
    return tuple((field.name, field.default) for field in fields(kind) if field.init)


_PARTS: Final = (CallFacts, RunFacts, ErrorFacts, Outcome, Settlement, Note, Progress)
_FIELDS: Final = {kind: _defaults(kind) for kind in (*_KINDS.values(), *_PARTS)}


_READING_ALL: Final = {kind: attrgetter(*(name for name, _ in told)) for kind, told in _FIELDS.items()}
#: Of these, which every run tells of, all that is None or False by default, and everything is when it is left out.
_EMPTY_BY_DEFAULT: Final = frozenset({CallFacts, RunFacts})


def _reading(kind: Any, **special: Reader) -> Reader:
    """Return what makes a `kind` of a mapping, and leaves out what it does not know."""
    readers: dict[str, Reader] = {
        name: special.get(name, _instant if name.endswith("_at") else _same) for name, _ in _FIELDS[kind]
    }

    def read(said: Mapping[str, Any] | None) -> Any:
        return (
            None
            if said is None
            else kind(**{name: readers[name](value) for name, value in said.items() if name in readers})
        )

    return read


def _same(value: Any) -> Any:
    return value


def _instant(value: Any) -> datetime:
    return datetime.fromisoformat(value)


_error: Final = _reading(ErrorFacts)
_outcome: Final = _reading(Outcome, status=CallStatus, reason=Reason, error=_error)


def _ending(said: Any) -> Outcome | Again:
    return Again(said) if isinstance(said, str) else _outcome(said)


_note: Final = _reading(Note, progress=_reading(Progress), lines=tuple)
_SPECIAL: Final[dict[str, Reader]] = {
    "facts": _reading(CallFacts),
    "run": _reading(RunFacts),
    "error": _error,
    "outcome": _ending,
    "settlement": _reading(Settlement, outcome=_outcome, said=_note),
    "reason": Reason,
    "status": CallStatus,
    "due_at": _instant,
}
_READERS: Final[dict[str, dict[str, Reader]]] = {
    name: {field: _SPECIAL.get(field, _same) for field, _ in _FIELDS[kind] if field not in {"call_id", "turn"}}
    for name, kind in _KINDS.items()
}
