"""What a service is, and how it can be absent."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.services.process import PrivateServer

#: Every name that this run makes on a server begins with this.
RUN = f"lrp_test_{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server that answered, and where it came from."""

    name: str
    url: str
    source: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Programs from which a private server can be started: `folder` holds them."""

    folder: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the ladder must know about one kind of server.

    `handshake(url, seconds)` returns the version or raises; `binary()` says what a private
    start would use, without starting; `private()` starts one and stops it at the end.
    """

    name: str
    default_urls: Sequence[str]
    handshake: Callable[[str, float], str]
    binary: Callable[[], Binary | None]
    private: Callable[[], AbstractContextManager["PrivateServer"]]
    fix: str


class ServiceError(Exception):
    """A service that was promised by the environment does not work."""


class ServiceMissing(Exception):
    """A service is not running and cannot be started here."""

    def __init__(self, name: str, reason: str, fix: str) -> None:
        super().__init__(f"{name}: {reason}; to run this: {fix}")
        self.name = name


def random_name() -> str:
    """Return a fresh name that shows which run made it."""
    return f"{RUN}_{secrets.token_hex(3)}"
