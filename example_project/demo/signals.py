"""Being asked to stop: handlers take a note, and the main loop reads it when it is ready."""

import signal
from types import FrameType

from .errors import StopRequested


class StopRequest:
    """The first signal that asked the demo to stop, if one came."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def listen(self) -> None:
        """Take note of Ctrl-C, SIGTERM and a closed terminal from now on."""
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to be left alone
            signal.signal(signal.SIGHUP, self._note)

    def ignore(self) -> None:
        """Ignore those signals from now on: there is nothing left to stop.

        Python gives SIGINT back to the system at the very end of a process, and an impatient
        second Ctrl-C would then look like a crash.
        """
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)

    def check(self) -> None:
        """Raise StopRequested if a signal came."""
        if self.signum is not None:
            raise StopRequested

    # No lock and no event: a handler may interrupt the very code that holds their lock.
    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
