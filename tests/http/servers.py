"""Real servers of the API, each on a port of its own, beside a room's workers."""

import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.integration.harness import Process, Room, eventually

pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn")

COMMANDS = {
    "runserver": ["django", "runserver", "--noreload", "127.0.0.1:{port}"],
    "gunicorn": ["gunicorn", "--workers", "2", "--threads", "8", "--bind", "127.0.0.1:{port}", "tests.http.wsgi"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "tests.http.asgi:application"],
}


class Server(Process):
    """One of `COMMANDS`, with a settings module for Django."""

    def __init__(
        self, kind: str, room: Room, tracking: Mapping[str, Any] | None = None, settings: str = "tests.http.served"
    ) -> None:
        environment = room._environment({}, tracking or {}, room.database)
        environment["DJANGO_SETTINGS_MODULE"] = settings
        self.port = free_port()
        arguments: Sequence[str] = [part.format(port=self.port) for part in COMMANDS[kind]]
        super().__init__(kind, arguments, environment, room.folder)
        room.processes.append(self)

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}/lrp"

    def command(self) -> list[str]:
        return [sys.executable, "-m", *self._arguments]

    def wait_until_ready(self) -> None:
        eventually(f"{self.name} listens", lambda: self._listens() or not self.is_alive, tell=self.log_end)
        assert self.is_alive, f"{self.name} ended at once:\n{self.log_end()}"

    def _listens(self) -> bool:
        with socket.socket() as asked:
            asked.settimeout(1)
            return asked.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def served(kind: str, room: Room, tracking: Mapping[str, Any] | None = None) -> Server:
    """Return a server that answers; the room stops it."""
    server = Server(kind, room, tracking)
    server.start()
    server.wait_until_ready()
    return server
