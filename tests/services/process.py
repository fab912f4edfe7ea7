"""Private servers: processes on free ports, with their own folder, gone afterwards."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that a private server may take to answer, or to stop.
START_WAIT = 60.0
STOP_WAIT = 10.0

#: Linux: asks the kernel to send a signal when the parent dies.
PR_SET_PDEATHSIG = 1


class StartFailedError(Exception):
    """A private server did not come up; the message holds the end of its log."""


@dataclass(kw_only=True)
class PrivateServer:
    """A server of our own. A test may kill it, and launch it again on the same data."""

    name: str
    url: str
    source: str
    command: Sequence[str]
    folder: Path
    handshake: Callable[[str, float], str]
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def launch(self) -> None:
        """Start the server and wait until it speaks its protocol."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                user=self.user,
                start_new_session=True,
                # Nothing in between can take a lock: the function makes one system call.
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it; its data stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order, or by force when it does not listen; silent when it is down."""
        self._end(self.stop_signal)

    def freeze(self) -> None:
        """Stop the server's clock: connections stay open and nobody answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        os.killpg(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            # In order means: tell the leader, it knows its children. By force: everybody.
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WAIT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_WAIT
        problem: Exception | None = None
        while time.monotonic() < end:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                self.version = self.handshake(self.url, 2.0)
            except Exception as error:
                problem = error
                time.sleep(0.05)
            else:
                return
        self.kill()
        log = (self.folder / "server.log").read_text(errors="replace")[-2000:]
        raise StartFailedError(f"{self.name} did not start ({problem}):\n{log}")


@contextlib.contextmanager
def running(server: PrivateServer) -> Iterator[PrivateServer]:
    """Launch the server; stop it at the end, whatever happened to it meanwhile."""
    try:
        server.launch()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def own_folder(name: str, user: str | None = None) -> Iterator[Path]:
    """Yield a fresh folder, owned by `user` where given, removed at the end."""
    # Not pytest's tmp_path: its parents are closed to other users, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix=f"lrp-{name}-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(host: str, port: int, seconds: float) -> None:
    """Raise OSError unless something listens there: drivers wait longer than we want to."""
    socket.create_connection((host, port), timeout=seconds).close()


def unprivileged() -> str | None:
    """Return the user for servers that refuse to run as root, or None if we are not root."""
    return "nobody" if os.geteuid() == 0 else None


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have the kernel end this child when the test run is killed."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
