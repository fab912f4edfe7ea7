"""A procedure of another service."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Generic, Self, TypeVar, cast, overload
from urllib.parse import quote

from celery import _state

from lrp_celery.core import codec
from lrp_celery.core.codec import Codec
from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import CalledInTask, CallNotFound, ConfigurationError, ResultTimeout
from lrp_celery.core.ids import new_id
from lrp_celery.core.text import bounded
from lrp_celery.procedures.http import reading
from lrp_celery.procedures.http.wire import Answer, Headers, Pause, Request, Talk, Wire, insist
from lrp_celery.procedures.options import UNSET, CallOptions, Unset
from lrp_celery.procedures.results import until
from lrp_celery.procedures.state import CallState
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.store import MAX_ERROR, is_usable_id

R = TypeVar("R")
Duration = timedelta | float | None

#: Seconds for which the server is asked to wait, again and again: proxies end longer requests.
_POLL: Final = 20.0
#: An answer that came sooner was no wait: the server has no room for one more, and says when to ask again.
_NO_WAIT: Final = 0.5
#: Ids that a path can hold.
_SENDABLE: Final = re.compile(r"(?!\.{1,2}\Z)[^/\x00-\x1f\x7f]+")


class HttpProcedure(Generic[R]):
    """A procedure that another service offers over HTTP, with the methods and errors of a `LongRunningProcedure` (LRP-40).

    base_url: where that service has mounted `django_app.urls`, such as "https://shop.example/lrp".
    name: the name of the task, such as "reports.tasks.build_report".
    headers: sent with every request, such as a token; a function is asked anew for each.
    returns: the annotation of its result, by which that is decoded; without one JSON's own types come,
    and what the other side has marked.
    raises: exceptions of ours that are raised again as themselves, beside builtins.
    request_timeout: seconds that connecting, sending and each answer may take, waits not counted; None: any number.
    patience: seconds for which a request is repeated while nothing answers, or 429, 502, 503 or 504 does.

    Every request may be repeated: the id of a call is made here, so that none is made twice. What is
    not allowed raises `NotAllowed`; a service that cannot be reached, `StoreUnavailable`. Tracebacks and
    where a call runs are not told. Redirects are not followed. A context manager closes its connections, and
    `async with` keeps them between requests.
    """

    # A class says what its result is.
    @overload
    def __init__(
        self,
        base_url: str,
        name: str,
        headers: Headers | None = ...,
        *,
        returns: type[R],
        raises: Sequence[type[BaseException]] = ...,
        request_timeout: Duration = ...,
        patience: Duration = ...,
    ) -> None: ...
    # Any other annotation, and none, leaves that open.
    @overload
    def __init__(
        self: HttpProcedure[Any],
        base_url: str,
        name: str,
        headers: Headers | None = ...,
        *,
        returns: Any = ...,
        raises: Sequence[type[BaseException]] = ...,
        request_timeout: Duration = ...,
        patience: Duration = ...,
    ) -> None: ...
    def __init__(
        self,
        base_url: str,
        name: str,
        headers: Headers | None = None,
        *,
        returns: Any = Any,
        raises: Sequence[type[BaseException]] = (),
        request_timeout: Duration = 10.0,
        patience: Duration = 30.0,
    ) -> None:
        if not name:
            raise ConfigurationError("name is empty: pass the name of a task, such as 'reports.tasks.build_report'.")
        self.name = name
        self._returns = Codec(returns)
        self._raises = tuple(raises)
        self._patience = _above_zero(patience, "patience")
        self._call_options = CallOptions()
        self._wire = Wire(base_url, headers, _above_zero(request_timeout, "request_timeout"))

    def __repr__(self) -> str:
        return f"<procedure {self.name} at {self._wire.shown}>"

    def using(
        self, *, call_id: str | Unset | None = UNSET, timeout: Duration | Unset = UNSET, **others: Any
    ) -> HttpProcedure[R]:
        """Return a copy whose calls are made with these options, over the same connections.

        `call_id` fixes the id: a second call with it changes nothing and returns it again. `timeout`,
        in seconds or as a timedelta, may be shorter than the procedure's own. Others are for the
        service that runs it to say: `ConfigurationError`.
        """
        if others:
            raise ConfigurationError(f"Over HTTP one says call_id and timeout of a call, not {', '.join(others)}.")
        given = {"call_id": call_id, "timeout": timeout}
        chosen = self._call_options.merged(**{key: value for key, value in given.items() if value is not UNSET})
        if chosen.call_id is not None and not _is_sendable(chosen.call_id):
            raise ConfigurationError(
                f"call_id is {chosen.call_id!r:.220}: over HTTP it has no slash and no control character."
            )
        copy: HttpProcedure[R] = object.__new__(HttpProcedure)
        copy.__dict__.update(self.__dict__)
        copy._call_options = chosen
        return copy

    # --- what is asked, and what the answer means

    def call(self, *args: Any, **kwargs: Any) -> str:
        """Ask for a call and return its id (LRP-03).

        Raises `TypeError` for arguments that the function does not take or that have no JSON form,
        `CallIdConflict` when a fixed id is another call's, `NotAllowed`, and `StoreUnavailable` when no
        answer came: then it is not known whether the call was made, and a fixed `call_id` may be called again.
        """
        return self._wire.run(self._call(args, kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> str:
        """Async twin of `call`."""
        return await self._wire.arun(self._call(args, kwargs))

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Talk[str]:
        options = self._call_options
        call_id = options.call_id or new_id()
        body: dict[str, Any] = {
            "id": call_id,
            "args": [codec.encode(value, where=f"argument {n}") for n, value in enumerate(args, 1)],
            "kwargs": {key: codec.encode(value, where=f"argument {key!r}") for key, value in kwargs.items()},
        }
        if isinstance(options.timeout, int | float):
            body["timeout"] = options.timeout
        path = f"procedures/{quote(self.name, safe='')}/calls"
        answer = yield from self._insist(Request(method="POST", path=path, body=body))
        return reading.id_of(answer, call_id)

    def get_state(self, call_id: str) -> CallState:
        """Return whether the call has settled; `CallNotFound` if this procedure has no such call (LRP-09, LRP-10)."""
        return self._wire.run(self._state(call_id))

    async def aget_state(self, call_id: str) -> CallState:
        """Async twin of `get_state`."""
        return await self._wire.arun(self._state(call_id))

    def _state(self, call_id: str) -> Talk[CallState]:
        return reading.state((yield from self._read(call_id)))

    def get_call(self, call_id: str) -> CallSnapshot | None:
        """Return what is told of the call at this moment, or None if this procedure has no such call."""
        return self._wire.run(self._snapshot(call_id))

    async def aget_call(self, call_id: str) -> CallSnapshot | None:
        """Async twin of `get_call`."""
        return await self._wire.arun(self._snapshot(call_id))

    def _snapshot(self, call_id: str) -> Talk[CallSnapshot | None]:
        try:
            return reading.snapshot((yield from self._read(call_id)))
        except CallNotFound:
            return None

    def get_result(self, call_id: str, *, wait: Duration = None, allow_in_task: bool = True) -> R:
        """Return what the call returned, waiting until it has settled (LRP-11 to LRP-15).

        `wait`: at most this long, in seconds or as a timedelta, then `ResultTimeout`; None waits
        for ever, 0 looks once; a request that is not answered takes `request_timeout` on top. Raises what
        `LongRunningProcedure.get_result` does, and `StoreUnavailable` if nothing answers meanwhile. Inside a task it may wait, for it is
        another service's workers that it waits for; where they are the same, pass allow_in_task=False.
        """
        return cast(R, self._wire.run(self._result(call_id, wait, allow_in_task=allow_in_task)))

    async def aget_result(self, call_id: str, *, wait: Duration = None, allow_in_task: bool = True) -> R:
        """Async twin of `get_result`."""
        return cast(R, await self._wire.arun(self._result(call_id, wait, allow_in_task=allow_in_task)))

    def _result(self, call_id: str, wait: Duration, *, allow_in_task: bool) -> Talk[Any]:
        end = until(wait)
        while True:
            began = time.monotonic()
            left = max(0.0, min(_POLL, end - began))
            if left and not allow_in_task and _state.get_current_worker_task() is not None:
                raise CalledInTask
            query: dict[str, str | float] = {"wait": round(left, 3), "procedure": self.name}
            path = _path(call_id, "/result")
            # Whoever waits for so long only does not insist for longer.
            request = Request(method="GET", path=path, query=query, wait=left)
            answer = yield from insist(request, min(self._patience, max(0.0, end - began)))
            call = reading.call_of(answer, call_id)
            if call["done"]:
                return reading.outcome(call, self._returns, self._raises)
            reading.release(call)
            if time.monotonic() >= end:
                raise ResultTimeout(call_id=call_id)
            if time.monotonic() - began < _NO_WAIT:
                yield Pause(max(0.0, min(answer.retry_after or 1.0, end - time.monotonic())))

    def abort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Ask for the end of a call; silent if it has settled, or is unknown (LRP-16 to LRP-20).

        `by` is whoever the service knows the request to come from, whatever is passed.
        """
        self._wire.run(self._abort(call_id, reason))

    async def aabort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Async twin of `abort`."""
        await self._wire.arun(self._abort(call_id, reason))

    def _abort(self, call_id: str, reason: str | None) -> Talk[None]:
        body = {"reason": bounded(reason, MAX_ERROR)}
        yield from self._end(call_id, "POST", "/abort", {"procedure": self.name}, body)

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Forget a settled call (LRP-21 to LRP-23); silent if it is unknown, `CallPending` if it is open.

        `when_settled`: an open one is forgotten as soon as it has settled.
        """
        self._wire.run(self._remove(call_id, when_settled=when_settled))

    async def aremove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Async twin of `remove`."""
        await self._wire.arun(self._remove(call_id, when_settled=when_settled))

    def _remove(self, call_id: str, *, when_settled: bool) -> Talk[None]:
        query = {"procedure": self.name, **({"when": "settled"} if when_settled else {})}
        yield from self._end(call_id, "DELETE", "", query, None)

    def _end(
        self, call_id: str, method: str, rest: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Talk[None]:
        try:
            path = _path(call_id, rest)
        except CallNotFound:
            return
        answer = yield from self._insist(Request(method=method, path=path, query=query, body=body))
        reading.body_of(answer, call_id)

    def _read(self, call_id: str) -> Talk[Mapping[str, Any]]:
        request = Request(method="GET", path=_path(call_id), query={"procedure": self.name})
        return reading.call_of((yield from self._insist(request)), call_id)

    def _insist(self, request: Request) -> Talk[Answer]:
        return insist(request, self._patience)

    # --- its connections

    def close(self) -> None:
        """Close idle connections; later requests open new ones."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._wire.aopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.aclose()


def _path(call_id: str, rest: str = "") -> str:
    if not _is_sendable(call_id):
        # No service can have a call with such an id for us.
        raise CallNotFound(call_id=call_id)
    return f"calls/{quote(call_id, safe='')}{rest}"


def _is_sendable(call_id: str) -> bool:
    return is_usable_id(call_id) and _SENDABLE.fullmatch(call_id) is not None


def _above_zero(value: Duration, name: str) -> float:
    found = seconds(value, name)
    return math.inf if found is None else found
