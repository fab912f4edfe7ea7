"""Own room on a message broker: a virtual host, or a key prefix."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.services import ladder, rabbitmq_server
from tests.services.model import Service, random_name

#: Keys deleted with one command.
CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSpace:
    """A Redis server and the prefix that every key of this run must carry."""

    url: str
    prefix: str


@contextlib.contextmanager
def redis_space() -> Iterator[RedisSpace]:
    """Yield a fresh key prefix; afterwards the keys that carry it are deleted, no others."""
    space = RedisSpace(url=ladder.find("redis").url, prefix=f"{random_name()}:")
    try:
        yield space
    finally:
        _delete_keys(space)


def celery_over_redis(space: RedisSpace) -> dict[str, Any]:
    """Return the Celery settings that keep broker and results inside the space."""
    options = {"global_keyprefix": space.prefix}
    return {
        "broker_url": space.url,
        "broker_transport_options": options,
        "result_backend": space.url,
        "result_backend_transport_options": options,
    }


def _delete_keys(space: RedisSpace) -> None:
    import redis

    # A test may have killed the server; then its keys are gone, too.
    with redis.Redis.from_url(space.url) as client, contextlib.suppress(redis.ConnectionError):
        keys = list(client.scan_iter(match=f"{space.prefix}*", count=CHUNK))
        for start in range(0, len(keys), CHUNK):
            client.unlink(*keys[start : start + CHUNK])


@contextlib.contextmanager
def rabbitmq_vhost() -> Iterator[str]:
    """Yield the URL of a fresh virtual host, deleted afterwards.

    A server named by TEST_RABBITMQ_URL that cannot be administered from here is used
    with the virtual host of that URL: whoever set it gave it to the tests.
    """
    service = ladder.find("rabbitmq")
    name = random_name()
    url = _add_vhost(service, name)
    if url is None and "TEST_RABBITMQ_URL" in os.environ:
        yield service.url
        return
    if url is None:
        url = _add_vhost(ladder.start_instead("rabbitmq"), name)
    assert url is not None, "a private server must be ours to administer"
    try:
        yield url
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            rabbitmq_server.control("delete_vhost", name, environment=_environment())


def _add_vhost(service: Service, name: str) -> str | None:
    """Make a virtual host and return its URL, or None where that is not ours to do."""
    parts = urlsplit(service.url)
    url = urlunsplit(parts._replace(path=f"/{name}"))
    user = parts.username or "guest"
    try:
        rabbitmq_server.control("add_vhost", name, environment=_environment())
        rabbitmq_server.control("set_permissions", "-p", name, user, ".*", ".*", ".*", environment=_environment())
        # The local rabbitmqctl may speak to another server than the URL does.
        rabbitmq_server.handshake(url, ladder.LOCAL_WAIT)
    except Exception:
        return None
    return url


def _environment() -> dict[str, str] | None:
    server = ladder.private_server("rabbitmq")
    return None if server is None else dict(server.environment)
