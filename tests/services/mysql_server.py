"""MariaDB (or MySQL, where somebody names one in TEST_MYSQL_URL)."""

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.services.model import Binary, Kind, ServiceMissing
from tests.services.process import PrivateServer, answers, free_port, own_folder, running

if TYPE_CHECKING:
    import pymysql

#: Where Debian's server listens; root logs in there by being root.
DEBIAN_SOCKET = "/run/mysqld/mysqld.sock"


def arguments(url: str) -> dict[str, Any]:
    """Translate a URL into what the driver calls these things."""
    parts = urlsplit(url)
    result = {"user": unquote(parts.username or "root"), "password": unquote(parts.password or "")}
    socket = parse_qs(parts.query).get("unix_socket")
    if socket:
        return {**result, "unix_socket": socket[0]}
    return {**result, "host": parts.hostname or "127.0.0.1", "port": parts.port or 3306}


def connect(url: str, seconds: float) -> "pymysql.Connection":
    """Log in; the caller closes."""
    import pymysql

    return pymysql.connect(**arguments(url), connect_timeout=max(1, round(seconds)), autocommit=True)


def handshake(url: str, seconds: float) -> str:
    """Log in, and return the server's version."""
    target = arguments(url)
    if "host" in target:
        answers(target["host"], target["port"], seconds)
    with contextlib.closing(connect(url, 2)) as connection:
        # MariaDB puts 5.5.5- before its version, for clients that know only MySQL.
        return str(connection.get_server_info()).removeprefix("5.5.5-")


def execute(url: str, statement: str) -> None:
    """Run one statement."""
    with contextlib.closing(connect(url, 5)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def binary() -> Binary | None:
    """Debian's: there is no wheel."""
    path = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path=path)
    if server is None or shutil.which("mariadb-install-db") is None:
        return None
    return Binary(folder=server, source=server)


@contextlib.contextmanager
def private() -> Iterator[PrivateServer]:
    """Start a server with a fresh data folder and a root without a password."""
    found = binary()
    if found is None:
        raise ServiceMissing(KIND.name, "no server program was found", KIND.fix)
    port, user = free_port(), getpass.getuser()
    with own_folder("mysql") as folder:
        common = ["--no-defaults", f"--datadir={folder}/data", f"--user={user}"]
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(["mariadb-install-db", *common, *options], check=True, capture_output=True, cwd=folder)
        network = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket"]
        server = PrivateServer(
            name=KIND.name,
            url=f"mysql://root@127.0.0.1:{port}/",
            source=f"private, {found.source}",
            command=[found.folder, *common, *network, "--innodb-flush-log-at-trx-commit=0"],
            folder=folder,
            handshake=handshake,
        )
        with running(server):
            yield server


KIND = Kind(
    name="mysql",
    default_urls=[
        "mysql://root@127.0.0.1:3306/",
        f"mysql://root@localhost/?unix_socket={DEBIAN_SOCKET}",
    ],
    handshake=handshake,
    binary=binary,
    private=private,
    fix="apt-get install mariadb-server",
)
