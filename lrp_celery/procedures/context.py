"""The call that this code runs in."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.procedures.reporter import Reporter, Unkept
from lrp_celery.procedures.signal import AbortSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentCall:
    """One run of a call, as its own code sees it."""

    id: str
    """The call's id, which is the Celery task id; empty where the function was called in place."""
    attempt: int
    """The number of this run, from 1."""
    signal: AbortSignal
    """Raised when the call is to end."""
    deadline: datetime | None
    """When its timeout passes, in UTC; None: it has none."""
    reporter: Reporter = field(repr=False)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the call is: `done` of `total` (None: unknown), and a few words.

        Cheap and safe to call often: it is written at most twice a second, outside of your
        transactions, and the last word with the outcome. Not promised: that each step is seen.
        A number that is none is a `ConfigurationError`.
        """
        self.reporter.progress(_number(done, "done"), None if total is None else _number(total, "total"), text)

    def log(self, text: str) -> None:
        """Keep a line with the call: at most 1000 of them, 1000 characters each, secrets hidden.

        Written as `progress` is; lines that a kill of the process catches unwritten (half a second) are lost.
        """
        self.reporter.log(text)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigurationError(f"{name} is {value!r:.100}: pass a number.")
    return value


_current: Final[ContextVar[CurrentCall | None]] = ContextVar("lrp_celery_current_call", default=None)


def current_call() -> CurrentCall:
    """Return the call that this code runs in; `ConfigurationError` outside of a procedure's run."""
    current = _current.get()
    if current is None:
        raise ConfigurationError("No procedure runs here: current_call() is for code that a procedure's call runs.")
    return current


@contextlib.contextmanager
def in_place(signal: AbortSignal) -> Iterator[None]:
    """Let code that is called like any function, and not as a call, run in a context of its own: its id is empty."""
    token = entered(CurrentCall(id="", attempt=1, signal=signal, deadline=None, reporter=Unkept()))
    try:
        yield
    finally:
        left(token)


def entered(call: CurrentCall | None) -> object:
    """Let `current_call` return `call` in this context; pass the answer to `left`."""
    return _current.set(call)


def left(token: object) -> None:
    """Undo `entered`."""
    _current.reset(token)  # type: ignore[arg-type]
