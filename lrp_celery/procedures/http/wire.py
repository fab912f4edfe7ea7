"""Requests and answers, sent and awaited by threads or by an event loop.

What is asked is written once, as a generator that yields each `Request` and `Pause` and is
sent each `Answer`; one of the two drivers runs it. Every request of ours may be sent twice:
a call has its id before it is made.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic, sleep
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from lrp_celery.core.errors import ConfigurationError, LrpError, StoreUnavailable

T = TypeVar("T")
Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]

#: What says that somebody between us and the procedure, or its database, may be there later.
_LATER: Final = frozenset({429, 502, 503, 504})
_LAST_PORT: Final = 65_535
_PLAIN: Final = {"Accept": "application/json, application/problem+json"}
_WITH_BODY: Final = {**_PLAIN, "Content-Type": "application/json"}
#: What a header may hold.
_SENDABLE: Final = re.compile(r"([!-~]+([ \t]+[!-~]+)*)?")
#: Seconds before a request is repeated: at first, and at most.
_SHORTEST: Final = 0.1
_LONGEST: Final = 5.0
#: Bytes of an answer, unpacked.
_LARGEST: Final = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something to ask; `path` is relative to the base, and quoted."""

    method: str
    path: str
    query: Mapping[str, str | float] | None = None
    body: Mapping[str, Any] | None = None
    wait: float = 0.0
    """Seconds for which the server is asked to wait before it answers."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is asked for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came; `status` None: nothing did, and `said` is why."""

    status: int | None
    said: bytes = b""
    media_type: str = ""
    retry_after: float | None = None

    @property
    def is_for_later(self) -> bool:
        """Whether the same request may be answered another way soon."""
        return self.status is None or self.status in _LATER


Step: TypeAlias = Request | Pause
Talk: TypeAlias = Generator[Step, Answer | None, T]


def insist(request: Request, patience: float) -> Talk[Answer]:
    """Ask until there is an answer; for `patience` seconds, then `StoreUnavailable`."""
    end, pause = monotonic() + patience, _SHORTEST
    while True:
        answer = yield request
        assert answer is not None  # noqa: S101 - a request is answered, whatever befalls it
        if not answer.is_for_later:
            return answer
        if monotonic() + pause > end:
            why = f"status {answer.status}" if answer.status else answer.said.decode()
            raise StoreUnavailable(
                f"{request.method} {request.path} has no answer for {patience:g} s: {why}. It may have been heard; "
                "asking again, with the same call_id, does no harm."
            )
        yield Pause(max(pause, min(answer.retry_after or 0.0, _LONGEST)))
        pause = min(2 * pause, _LONGEST)


@dataclass(slots=True)
class _Opened:
    """What sends the requests of an event loop, and how many use it."""

    client: Any
    holders: int = 0


