"""Who may judge others: the silence of a worker counts only for one that was itself heard all the while."""

from __future__ import annotations

import time


class Steadiness:
    """Notes when we were heard by the store; `lease` in seconds."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._since: float | None = None
        self._last = 0.0

    def heard(self) -> None:
        """Note that the store has heard us just now."""
        now = time.monotonic()
        if self._since is None or now - self._last > self._lease:
            self._since = now
        self._last = now

    def lost(self) -> None:
        """Note that the store could not be reached."""
        self._since = None

    @property
    def is_reached(self) -> bool:
        """Whether we have been alive and heard for a whole lease: else it may be us who were away, not the others."""
        return self._since is not None and time.monotonic() - self._since >= self._lease
