"""What an answer means: a call's representation, or an error, the same as at home."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn

from lrp_celery.core.codec import Codec
from lrp_celery.core.errors import (
    CallIdConflict,
    CallNotFound,
    CallPending,
    ConfigurationError,
    LrpError,
    NotAllowed,
    NotEncodable,
    StoreError,
)
from lrp_celery.procedures import failures
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.http.wire import Answer
from lrp_celery.procedures.state import CallState
from lrp_celery.tracking.snapshot import CallSnapshot, Progress
from lrp_celery.tracking.status import CallStatus, Reason

_PROBLEM: Final = "application/problem+json"
_PREFIX: Final = "urn:lrp-celery:"
_INSTANTS: Final = (
    "enqueued_at",
    "started_at",
    "updated_at",
    "terminal_at",
    "deadline_at",
    "expires_at",
    "purge_at",
    "abort_requested_at",
)
#: What every call tells, and what it tells if there is something to tell.
_THERE: Final = {"id": str, "procedure": str, "status": str, "done": bool}
_MAYBE: Final = ("abort", "error", "progress")
#: By kind of problem: what is raised, of its detail and the call's id.
_ERRORS: Final[Mapping[str, Callable[[str, str | None], Exception]]] = {
    "not-authenticated": lambda detail, call_id: NotAllowed(detail),
    "forbidden": lambda detail, call_id: NotAllowed(detail),
    "csrf": lambda detail, call_id: NotAllowed(detail),
    "no-such-procedure": lambda detail, call_id: ConfigurationError(detail),
    "no-such-call": lambda detail, call_id: CallNotFound(call_id=call_id),
    "call-pending": lambda detail, call_id: CallPending(call_id=call_id),
    "id-conflict": lambda detail, call_id: CallIdConflict(call_id=call_id),
    "too-large": lambda detail, call_id: NotEncodable(detail),
    # As where the function is called with what it does not take.
    "invalid": lambda detail, call_id: TypeError(detail),
    "unavailable": lambda detail, call_id: StoreError(detail),
}


def body_of(answer: Answer, call_id: str | None) -> Mapping[str, Any]:
    """Return the members of a good answer; raise what any other one says."""
    if answer.status is None or not 200 <= answer.status < 300:  # noqa: PLR2004 - what is good, says HTTP
        _raise(answer, call_id)
    if not answer.said:
        return {}
    return _members(answer)


def call_of(answer: Answer, call_id: str | None) -> Mapping[str, Any]:
    """Return the call that a good answer tells of; raise what any other one says."""
    call = body_of(answer, call_id)
    are_there = all(isinstance(call.get(name), kind) for name, kind in _THERE.items())
    if not are_there or not all(isinstance(call.get(name, {}), dict | None) for name in _MAYBE):
        raise _strange(answer)
    return call


def id_of(answer: Answer, call_id: str) -> str:
    """Return the id of the call that a good answer says is made; raise what any other one says."""
    made = body_of(answer, call_id).get("id")
    if not isinstance(made, str):
        raise _strange(answer)
    return made


def state(call: Mapping[str, Any]) -> CallState:
    """Return whether the call has settled."""
    return CallState.of(_status(call))


def outcome(call: Mapping[str, Any], returns: Codec, raises: Iterable[type[BaseException]]) -> Any:
    """Return what a call that has ended returned, or raise what became of it."""
    status, call_id = _status(call), str(call["id"])
    if status is CallStatus.SUCCEEDED:
        return None if call.get("result") is None else returns.decode(call["result"], where="result")
    error: Mapping[str, Any] = call.get("error") or {}
    said = (call.get("abort") or {}).get("reason") if status is CallStatus.ABORTED else error.get("message")
    told = {"type": error.get("type"), "message": said, "args": error.get("args")}
    stored = StoredError.from_json(json.dumps({name: value for name, value in told.items() if value is not None}))
    raised = failures.of_outcome(status, call.get("reason"), call_id=call_id, error=stored, raises=raises)
    raise raised or LrpError(f"Call {call_id!r:.220} ended in no known way.")


def release(call: Mapping[str, Any]) -> None:
    """Raise what waiters get as soon as somebody has asked for the end of an open call; nobody has: nothing."""
    abort = call.get("abort")
    if abort is not None:
        cause = Reason.TIMEOUT if abort.get("is_timeout") else Reason.ABORTED
        raise failures.of_abort(cause, abort.get("reason"), str(call["id"]))


def snapshot(call: Mapping[str, Any]) -> CallSnapshot:
    """Return what is told of a call; where it runs is not."""
    try:
        return _snapshot(call)
    except (KeyError, TypeError, ValueError):
        raise _unheard_of(call) from None


def _snapshot(call: Mapping[str, Any]) -> CallSnapshot:
    error: Mapping[str, Any] = call.get("error") or {}
    progress = call.get("progress")
    instants: dict[str, Any] = {name: _instant(call.get(name)) for name in _INSTANTS}
    return CallSnapshot(
        call_id=call["id"],
        task=call["procedure"],
        status=_status(call),
        reason=call.get("reason"),
        retries=call.get("retries", 0),
        attempt=call.get("attempt", 0),
        target_summary=call.get("target_summary"),
        owner=call.get("owner"),
        last_error=error.get("message"),
        error_type=error.get("type"),
        rerun_of=call.get("rerun_of"),
        progress=None if progress is None else Progress(**{name: progress[name] for name in ("done", "total", "text")}),
        **instants,
    )


def _raise(answer: Answer, call_id: str | None) -> NoReturn:
    if answer.media_type != _PROBLEM:
        raise _strange(answer)
    problem = _members(answer)
    kind = str(problem.get("type", "")).removeprefix(_PREFIX)
    detail = str(problem.get("detail") or problem.get("title") or "It does not say why.")
    make = _ERRORS.get(kind)
    raise make(detail, call_id) if make is not None else LrpError(f"The server refuses ({answer.status}): {detail}")


def _members(answer: Answer) -> Mapping[str, Any]:
    try:
        members = json.loads(answer.said)
    except (ValueError, RecursionError):
        raise _strange(answer) from None
    if not isinstance(members, dict):
        raise _strange(answer)
    return members


def _strange(answer: Answer) -> LrpError:
    kind = StoreError if answer.status is not None and answer.status >= 500 else ConfigurationError  # noqa: PLR2004 - the server's fault, says HTTP
    return kind(
        f"The server answers {answer.status} with {answer.media_type or 'nothing'}, as no API of procedures does: is "
        "base_url where it is mounted, and nothing else in between, such as a page to log in?"
    )


def _status(call: Mapping[str, Any]) -> CallStatus:
    try:
        return CallStatus(call["status"])
    except ValueError:
        raise _unheard_of(call) from None


def _unheard_of(call: Mapping[str, Any]) -> LrpError:
    return LrpError(f"The server tells of a call what this version does not understand: {call!r:.300}")


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
