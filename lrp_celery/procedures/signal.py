"""How a run learns that it is to end: the abort signal, and who raises it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from lrp_celery.core.errors import CallAborted, CallTimedOut


class AbortSignal:
    """Tells a procedure, or whoever waits for one, that it should end (LRP-01).

    Made by an `AbortController`, or handed to a procedure by its worker. Safe for threads.
    It is raised once, and stays raised.
    """

    def __init__(self) -> None:
        self._raised = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._reason: str | None = None
        self._timed_out = False

    @property
    def aborted(self) -> bool:
        """Whether somebody has asked for the end."""
        return self._raised.is_set()

    @property
    def reason(self) -> str | None:
        """Why, in the words of whoever asked; `"timeout"` when time ran out; None: not asked, or without a word."""
        return self._reason

    def raise_if_aborted(self) -> None:
        """Raise `CallAborted` (`CallTimedOut` when time ran out) if somebody has asked for the end."""
        if self.aborted:
            raise self.error()

    def error(self, call_id: str | None = None) -> CallAborted:
        """Return what whoever obeys the signal raises: its `message` is the reason in the words of whoever asked."""
        kind, reason = (CallTimedOut, "timeout") if self._timed_out else (CallAborted, "aborted")
        return kind(self._reason, call_id=call_id, reason=reason)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until somebody asks for the end, at most for `seconds` (None: for ever); return whether somebody did.

        Sleep by this instead of `time.sleep`, and an abort wakes you.
        """
        return self._raised.wait(seconds)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` once when the signal is raised within the context; at once if it is raised already."""
        with self._lock:
            is_raised = self.aborted
            if not is_raised:
                self._listeners.append(listener)
        if is_raised:
            listener()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._listeners.remove(listener)

    def _raise(self, reason: str | None, *, timed_out: bool) -> None:
        with self._lock:
            if self.aborted:
                return
            self._reason, self._timed_out = reason, timed_out
            self._raised.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


class AbortController:
    """Raises the signal that it makes; whoever holds only the signal cannot."""

    def __init__(self) -> None:
        self._signal = AbortSignal()

    @property
    def signal(self) -> AbortSignal:
        """The signal to hand out."""
        return self._signal

    def abort(self, reason: str | None = None, *, timed_out: bool = False) -> None:
        """Raise the signal; a second time changes nothing. `timed_out`: nobody asked, time ran out."""
        self._signal._raise("timeout" if timed_out and reason is None else reason, timed_out=timed_out)  # noqa: SLF001 - its own half


#: For code that runs outside a call: a signal that nobody can raise.
def never() -> AbortSignal:
    """Return a signal that is never raised."""
    return AbortSignal()
