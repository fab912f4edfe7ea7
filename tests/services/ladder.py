"""Find each service once, on the first rung that holds."""

import atexit
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from tests.services import mysql_server, postgres_server, rabbitmq_server, redis_server
from tests.services.model import Kind, Service, ServiceError, ServiceMissing
from tests.services.process import PrivateServer

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (postgres_server.KIND, redis_server.KIND, rabbitmq_server.KIND, mysql_server.KIND)
}
NAMES = tuple(KINDS)
#: What has no ladder: a test starts its own, or asks for it in vain.
ONLY_PRIVATE = ("pgbouncer",)

#: Seconds for a server of this machine to answer; one that was named gets longer.
LOCAL_WAIT = 0.5
NAMED_WAIT = 10.0

private_postgres: Callable[[], AbstractContextManager[PrivateServer]] = postgres_server.private
private_redis: Callable[[], AbstractContextManager[PrivateServer]] = redis_server.private
private_rabbitmq: Callable[[], AbstractContextManager[PrivateServer]] = rabbitmq_server.private
private_mysql: Callable[[], AbstractContextManager[PrivateServer]] = mysql_server.private

_found: dict[str, Service | Exception] = {}
_private: dict[str, PrivateServer] = {}
_open = ExitStack()


def find(name: str) -> Service:
    """Return the service, started if need be; the answer is the same for the whole run.

    Raises `ServiceError` if the environment names a server that does not work, and
    `ServiceMissing` if there is none and none can be started.
    """
    if name not in _found:
        try:
            _found[name] = running_service(name) or _start(name)
        except (ServiceError, ServiceMissing) as error:
            _found[name] = error
    result = _found[name]
    if isinstance(result, Exception):
        # A new one each time, or the traceback would grow with every test that asks.
        raise result.with_traceback(None)
    return result


def running_service(name: str) -> Service | None:
    """Rungs 1 and 2: a server that runs already. Starts nothing."""
    kind = KINDS[name]
    variable = f"TEST_{name.upper()}_URL"
    if url := os.environ.get(variable):
        try:
            version = kind.handshake(url, NAMED_WAIT)
        except Exception as error:
            raise ServiceError(f"{variable} does not work: {error!r}") from error
        return Service(name=name, url=url, source=variable, version=version)
    for url in kind.default_urls:
        try:
            version = kind.handshake(url, LOCAL_WAIT)
        except Exception:
            continue
        return Service(name=name, url=url, source="running", version=version)
    return None


def private_server(name: str) -> PrivateServer | None:
    """Return the process behind a service that this run started itself."""
    return _private.get(name)


def start_instead(name: str) -> Service:
    """Use a private server from now on: the running one turned out to be of no use."""
    _found[name] = service = _start(name)
    return service


def asked() -> dict[str, Service | Exception]:
    """Return the services that tests asked for, and what they got."""
    return dict(_found)


def describe(name: str) -> str:
    """Say in one line what `find` would give. Starts nothing."""
    try:
        service = running_service(name)
    except ServiceError as error:
        return f"{name}: ERROR, {error}"
    if service is not None:
        return f"{name}: {service.source}, {service.version}"
    binary = KINDS[name].binary()
    if binary is not None:
        return f"{name}: not running, starts privately from {binary.source} when needed"
    return f"{name}: MISSING, {KINDS[name].fix}"


def close() -> None:
    """Stop every server that `find` started."""
    _found.clear()
    _private.clear()
    _open.close()


def _start(name: str) -> Service:
    try:
        server = _open.enter_context(KINDS[name].private())
    except ServiceMissing:
        raise
    except Exception as error:
        raise ServiceError(f"{name} is installed but does not start: {error}") from error
    _private[name] = server
    return Service(name=name, url=server.url, source=server.source, version=server.version)


# For programs that are no pytest run; pytest closes earlier, in conftest.py.
atexit.register(close)
