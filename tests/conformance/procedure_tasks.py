"""The procedures of the suite, for every ground: in this process or a worker's, with Django or without.

Each notes in a file what it really does, and is held by one, see `tests.integration.truth`.
Nothing here needs Django.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from celery import Celery, current_task, signals

from lrp_celery import AbortSignal, StoreError, current_call, procedure
from lrp_celery.procedures.aborts import board
from lrp_celery.procedures.runtime import runtime_of
from tests.integration import truth

PREFIX = "conformance."
TOLD, OVER = "told", "over"
#: Celery's stubs take it for a task that is always there.
_task: Any = current_task
#: Longer than any test waits: such a grace never ends.
NEVER = 600.0
#: What runs without Celery finds here what others find in their app.
here = SimpleNamespace(procedures=None, store=None)


class OwnError(Exception):
    """Neither builtin nor among the `throws` of a task."""


def did(event: str) -> None:
    """Note what the present call does; called in place there is none."""
    if current_call().id:
        truth.note(event, current_call().id)


def find(name: str) -> Any:
    """Return a procedure of the ground that this runs on."""
    if not _task:
        return getattr(here.procedures, name)
    return _task.app.tasks[PREFIX + name].lrp_procedure


# --- the procedures


def greet(signal: AbortSignal, name: str, times: int = 2) -> list[Any]:
    """Tell what came in."""
    did(truth.STARTED)
    return [signal.aborted, name * times]


def give(value: Any) -> Any:
    """Return it."""
    did(truth.STARTED)
    return value


async def give_later(value: Any) -> Any:
    """Return it, from a coroutine."""
    did(truth.STARTED)
    await asyncio.sleep(0)
    return value


def fail(kind: str, message: str) -> None:
    """Raise a builtin exception, or one of our own."""
    did(truth.STARTED)
    raise getattr(builtins, kind, OwnError)(message)


async def fail_later(message: str) -> None:
    """Raise before anything is awaited."""
    did(truth.STARTED)
    raise ValueError(message)


def hold() -> str:
    """Return when the test says so, whatever the signal says."""
    did(truth.STARTED)
    truth.hold(current_call().id)
    return "held"


def hold_and_fail() -> None:
    """Raise when the test says so."""
    hold()
    raise KeyError("held")


def deaf() -> str:
    """The same, with a grace that ends."""
    return hold()


def polite(signal: AbortSignal) -> str:
    """End as soon as it is asked to."""
    did(truth.STARTED)
    signal.wait(NEVER)
    did(TOLD)
    signal.raise_if_aborted()
    return "nobody asked"


def reluctant(signal: AbortSignal) -> str:
    """Hear the signal, and end by it when the test says so."""
    did(truth.STARTED)
    signal.wait(NEVER)
    did(TOLD)
    truth.hold(current_call().id)
    signal.raise_if_aborted()
    return "nobody asked"


def report(total: int) -> str:
    """Say how far it is."""
    did(truth.STARTED)
    current_call().progress(1, total, "begun")
    truth.hold(current_call().id)
    return "reported"


def ask_for_itself(name: str) -> str:
    """Ask for the state of the very call that this is."""
    return str(find(name).get_state(current_call().id))


def own_id() -> str:
    """Return the id of the very call that this is."""
    return current_call().id


def left_to_run() -> float | None:
    """Return the seconds until its timeout."""
    deadline = current_call().deadline
    return None if deadline is None else (deadline - datetime.now(UTC)).total_seconds()


def meddle(name: str, call_id: str, deed: str) -> list[Any]:
    """Do something to another call, from where this one runs; return where that is, and what it gave."""
    other = find(name)
    deeds: dict[str, Callable[[], Any]] = {
        "state": lambda: str(other.get_state(call_id)),
        "abort": lambda: other.abort(call_id, "from elsewhere"),
        "result": lambda: other.get_result(call_id, wait=20, allow_in_task=True),
        "remove": lambda: other.remove(call_id),
    }
    return [os.getpid(), deeds[deed]()]


def look_around() -> list[Any]:
    """Return where it runs, and which other calls and timers are known there; held, so that several go everywhere."""
    hold()
    mine = current_call().id
    calls = [call_id for call_id, _ in board.runs() if call_id != mine]
    timers = [thread.name for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    return [os.getpid(), calls, timers]


def knows_django() -> bool:
    """Whether Django can be imported where it runs."""
    try:
        import django  # noqa: F401
    except ImportError:
        return False
    return True


def stumble(times: int) -> str:
    """Let the store refuse the outcome of this very call for a while."""
    did(truth.STARTED)
    if _task:
        _refuse(type(runtime_of(_task.app).own), "settle", times)
    else:
        _refuse(type(here.store), "set", times)
    return "stumbled"


def _refuse(kind: Any, method: str, times: int) -> None:
    real, left = getattr(kind, method), times

    def refuse(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            setattr(kind, method, real)
        raise StoreError("away, for a moment")

    setattr(kind, method, refuse)


#: The functions, and the options of `@procedure` for each. Only `deaf` is ever interrupted.
DECLARED: dict[Callable[..., Any], dict[str, Any]] = {
    greet: {},
    give: {},
    give_later: {},
    fail: {},
    fail_later: {},
    hold: {"grace": NEVER},
    hold_and_fail: {"grace": NEVER},
    deaf: {"grace": 0.1},
    polite: {"grace": NEVER},
    reluctant: {"grace": NEVER},
    report: {},
    ask_for_itself: {},
    own_id: {},
    left_to_run: {},
    meddle: {},
    look_around: {},
    knows_django: {},
    stumble: {},
}


def declare(app: Celery) -> SimpleNamespace:
    """Return the procedures, as tasks of `app` only: other grounds have their own."""
    return _made(lambda function: app.task(name=PREFIX + function.__name__, shared=False)(function))


def declare_here(store: Any) -> SimpleNamespace:
    """Return the procedures, whose calls run in this process over a bare store."""
    return _made(lambda function: function, store=store)


def _made(target: Callable[[Callable[..., Any]], Any], **common: Any) -> SimpleNamespace:
    made = {
        function.__name__: procedure(**options, **common)(target(function)) for function, options in DECLARED.items()
    }
    return SimpleNamespace(**made)


@signals.task_postrun.connect(weak=False)
def _over(*, task_id: str, task: Any, **_: Any) -> None:
    """Celery is done with a run: by then its outcome has been written, or refused."""
    if task.name.startswith(PREFIX):
        truth.note(OVER, task_id)
