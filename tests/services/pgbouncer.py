"""PgBouncer, the pooler: always a private one, in front of a PostgreSQL that is there."""

import contextlib
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.services import postgres_server
from tests.services.model import ServiceMissing
from tests.services.process import PrivateServer, free_port, own_folder, running, unprivileged

#: One session of the server for everybody: two that talk in turns are sure to meet in it.
SETTINGS = """
[databases]
* = {target}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = extra_float_digits
"""


@contextlib.contextmanager
def private(url: str) -> Iterator[PrivateServer]:
    """Start one that pools transactions of the server at `url`."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise ServiceMissing("pgbouncer", "no program was found", "apt-get install pgbouncer")
    parts, port, user = urlsplit(url), free_port(), unprivileged()
    with own_folder("pgbouncer", user) as folder:
        settings = folder / "pgbouncer.ini"
        target = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
        known = " ".join(f"{name}='{value}'" for name, value in target.items() if value)
        settings.write_text(SETTINGS.format(target=known, own_port=port))
        server = PrivateServer(
            name="pgbouncer",
            url=f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}/postgres",
            source=program,
            command=[program, str(settings)],
            folder=folder,
            handshake=postgres_server.handshake,
            user=user,
        )
        with running(server):
            yield server
