"""The error tree: every error that lrp_celery raises derives from `LrpError`.

    LrpError
    ├── CallNotFound
    ├── CallPending
    ├── CallRejected
    │   ├── CallFailed
    │   ├── CallAborted
    │   │   └── CallTimedOut
    │   └── CallDiscarded
    ├── ResultTimeout        (also a TimeoutError)
    ├── CallNotCommitted
    ├── CallIdConflict
    ├── NotRerunnable
    ├── CalledInTask         (also a RuntimeError)
    ├── PublishFailed
    ├── NotAllowed           (also a PermissionError)
    ├── NotEncodable         (also a TypeError)
    ├── NotDecodable         (also a ValueError)
    ├── ConfigurationError   (also a TypeError)
    ├── InvalidStatus        (also a ValueError)
    └── StoreError
        └── StoreUnavailable

The docstring of a class is its default message. All survive pickling and copying.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import ClassVar


class LrpError(Exception):
    """lrp_celery could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or _default(type(self)))


class _CallError(LrpError):
    """This cannot be done with that call."""

    def __init__(self, message: str | None = None, *, call_id: str | None = None) -> None:
        if message is None and call_id is not None:
            message = f"Call {call_id!r:.220}: {_default(type(self))}"
        super().__init__(message)
        self.call_id = call_id


class CallNotFound(_CallError):
    """There is no such call: it was never made, or has been removed or purged, or is no call of this procedure."""


class CallPending(_CallError):
    """The call has not settled yet; wait for it with get_result(), or abort() it first."""


class CallRejected(_CallError):
    """The call ended without a result."""

    #: What befell the call, in the sentence that begins with its id.
    _fate: ClassVar[str] = "ended without a result"
    #: Reasons that the sentence has said already.
    _said: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        message: str | None = None,
        *,
        call_id: str | None = None,
        reason: str | None = None,
        type: str | None = None,  # noqa: A002 - the attribute's name is the contract
        traceback: str | None = None,
    ) -> None:
        super().__init__(self._sentence(call_id, reason, ": ".join(filter(None, (type, message)))), call_id=call_id)
        self.message = message
        """What the exception said, or whoever ended the call; None if nothing is known."""
        self.reason = reason
        """Why it ended (`lrp_celery.tracking.status.Reason`), where that is not just an exception."""
        self.type = type
        """The dotted name of the exception's class, if there was an exception."""
        self.traceback = traceback
        """Where it was raised, in the worker; text."""

    def _sentence(self, call_id: str | None, reason: str | None, details: str) -> str | None:
        if call_id is None:
            return details or None
        why = f" ({reason})" if reason is not None and reason not in self._said else ""
        return f"Call {call_id!r:.220} {self._fate}{why}" + (f": {details}" if details else ".")


class CallFailed(CallRejected):
    """The procedure raised, or was lost; `type`, `message` and `traceback` tell what is known."""

    _fate = "failed"


class CallAborted(CallRejected):
    """The call was aborted: somebody asked for its end."""

    _fate = "was aborted"
    _said = frozenset({"aborted"})


class CallTimedOut(CallAborted):
    """The call was aborted: its own timeout, counted from the call, has passed."""

    _fate = "was aborted, its timeout has passed"
    _said = frozenset({"timeout"})


class CallDiscarded(CallRejected):
    """The call never ran to an end: it expired, or was revoked, rejected, ignored or lost."""

    _fate = "was discarded"


class ResultTimeout(_CallError, TimeoutError):
    """The call did not settle within the time given; it goes on, and get_result() may be asked again."""


class CallNotCommitted(_CallError):
    """Only this open transaction sees the call, so nothing can run it: wait for it after the commit."""


class CallIdConflict(_CallError):
    """This id is taken by a call of another task or owner; choose another call_id, or leave it out."""


class NotRerunnable(_CallError):
    """The call cannot be run again: it is open, or its arguments were not kept (see the setting PAYLOAD)."""


class CalledInTask(LrpError, RuntimeError):
    """Waiting for a call inside a task can block every worker; chain the two, or pass allow_in_task=True."""


class PublishFailed(_CallError):
    """The broker did not take the message; it may be called again, under the same id."""

    def __init__(
        self,
        message: str | None = None,
        *,
        call_id: str | None = None,
        published: Sequence[str] = (),
        uncertain: Sequence[str] = (),
        unpublished: Sequence[str] = (),
    ) -> None:
        super().__init__(message, call_id=call_id)
        self.published = tuple(published)
        """Of many, the ids of the calls whose messages went out."""
        self.uncertain = tuple(uncertain)
        """Those whose messages may have gone out: the connection broke before the broker said so."""
        self.unpublished = tuple(unpublished)
        """Those whose messages did not go out."""


class NotAllowed(LrpError, PermissionError):
    """The service does not know who asks, or does not let them do this."""


class NotEncodable(LrpError, TypeError):
    """This value has no JSON form."""


class NotDecodable(LrpError, ValueError):
    """This JSON is not what is expected here."""


class ConfigurationError(LrpError, TypeError):
    """A setting or an option of lrp_celery is wrong."""


class InvalidStatus(LrpError, ValueError):
    """This operation does not accept a status of that kind (TRK-12, TRK-16)."""


class StoreError(LrpError):
    """The store could not be read or written."""


class StoreUnavailable(StoreError):
    """The store does not answer, or has no time: later it may."""


def _default(kind: type[LrpError]) -> str:
    return inspect.getdoc(kind) or kind.__name__
