"""How a drainer that sleeps is woken: whoever has written looks at a flag, and only then rings.

The flag lies in memory that all processes of a worker share, so that looking costs nothing; under load the
drainer does not sleep, and nobody rings.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import tempfile
from collections.abc import Callable
from typing import Final

_ASLEEP: Final = 1
_AWAKE: Final = 0


class Bell:
    """Made by a worker's main process; its children inherit it."""

    def __init__(self) -> None:
        self.ear, self._rope = os.pipe()
        for end in (self.ear, self._rope):
            os.set_blocking(end, False)
        # Without a name: it goes with the last process that has it.
        with tempfile.TemporaryFile() as file:
            file.write(bytes([_AWAKE]))
            file.flush()
            self.flag = os.dup(file.fileno())
        self._shared = mmap.mmap(self.flag, 1)

    def ring(self) -> None:
        """Wake the drainer, if it sleeps. Never raises, never waits."""
        if self._shared[0] == _ASLEEP:
            # A full pipe has woken it already.
            with contextlib.suppress(OSError):
                os.write(self._rope, b"!")


class Ear:
    """The drainer's half: `ear` and `flag` are the bell's."""

    def __init__(self, ear: int, flag: int) -> None:
        self._ear = ear
        self._shared = mmap.mmap(flag, 1)
        self._own_ear, self._own_rope = os.pipe()

    def wake(self) -> None:
        """End the present or the next sleep; from another thread."""
        os.write(self._own_rope, b"!")

    def sleep(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Return when it rings, or after `seconds`; at once where `unless` is true of a moment in which it would have rung."""
        self._shared[0] = _ASLEEP
        try:
            # What was written before the flag was up rang no bell.
            if not unless():
                select.select([self._ear, self._own_ear], [], [], seconds)
        finally:
            self._shared[0] = _AWAKE
            with contextlib.suppress(OSError):
                os.read(self._ear, 65_536)
