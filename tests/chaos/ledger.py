"""What really happened, kept outside the system: one line for each fact, in one file that only grows.

Tasks, callers and the nemesis write it, each by one `write`, so that neither a kill nor another
process can tear a line. Checkers compare with it what the system says of itself. When something was
is counted from the start of the machine: the clocks of some processes are set wrong on purpose.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration import truth

NAME = "ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that somebody saw or did, in which process, and when."""

    what: str
    call: str | None = None
    pid: int = 0
    at: float = 0.0
    """In seconds since 1970, by the clock of whoever reads."""
    more: Mapping[str, Any] = field(default_factory=dict)


def write(what: str, call: str | None = None, *, folder: Path | str | None = None, **more: Any) -> None:
    """Add a fact of this process; `folder` where the environment does not name it."""
    line = json.dumps({"what": what, "call": call, "pid": os.getpid(), "at": time.monotonic(), "more": more})
    place = Path(folder if folder is not None else os.environ[truth.FOLDER]) / NAME
    descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class Reader:
    """Reads the file as it grows."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / NAME
        self._offset = 0
        self._facts: list[Fact] = []
        self._start = time.time() - time.monotonic()

    def facts(self) -> list[Fact]:
        """Return every fact so far, in the order in which they were written."""
        if self._place.exists():
            with self._place.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            # Whole lines only: somebody may be writing one.
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._facts += map(self._fact, whole.splitlines())
        return self._facts

    def _fact(self, line: bytes) -> Fact:
        told = json.loads(line)
        return Fact(**{**told, "at": self._start + told["at"]})


def read(folder: Path) -> list[Fact]:
    """Return every fact so far."""
    return Reader(folder).facts()
