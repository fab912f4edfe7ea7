"""The store of seed 000: what is known of a call is one item, and nothing else.

A bare `Store` has no claim and no fence, so it serves procedures that run in this process
(`lrp_celery.procedures.local`). Procedures across processes stand on a
`lrp_celery.tracking.callstore.CallStore`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

from lrp_celery.core import codec
from lrp_celery.core.clock import Clock, SystemClock
from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import CallAborted, CallDiscarded, CallTimedOut, NotDecodable
from lrp_celery.core.redaction import DEFAULT_REDACT, Redactor
from lrp_celery.core.text import dotted_name
from lrp_celery.procedures import failures
from lrp_celery.procedures.failures import StoredError
from lrp_celery.tracking.outcomes import error_facts
from lrp_celery.tracking.store import require_id

if TYPE_CHECKING:
    from lrp_celery.procedures.redis import RedisStore

__all__ = ["Item", "MemoryStore", "Pending", "RedisStore", "Rejected", "Resolved", "Store"]


@dataclass(frozen=True, slots=True)
class Pending:
    """The call is to run, or runs."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The call returned `value`, None included."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The call ended without a result; `error` says why."""

    error: StoredError

    @classmethod
    def of(cls, exception: BaseException) -> Rejected:
        """Keep `exception` as text, bounded and redacted, and what makes it again, if that is plain."""
        if type(exception) in {CallAborted, CallTimedOut, CallDiscarded}:
            return cls(StoredError(type=dotted_name(type(exception)), message=getattr(exception, "message", None)))
        text = "".join(traceback.format_exception(exception))
        return cls(StoredError.of(exception, error_facts(exception, text, _REDACTOR), redactor=_REDACTOR))

    def exception(self, raises: Iterable[type[BaseException]] = (), call_id: str | None = None) -> Exception:
        """Return a new exception to be raised for it: of its own type if that is a builtin or in `raises`.

        Of an abort, `CallAborted` or `CallTimedOut`; of anything else, `CallFailed`. Nothing is
        unpickled, and no name is imported.
        """
        ended = _ENDED.get(self.error.type or "")
        if ended is not None:
            kind, reason = ended
            return kind(self.error.message, call_id=call_id, reason=reason)
        return failures.raise_again(self.error, raises, call_id)


_REDACTOR: Final = Redactor(DEFAULT_REDACT)
Item: TypeAlias = Pending | Resolved | Rejected
_ENDED: Final[dict[str, tuple[type[CallAborted | CallDiscarded], str | None]]] = {
    dotted_name(CallAborted): (CallAborted, "aborted"),
    dotted_name(CallTimedOut): (CallTimedOut, "timeout"),
    dotted_name(CallDiscarded): (CallDiscarded, None),
}


@runtime_checkable
class Store(Protocol):
    """One item for each call, by its id (LRP-30 to LRP-33). Each method may be called from any thread.

    Values come back as JSON and their own marks carry them (`lrp_celery.core.codec`), never as
    the objects that were put in: a tuple is a list then. `NotEncodable`: a value has no JSON form.
    `StoreError`: the store cannot be reached. `ConfigurationError`: the id cannot be one.
    Not promised: that two writers at once are told of each other; the last one wins.
    """

    def set(self, id: str, item: Item, ttl: timedelta | float | None = None) -> None:  # noqa: A002 - the seed's name
        """Keep `item`, in place of the one that was there, and of its expiry (LRP-31, LRP-32).

        `ttl`: for how long, in seconds or as a timedelta; None: until it is deleted. Zero and
        negative ones are a `ConfigurationError` (LRP-28).
        """
        ...

    def get(self, id: str) -> Item | None:  # noqa: A002 - the seed's name
        """Return the item; None: there is none, or its time is over, swept up or not (LRP-31, LRP-33)."""
        ...

    def delete(self, id: str) -> None:  # noqa: A002 - the seed's name
        """Forget the item; nothing happens if there is none (LRP-31)."""
        ...


class MemoryStore:
    """A `Store` that other processes do not see and that ends with this one.

    `clock` tells its time (default: the host's). What has expired is dropped when it is asked
    for, and when the number of items has doubled since it was last looked through.
    """

    _FEW: Final = 1000

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._items: dict[str, tuple[str, datetime | None]] = {}
        self._sweep_at = self._FEW

    def set(self, id: str, item: Item, ttl: timedelta | float | None = None) -> None:  # noqa: A002 - see Store
        """Keep `item`, in place of the one that was there."""
        require_id(id)
        text, live, now = to_text(item), seconds(ttl, "ttl"), self._clock.now()
        with self._lock:
            self._items[id] = text, None if live is None else now + timedelta(seconds=live)
            if len(self._items) > self._sweep_at:
                self._sweep(now)

    def get(self, id: str) -> Item | None:  # noqa: A002 - see Store
        """Return the item, or None."""
        require_id(id)
        with self._lock:
            text, expires_at = self._items.get(id, (None, None))
            if expires_at is not None and expires_at <= self._clock.now():
                del self._items[id]
                return None
        return None if text is None else from_text(text)

    def delete(self, id: str) -> None:  # noqa: A002 - see Store
        """Forget the item."""
        require_id(id)
        with self._lock:
            self._items.pop(id, None)

    def _sweep(self, now: datetime) -> None:
        kept = {id_: kept for id_, kept in self._items.items() if kept[1] is None or kept[1] > now}
        self._items = kept
        self._sweep_at = max(self._FEW, 2 * len(kept))


def to_text(item: Item) -> str:
    """Return the form in which stores keep an item: JSON."""
    match item:
        case Resolved(value):
            return codec.dumps(["resolved", codec.encode(value)])
        case Rejected(error):
            return codec.dumps(["rejected", error.to_json()])
    return codec.dumps(["pending"])


def from_text(text: str) -> Item:
    """Return what `to_text` wrote; `NotDecodable` if this is no such text (LRP-10)."""
    match codec.loads(text):
        case ["pending"]:
            return Pending()
        case ["resolved", tree]:
            return Resolved(codec.decode(tree))
        case ["rejected", str(stored)] if (error := StoredError.from_json(stored)) is not None:
            return Rejected(error)
    raise NotDecodable("This is no item of a store.")


def __getattr__(name: str) -> Any:
    # redis-py is an extra: whoever does not use its store need not have it.
    if name == "RedisStore":
        from lrp_celery.procedures.redis import RedisStore

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
