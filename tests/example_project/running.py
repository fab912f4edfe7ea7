"""A demo in a process of its own, and the processes that belong to it."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "example_project"

#: Seconds for a demo to become READY, or to end; on a busy machine.
PATIENCE = 90.0

#: Nothing of the surroundings may decide what a demo under test does.
FOREIGN = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DEMO_VERBOSE", "DJANGO_SETTINGS_MODULE", "PYTHONWARNINGS")


def wait_until(is_true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Process:
    """A process of this machine, told apart from a later one with the same number."""

    pid: int
    parent: int
    started: str
    command: str

    @property
    def lives(self) -> bool:
        now = look_at(self.pid)
        return now is not None and now.started == self.started


def look_at(pid: int) -> Process | None:
    """Return the process, or None if it is gone or only waits to be buried."""
    try:
        state, parent, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return None if state == "Z" else Process(pid=pid, parent=int(parent), started=fields[17], command=command)


def all_processes() -> Iterator[Process]:
    for entry in Path("/proc").glob("[0-9]*"):
        process = look_at(int(entry.name))
        if process:
            yield process


def descendants(pid: int) -> list[Process]:
    by_parent: dict[int, list[Process]] = {}
    for process in all_processes():
        by_parent.setdefault(process.parent, []).append(process)
    found, waiting = [], [pid]
    while waiting:
        children = by_parent.get(waiting.pop(), [])
        found += children
        waiting += [child.pid for child in children]
    return found


class Demo:
    """`manage.py demo`, started as a person would start it."""

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.mark = uuid.uuid4().hex
        self.file = home / f"{self.mark}.out"
        self.seen: set[Process] = set()
        clean = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.process = self._start(
            [sys.executable, "manage.py", "demo", "--port", "0", *options],
            clean | {"DEMO_HOME": str(home), "DEMO_TEST_MARK": self.mark} | environment,
        )

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.file.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=EXAMPLE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.file.read_text()

    @property
    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/admin/", self.output)
        assert found, self.output
        return int(found[1])

    @property
    def folder(self) -> Path:
        found = re.search(r"^logs +(.+)$", self.output, re.MULTILINE)
        assert found, self.output
        return Path(found[1])

    def wait_for(self, line_start: str) -> None:
        """Wait until a line begins like this, and remember which processes belong to the demo then."""

        def is_there() -> bool:
            said = re.search(rf"^{re.escape(line_start)}", self.output, re.MULTILINE)
            if not said:
                assert self.process.poll() is None, self.output
            return bool(said)

        wait_until(is_there, f"a line that begins with {line_start!r}")
        self.remember()

    def remember(self) -> None:
        self.seen.update(descendants(self.process.pid))

    def child(self, part: str) -> Process:
        """Return the demo's own child whose command has this part."""
        (found,) = (p for p in self.seen if p.parent == self.process.pid and part in p.command)
        return found

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def left_behind(self) -> list[Process]:
        """Return the processes of this demo that still run, by three independent signs."""
        relatives = [process for process in self.seen if process.lives]
        marked = [process for process in all_processes() if self._is_marked(process.pid)]
        return [*relatives, *marked]

    def assert_nothing_left(self, seconds: float = 10.0) -> None:
        """Nothing of the demo may run; death by the kernel's hand may take a moment."""
        wait_until(lambda: not self.left_behind(), f"the end of {self.left_behind()}", seconds)
        # Every process of a demo inherits the lock of its folder, whatever it did to its environment.
        for lock in self.home.glob("*/lock"):
            wait_until(partial(is_free, lock), f"the release of {lock}", seconds)

    def end(self) -> None:
        """For the end of a test: nothing of this demo may disturb the next one."""
        for process in [*descendants(self.process.pid), *self.left_behind()]:
            if process.lives:
                os.kill(process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def _is_marked(self, pid: int) -> bool:
        try:
            return f"DEMO_TEST_MARK={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


class DemoInTerminal(Demo):
    """The same, as the foreground job of a terminal that can be closed."""

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        self._ours, theirs = os.openpty()
        os.set_blocking(self._ours, False)
        self._read = b""
        process = subprocess.Popen(
            command,
            cwd=EXAMPLE,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - two system calls
        )
        os.close(theirs)
        return process

    @property
    def output(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError):
            while chunk := os.read(self._ours, 65536):
                self._read += chunk
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    def close_terminal(self) -> None:
        os.close(self._ours)


def _take_terminal() -> None:
    # Whoever runs the tests under nohup would hand it down.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def is_free(lock: Path) -> bool:
    with lock.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(file, fcntl.LOCK_UN)
        return True


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