class Wire:
    """The connections to one service. Safe for threads, event loops and forks."""

    def __init__(self, base_url: str, headers: Headers | None, timeout: float) -> None:
        self._httpx = _httpx()
        self._base = f"{base_url.rstrip('/')}/"
        self.shown = self._check_base()
        self._headers = headers or {}
        if not callable(self._headers):
            _check(self._headers)
        self._timeout = timeout
        #: By process: what a forked child shares with its parent are sockets on which both would speak.
        self._clients: dict[int, Any] = {}
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, _Opened] = WeakKeyDictionary()

    def run(self, talk: Talk[T]) -> T:
        """Do what a talk asks for, in this thread."""
        answer: Answer | None = None
        try:
            while True:
                step = talk.send(answer)
                answer = None
                if isinstance(step, Pause):
                    sleep(step.seconds)
                else:
                    answer = self._ask(step)
        except StopIteration as end:
            result: T = end.value
            return result

    async def arun(self, talk: Talk[T]) -> T:
        """Do what a talk asks for, in the event loop."""
        client = self.aopen()
        answer: Answer | None = None
        try:
            while True:
                step = talk.send(answer)
                answer = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    answer = await self._aask(client, step)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            await self.aclose()

    def close(self) -> None:
        """Close idle connections; later requests open new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def aopen(self) -> Any:
        """Keep connections between requests from this event loop, until `aclose`; return what sends them.

        Whoever opens it while somebody else has it open shares it: the last one to close it does.
        """
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None:
            opened = self._opened[loop] = _Opened(self._httpx.AsyncClient(**self._manners))
        opened.holders += 1
        return opened.client

    async def aclose(self) -> None:
        """Give up the connections of this event loop."""
        loop = asyncio.get_running_loop()
        opened = self._opened[loop]
        opened.holders -= 1
        if not opened.holders:
            del self._opened[loop]
            await opened.client.aclose()

    def _ask(self, request: Request) -> Answer:
        try:
            with self._mine().stream(**self._arguments(request)) as response:
                said = _Said(self._timeout)
                for piece in response.iter_bytes():
                    said.take(piece)
                return _read(response, said)
        except (self._httpx.RequestError, TimeoutError) as error:
            return _nothing(error)

    async def _aask(self, client: Any, request: Request) -> Answer:
        try:
            async with client.stream(**self._arguments(request)) as response:
                said = _Said(self._timeout)
                async for piece in response.aiter_bytes():
                    said.take(piece)
                return _read(response, said)
        except (self._httpx.RequestError, TimeoutError) as error:
            return _nothing(error)

    def _mine(self) -> Any:
        client = self._clients.get(os.getpid())
        if client is None:
            made = self._httpx.Client(**self._manners)
            client = self._clients.setdefault(os.getpid(), made)
            if client is not made:
                # Another thread came first.
                made.close()
        return client

    def _check_base(self) -> str:
        """Return the base as anybody may read it; `ConfigurationError` if no request can go there."""
        try:
            url = self._httpx.URL(self._base)
        except self._httpx.InvalidURL:
            url = None
        # A host that is none is quoted by httpx, and looked up in vain.
        is_good = url is not None and url.scheme in {"http", "https"} and url.host and "%" not in url.host
        if not is_good or url.query or url.fragment or (url.port or 0) > _LAST_PORT:
            raise ConfigurationError("base_url is none: pass one such as 'https://shop.example/lrp', and no more.")
        return str(url.copy_with(userinfo=b"")).rstrip("/")

    @cached_property
    def _manners(self) -> dict[str, Any]:
        return {
            # To read the certificates takes so long that an event loop must not do it for each operation.
            "verify": self._httpx.create_ssl_context(),
            # Whom a cookie tells may be somebody else than whom the headers of the next request do.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # Each that waits has a connection, and whoever comes next must not be told that nothing answers.
            "limits": self._httpx.Limits(max_connections=None, max_keepalive_connections=20),
        }

    def _arguments(self, request: Request) -> dict[str, Any]:
        headers = _check(self._headers()) if callable(self._headers) else self._headers
        return {
            "method": request.method,
            "url": self._base + request.path,
            "params": request.query,
            # Not httpx's own JSON, which has no form for half a character.
            "content": None if request.body is None else json.dumps(request.body),
            "headers": {**(_PLAIN if request.body is None else _WITH_BODY), **headers},
            "timeout": self._httpx.Timeout(_limit(self._timeout), read=_limit(self._timeout + request.wait)),
        }


class _Said:
    """The body of an answer, as it comes: neither its size nor the time that it takes are left to the other side."""

    def __init__(self, timeout: float) -> None:
        self._end = monotonic() + timeout
        self.body = bytearray()

    def take(self, piece: bytes) -> None:
        """Take the next piece; `TimeoutError` if they have come for too long, `LrpError` if they are too many."""
        self.body += piece
        if len(self.body) > _LARGEST:
            raise LrpError(f"The answer has more than {_LARGEST} bytes: pass the place where the data can be found.")
        if monotonic() > self._end:
            raise TimeoutError("the answer does not end")


def _read(response: Any, said: _Said) -> Answer:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return Answer(response.status_code, bytes(said.body), kind, _seconds(response.headers.get("Retry-After", "")))


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        # An instant in words: rather sooner than by two clocks that may differ.
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _check(headers: Mapping[str, str]) -> Mapping[str, str]:
    # What httpx says of a header that it cannot send holds the header, such as a token, and comes after many attempts.
    for name, value in headers.items():
        if _SENDABLE.fullmatch(value) is None:
            raise ConfigurationError(
                f"The header {name!r:.100} cannot be sent: is there a line break at its end, or no plain ASCII?"
            )
    return headers


def _limit(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds


def _nothing(error: Exception) -> Answer:
    return Answer(None, f"{type(error).__name__}: {error}".encode())


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ConfigurationError("HttpProcedure needs httpx: pip install 'lrp_celery[http]'.") from None
    return httpx
