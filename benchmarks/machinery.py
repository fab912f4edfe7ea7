"""Workers, databases and CPU seconds for the measurements."""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


class Bench:
    """One measured set-up: plain Celery, or with us."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.prefix = f"lrp-bench-{secrets.token_hex(4)}:"
        self.done = folder / f"{kind}.done"
        self.done.write_bytes(b"")
        self.environment = {
            **os.environ,
            "BENCH_WITH": kind,
            "BENCH_PREFIX": self.prefix,
            "BENCH_DONE": str(self.done),
            "PYTHONWARNINGS": "ignore",
        }

    def run(self, code: str) -> tuple[str, float]:
        """Run Python code in a process of its own; return what it printed, and its CPU seconds."""
        before = os.times()
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        after = os.times()
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        return shown, spent

    @contextlib.contextmanager
    def worker(self, concurrency: int = 2) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker."""
        arguments = ["-A", "benchmarks.shop", "worker", "--concurrency", str(concurrency), "--loglevel", "ERROR"]
        arguments += ["--without-gossip", "--without-mingle", "--hostname", f"bench-{secrets.token_hex(4)}@%h"]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(30)
                self._sweep()

    def wait_for(self, count: int, within: float = 120.0) -> None:
        """Return when so many runs were counted in all."""
        end = time.monotonic() + within
        while self.done.stat().st_size < count:
            if time.monotonic() > end:
                raise SystemExit(f"{self.kind}: {self.done.stat().st_size} of {count} runs within {within:g} s")
            time.sleep(0.01)

    def _sweep(self) -> None:
        client = Redis.from_url(os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0"))
        for key in client.scan_iter(f"{self.prefix}*", count=1000):
            client.delete(key)


def servers() -> list[int]:
    """Return the processes of PostgreSQL and Redis, where they run on this machine."""
    import django
    from django.db import connection

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = int(cursor.fetchone()[0])
    client = Redis.from_url(os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0"))
    info: Any = client.info("server")
    return [_parent(backend), int(info["process_id"])]


def make_database() -> None:
    """Make the tables, in a database that is made if need be."""
    import django
    import psycopg
    from django.conf import settings
    from django.core.management import call_command

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    chosen = settings.DATABASES["default"]
    keys = {"host": chosen["HOST"], "port": chosen["PORT"], "user": chosen["USER"], "password": chosen["PASSWORD"]}
    with psycopg.connect(dbname="postgres", autocommit=True, **keys) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [chosen["NAME"]]).fetchone()
        if known is None:
            connection.execute(f'CREATE DATABASE "{chosen["NAME"]}"')
    call_command("migrate", verbosity=0)


def cpu(*roots: int) -> float:
    """Return the CPU seconds of these processes and all their descendants, with those that have ended."""
    stats = dict(filter(None, map(_stat, filter(str.isdigit, (path.name for path in Path("/proc").iterdir())))))
    found, waiting = set(), list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in stats and pid not in found:
            found.add(pid)
            waiting += [child for child, (parent, _) in stats.items() if parent == pid]
    return sum(stats[pid][1] for pid in found) / _TICKS


def _stat(name: str) -> tuple[int, tuple[int, int]] | None:
    try:
        fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(name), (int(fields[1]), sum(map(int, fields[11:15])))


def _parent(pid: int) -> int:
    found = _stat(str(pid))
    if found is None:
        raise SystemExit("PostgreSQL does not run on this machine: its CPU cannot be counted.")
    return found[1][0]
