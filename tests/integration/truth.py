"""What really happened, told by the tasks themselves: one line for each event, in one file.

A line is appended by one write, so that neither a kill nor another process can tear it.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from celery import current_task

#: The folder, for processes that tests start.
FOLDER = "LRP_TEST_TRUTH"
STARTED = "started"


@dataclass(frozen=True, slots=True)
class Line:
    """Something that the call's task did, in which process, and when."""

    call_id: str
    event: str
    pid: int
    at: float


def note(event: str, call_id: str | None = None) -> None:
    """Write down what the present task does."""
    folder = os.environ.get(FOLDER)
    call_id = call_id or current_task.request.id
    # In an eager call, or one made in place, there is nobody who reads it.
    if folder is None or call_id is None:
        return
    line = f"{call_id} {event} {os.getpid()} {time.time()!r}\n".encode()
    descriptor = os.open(Path(folder) / "truth", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def hold(call_id: str, seconds: float = 60.0, place: str = "") -> None:
    """Wait until the test lets the call go on; `place`: from here at the moment that it names, if it names one."""
    gate = Path(os.environ[FOLDER]) / gate_name(call_id)
    _wait_for(gate, seconds)
    moment = json.loads(gate.read_text() or "{}").get(place, 0.0)
    time.sleep(max(0.0, moment - time.monotonic()))


def accepted(call_id: str) -> None:
    """Note, in the worker's main process, that it knows which process runs the call."""
    _accepted(call_id).touch()


def wait_until_accepted(call_id: str, seconds: float = 60.0) -> None:
    """Wait, in the process that runs the call, until its worker's main process knows of it."""
    _wait_for(_accepted(call_id), seconds)


def _accepted(call_id: str) -> Path:
    return Path(os.environ[FOLDER]) / f"{call_id}.accepted"


def _wait_for(file: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{file.name} never came")
        time.sleep(0.01)


def gate_name(call_id: str) -> str:
    """Return the name of the file whose existence lets a held call go on."""
    return f"{call_id}.go"


class Reader:
    """Reads the file as it grows: tests ask many times a second."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "truth"
        self._offset = 0
        self._lines: list[Line] = []

    def lines(self) -> list[Line]:
        """Return every line written so far."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            # Whole lines only: somebody may be writing one.
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._lines += [_line(text) for text in whole.decode().splitlines()]
        return self._lines


def _line(text: str) -> Line:
    call_id, event, pid, at = text.rsplit(" ", 3)
    return Line(call_id, event, int(pid), float(at))
