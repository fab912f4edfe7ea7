"""How an exception is kept, and raised again in another process.

Kept are its type's name, what it says, where it was raised, and its arguments if they are
plain and hide nothing. Raised again is a builtin, or what the caller has named; everything
else becomes a `CallFailed`. Nothing is unpickled, and no name is imported.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from lrp_celery.core import codec
from lrp_celery.core.errors import CallAborted, CallDiscarded, CallFailed, CallTimedOut, NotDecodable
from lrp_celery.core.redaction import Redactor
from lrp_celery.core.text import dotted_name
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import ErrorFacts
from lrp_celery.tracking.status import CallStatus, Reason, require_terminal
from lrp_celery.tracking.store import MAX_ERROR

#: These would end a loop or a coroutine of the caller's, instead of being an error.
_NEVER: Final = (StopIteration, StopAsyncIteration)
_MOST_ARGS: Final = 10
_WHY: Final[Mapping[str, str]] = {
    Reason.WORKER_LOST: "the worker that ran it died; it was not run again, for it is not idempotent or was lost too often",
    Reason.BAD_RESULT: "its result has no JSON form, or is too large",
    Reason.TIME_LIMIT: "it ran into a time limit of its task",
    Reason.UNKNOWN_TASK: "no worker knows its task",
    Reason.EXPIRED: "it had not begun when it expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredError:
    """An exception as JSON: bounded, and without what is secret."""

    type: str | None = None
    """The dotted name of its class; builtins by their bare name."""
    message: str | None = None
    args: tuple[Any, ...] | None = None
    """What its class is called with to make it again; None: that is not known."""
    traceback: str | None = None

    @classmethod
    def of(
        cls,
        exception: BaseException,
        facts: ErrorFacts,
        redactor: Redactor | None = None,
        secrets: frozenset[str] = frozenset(),
    ) -> Self:
        """Keep `exception`, whose texts are `facts`; without a redactor its arguments are not kept."""
        args = None if redactor is None else _args(exception, redactor, secrets)
        return cls(type=facts.type, message=facts.message, args=args, traceback=facts.traceback)

    @classmethod
    def of_facts(cls, facts: ErrorFacts) -> Self:
        """Keep what is known of an exception that is not at hand."""
        return cls(type=facts.type, message=facts.message, traceback=facts.traceback)

    def to_json(self) -> str:
        """Return the form in which stores keep it."""
        return codec.dumps({name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Return what `to_json` wrote, None for None; `NotDecodable` if this is no such text."""
        if text is None:
            return None
        stored = codec.loads(text)
        if not isinstance(stored, dict):
            raise NotDecodable("This is no stored error.")
        # What a later version adds is left out.
        known = {each.name: stored[each.name] for each in fields(cls) if each.name in stored}
        found: Self = codec.decode(known, cls, where="stored error")
        return found


def raise_again(
    error: StoredError | None,
    raises: Iterable[type[BaseException]] = (),
    call_id: str | None = None,
    *,
    reason: str | None = None,
) -> Exception:
    """Return the exception to be raised for a call that failed with `error`.

    Of its original type if that is a builtin or one of `raises` (matched by dotted name) and
    can be made again; its `__cause__` then is the `CallFailed` that otherwise is returned.
    """
    stored = error or StoredError()
    failed = CallFailed(
        stored.message or _WHY.get(reason or ""),
        call_id=call_id,
        reason=reason and str(reason),
        type=stored.type,
        traceback=stored.traceback,
    )
    original = _made_again(stored, raises)
    if original is None:
        return failed
    original.__cause__ = failed
    return original


def of_outcome(
    status: CallStatus | str,
    reason: Reason | str | None = None,
    *,
    call_id: str | None = None,
    error: StoredError | None = None,
    raises: Iterable[type[BaseException]] = (),
) -> Exception | None:
    """Return what `get_result` raises for a call that ended so; None: it succeeded.

    Of an abort, `error.message` is what whoever asked for it said. An open status is `InvalidStatus`.
    """
    reason = None if reason is None else str(reason)
    said = None if error is None else error.message
    match require_terminal(status):
        case CallStatus.SUCCEEDED:
            return None
        case CallStatus.ABORTED:
            return of_abort(reason, said, call_id)
        case CallStatus.DISCARDED:
            return CallDiscarded(said or _WHY.get(reason or ""), call_id=call_id, reason=reason)
    return raise_again(error, raises, call_id, reason=reason)


def of_abort(reason: Reason | str | None, said: str | None, call_id: str | None) -> CallAborted:
    """Return what is raised for a call whose end was asked for, or whose time ran out, in the words of whoever asked."""
    kind = CallTimedOut if reason == Reason.TIMEOUT else CallAborted
    return kind(said, call_id=call_id, reason=str(reason or Reason.ABORTED))


def of_record(record: CallRecord, kept: str | None, raises: Iterable[type[BaseException]] = ()) -> Exception | None:
    """Return what `get_result` raises for an ended call; `kept` is its `StoredError` as JSON, if there is one.

    Where none was kept, the row's own words stand in.
    """
    error = _readable(kept) or StoredError(type=record.error_type, message=record.last_error)
    if record.status is CallStatus.ABORTED:
        error = StoredError(message=record.abort_reason)
    return of_outcome(record.status, record.reason, call_id=record.call_id, error=error, raises=raises)


def _readable(kept: str | None) -> StoredError | None:
    try:
        return StoredError.from_json(kept)
    except NotDecodable:
        return None


def _args(exception: BaseException, redactor: Redactor, secrets: frozenset[str]) -> tuple[Any, ...] | None:
    """Return what makes such an exception again, if that is plain, short and hides nothing."""
    try:
        # An OSError's file name is not among its args.
        args = tuple(exception.__reduce__()[1] if _builtin(dotted_name(type(exception))) else exception.args)
    except Exception:  # noqa: BLE001 - an exception's own methods may raise anything
        return None
    if len(args) == 1 and type(args[0]) is str:
        return (redactor.text(args[0], secrets, MAX_ERROR),)
    if len(args) > _MOST_ARGS or not all(_is_plain(value) for value in args):
        return None
    # One by one, and as they stand beside each other: `("password", "x")` is no secret, `("password=", "x")` may be.
    shown = [*map(str, args), repr(args)]
    return args if all(redactor.text(text, secrets, MAX_ERROR) == text for text in shown) else None


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    return type(value) in {type(None), bool, int, str}


def _made_again(error: StoredError, raises: Iterable[type[BaseException]]) -> Exception | None:
    kind = _allowed(error.type, raises)
    if kind is None or error.args is None:
        return None
    try:
        original = kind(*error.args)
    except Exception:  # noqa: BLE001 - a class may refuse its own args in any way
        return None
    return original if isinstance(original, kind) else None


def _allowed(name: str | None, raises: Iterable[type[BaseException]]) -> type[Exception] | None:
    if name is None:
        return None
    named = {dotted_name(kind): kind for kind in raises if issubclass(kind, Exception) and not issubclass(kind, _NEVER)}
    return named.get(name) or _builtin(name)


def _builtin(name: str) -> type[Exception] | None:
    kind = vars(builtins).get(name)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _NEVER else None
