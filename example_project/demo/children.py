"""Child processes that cannot outlive the demo.

Each child leads a session of its own, so the terminal's Ctrl-C reaches the demo alone and the
demo decides the order of the end. If the demo itself is killed, Linux kills its children, and a
killed worker's pool goes the same way. They are not asked kindly then: the broker would go first,
and a worker that has lost its broker may take half a minute to end.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import IO

from .folders import EXAMPLE

#: prctl(2): the signal that the kernel sends to this process when its parent dies.
PR_SET_PDEATHSIG = 1

#: Seconds that a child is given to end by itself. A worker needs up to 6.5 with some brokers.
PATIENCE = 10.0


class Child:
    """A running process of the demo, and everything that it started in its session."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.is_stopped = False
        self._process = process
        self._swept = False

    def exit_code(self) -> int | None:
        """Return how the process ended, or None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._sweep()
        return code

    def stop(self) -> None:
        """End the process, kindly first; nothing of its session is left running afterwards."""
        self.is_stopped = True
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._process.kill()
        self._sweep()
        self._process.wait()

    def _sweep(self) -> None:
        # Once only, and at once: later the number may belong to a stranger.
        if not self._swept:
            self._swept = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def spawn(
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path | None,
    lock: int,
) -> Child:
    """Start a process in the example's folder; its output goes to the log, or here if None."""
    with _output(log) as output:
        process = subprocess.Popen(
            command,
            cwd=EXAMPLE,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - the demo has no threads
        )
    return Child(name, process)


def _output(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    return log.open("wb") if log else nullcontext()


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def in_the_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return in_the_child
