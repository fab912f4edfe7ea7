"""RabbitMQ."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.services.model import Binary, Kind, ServiceMissing
from tests.services.process import PrivateServer, answers, die_with_parent, free_port, own_folder, running

#: The programs themselves: Debian's wrappers in /usr/sbin change the user and the folder.
DEBIAN = Path("/usr/lib/rabbitmq/bin")


def handshake(url: str, seconds: float) -> str:
    """Open and close a connection, and return the server's version."""
    import amqp

    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 5672
    answers(host, port, seconds)
    connection = amqp.Connection(
        host=f"{host}:{port}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=max(seconds, 2.0),
        read_timeout=5,
    )
    with contextlib.closing(connection):
        connection.connect()
        properties: dict[str, bytes | str] = vars(connection)["server_properties"]  # unknown to the stubs
        version = properties["version"]
        return version.decode() if isinstance(version, bytes) else str(version)


def control(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run rabbitmqctl against the local server, or against a private one by its environment."""
    program = "rabbitmqctl" if environment is None else f"{DEBIAN}/rabbitmqctl"
    subprocess.run(
        [program, "--quiet", *arguments],
        env={**os.environ, **(environment or {})},
        check=True,
        capture_output=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def binary() -> Binary | None:
    """Debian's: there is no wheel."""
    if not (DEBIAN / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        return None
    return Binary(folder=str(DEBIAN), source=str(DEBIAN))


@contextlib.contextmanager
def private() -> Iterator[PrivateServer]:
    """Start a node with its own name, ports, cookie and port mapper."""
    found = binary()
    if found is None:
        raise ServiceMissing(KIND.name, "no server program was found", KIND.fix)
    port = free_port()
    with own_folder("rabbitmq") as folder, _port_mapper() as mapper:
        server = PrivateServer(
            name=KIND.name,
            url=f"amqp://guest:guest@127.0.0.1:{port}//",
            source=f"private, {found.source}",
            command=[f"{found.folder}/rabbitmq-server"],
            folder=folder,
            handshake=handshake,
            environment=_environment(folder, port, mapper),
        )
        with running(server):
            yield server


def _environment(folder: Path, port: int, mapper: int) -> dict[str, str]:
    plugins = folder / "plugins"
    plugins.write_text("[].\n")
    return {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"lrp{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        # Idle schedulers spin by default, which two cores feel.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }


@contextlib.contextmanager
def _port_mapper() -> Iterator[int]:
    """Run an epmd of our own: the one that Erlang starts by itself would outlive us."""
    port = free_port()
    process = subprocess.Popen(
        ["epmd", "-port", str(port), "-address", "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  one system call takes no lock
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


KIND = Kind(
    name="rabbitmq",
    default_urls=["amqp://guest:guest@127.0.0.1:5672//"],
    handshake=handshake,
    binary=binary,
    private=private,
    fix="apt-get install rabbitmq-server",
)
