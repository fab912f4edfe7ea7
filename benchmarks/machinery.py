"""One measured set-up at work: its environment, its publishers, its worker, and what its tasks have noted."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis

from benchmarks.processes import kill, strays
from benchmarks.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]

#: The system checks first: tracking that is set up wrongly costs little.
MIGRATE = """
import benchmarks.shop
from django.core.management import call_command
call_command("check")
call_command("migrate", verbosity=0)
"""


class Failed(Exception):
    """A set-up did not do what was to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publisher says of itself."""

    seconds: float
    cpu: float
    ids: list[str]


@dataclass(slots=True)
class Publisher:
    """A publisher that waits for its command."""

    process: subprocess.Popen[str]

    def go(self) -> Published:
        """Have it publish; return when it has."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return Published(**json.loads(self.read()))

    def read(self) -> str:
        """Return what it says next."""
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the publisher ended: see above")
        return line


@dataclass(frozen=True, slots=True)
class Notes:
    """The file in which the tasks of a set-up note what happens."""

    path: Path

    @property
    def size(self) -> int:
        """How many bytes there are: for tasks that note one, how many runs have ended."""
        return self.path.stat().st_size

    def clear(self) -> None:
        """Forget all of it."""
        self.path.write_bytes(b"")

    def marks(self, mark: str) -> dict[str, float]:
        """Return the times that `witness` has noted under this mark, by call."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return {line[1]: float(line[2]) for line in lines if line[0] == mark}


@dataclass
class Bench:
    """One set-up, on the servers that `servers.grounds` told of."""

    kind: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variant = VARIANTS[self.kind]
        self.token = f"BENCH_RUN={secrets.token_hex(8)}"
        self.notes = Notes(self.folder / f"{self.kind}.notes")
        self.notes.clear()
        self._log = self.folder / f"{self.kind}.log"
        # With Django's variable Celery would set Django up by itself, also where there is to be none.
        kept = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        own = {"BENCH_WITH": self.kind, "BENCH_NOTES": str(self.notes.path), "BENCH_SPOOL": str(self._spool())}
        own |= {"PYTHONWARNINGS": "ignore", "CELERY_SKIP_CHECKS": "1"}
        name, _, value = self.token.partition("=")
        self.environment = {**kept, **own, name: value, **self.environment}
        self._control = Celery(broker=os.environ["BENCH_BROKER"], set_as_current=False).control

    def _spool(self) -> Path:
        folder = self.folder / f"{self.kind}.spool"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def run(self, code: str) -> tuple[str, float]:
        """Run Python code in a process of its own; return what it printed, and its CPU seconds."""
        before = os.times()
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        after = os.times()
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        return shown, spent

    def migrate(self) -> None:
        """Make the tables that the set-up needs; `Failed` if it cannot be had, or is set up wrongly."""
        try:
            self.run(MIGRATE)
        except subprocess.CalledProcessError:
            raise Failed(f"{self.kind} cannot be set up: see above") from None

    @contextlib.contextmanager
    def publisher(self, task: str, calls: int, queue: str) -> Iterator[Publisher]:
        """Start a publisher; it is ready when this yields."""
        command = [sys.executable, "-m", "benchmarks.publisher", task, str(calls), queue]
        process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            found = Publisher(process)
            found.read()
            yield found
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(30)

    def publish(self, task: str, calls: int, queue: str) -> Published:
        """Publish from a process of its own."""
        with self.publisher(task, calls, queue) as publisher:
            return publisher.go()

    @contextlib.contextmanager
    def worker(self, concurrency: int = 2, queue: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker that takes from one queue."""
        process = self.start_worker(concurrency, queue)
        try:
            yield process
        finally:
            self.stop_worker(process)

    def start_worker(self, concurrency: int = 2, queue: str | None = None) -> subprocess.Popen[bytes]:
        """Start a worker in a process group of its own, for whoever wants to kill it."""
        arguments = ["-A", "benchmarks.shop", "worker", "--concurrency", str(concurrency), "--loglevel", "ERROR"]
        arguments += ["--queues", queue or self.kind, "--without-gossip", "--without-mingle", "--without-heartbeat"]
        arguments += ["--hostname", f"bench-{secrets.token_hex(4)}@%h"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop_worker(self, process: subprocess.Popen[bytes], within: float = 30.0) -> None:
        """End a worker in order, and whatever it has left behind."""
        process.terminate()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(f"{self.kind}: the worker did not end within {within:g} s", file=sys.stderr)
        self.sweep()

    def strays(self) -> list[int]:
        """Return processes of this set-up that nobody waits for any more."""
        return strays(self.token)

    def sweep(self, within: float = 15.0) -> None:
        """Wait until all processes have ended that a worker left behind; end them by force if they do not."""
        end = time.monotonic() + within
        while left := self.strays():
            if time.monotonic() > end:
                print(f"{self.kind}: processes that had to be killed: {left}", file=sys.stderr)
                kill(left)
                end = time.monotonic() + within
            time.sleep(0.05)

    def consume(self, queue: str) -> None:
        """Have the worker take from this queue, too."""
        self._control.add_consumer(queue, reply=False)

    def flush(self) -> None:
        """Forget every message and result."""
        with Redis.from_url(os.environ["BENCH_BROKER"]) as client:
            client.flushdb()

    def wait_for(self, count: int, within: float = 120.0) -> None:
        """Return when so many runs were counted in all."""
        self.wait_until(lambda: self.notes.size >= count, within, lambda: f"{self.notes.size} of {count} runs")

    def wait_until(
        self, is_so: Callable[[], Any], within: float, what: Callable[[], str], interval: float = 0.004
    ) -> None:
        """Return when something is so; `Failed` says what there was if it takes too long."""
        end = time.monotonic() + within
        while not is_so():
            if time.monotonic() > end:
                raise Failed(f"{self.kind}: {what()} within {within:g} s\n{self._log_end()}")
            time.sleep(interval)

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
