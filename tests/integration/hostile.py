"""Procedures for tests that mean harm, and workers that die or stand still at a boundary of a call's life.

A test says where by a file beside the truth file, `<call id>.<boundary>`: what it holds,
"kill" or "hold", happens once, in the process that comes there first. Boundaries are
`before-claim`, `after-claim`, `body`, `before-settle` and `after-settle`.
"""

import contextlib
import os
import signal as os_signal
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Retry

from django_app.stores import DjangoTrackingStore
from lrp_celery import current_call, procedure
from lrp_celery.procedures.aborts import board
from tests.integration import truth
from tests.integration.truth import STARTED, hold, note

FOREVER = 60.0
BOUNDARIES = ("before-claim", "after-claim", "body", "before-settle", "after-settle")


def trap(folder: Path, call_id: str, boundary: str, what: str) -> None:
    """Let `what` happen at a boundary of a call."""
    (folder / f"{call_id}.{boundary}").write_text(what)


def _pass(boundary: str, call_id: str) -> None:
    place = Path(os.environ[truth.FOLDER]) / f"{call_id}.{boundary}"
    taken = place.with_suffix(".taken")
    with contextlib.suppress(FileNotFoundError):
        place.rename(taken)
        what = taken.read_text()
        note(f"{what}@{boundary}", call_id)
        if what == "kill":
            os.kill(os.getpid(), os_signal.SIGKILL)
        hold(call_id)


def _guard(name: str, call_id_of: Any) -> None:
    original = getattr(DjangoTrackingStore, name)

    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        call_id = call_id_of(*args)
        _pass(f"before-{name}", call_id)
        answer = original(self, *args, **kwargs)
        _pass(f"after-{name}", call_id)
        return answer

    setattr(DjangoTrackingStore, name, guarded)


if truth.FOLDER in os.environ:
    _guard("claim", lambda delivery: delivery.call_id)
    _guard("settle", lambda call_id, *_: call_id)


@procedure
@shared_task(name="tests.once")
def once(value: int = 1) -> int:
    note(STARTED)
    _pass("body", current_call().id)
    return value


@procedure(idempotent=True)
@shared_task(name="tests.again")
def again(value: int = 1) -> int:
    note(STARTED)
    _pass("body", current_call().id)
    return value


@procedure
@shared_task(name="tests.slow")
def slow(seconds: float) -> float:
    note(STARTED)
    time.sleep(seconds)
    return seconds


@procedure
@shared_task(name="tests.held_in_turn", bind=True, max_retries=5)
def held_in_turn(self: Any, turn: int, countdown: float = 0, value: int = 0) -> int:
    """Retries until its turn `turn`, where it waits to be let go."""
    note(STARTED)
    if self.request.retries < turn:
        raise self.retry(countdown=countdown)
    hold(current_call().id)
    return value


@procedure
@shared_task(name="tests.raises_retry", bind=True)
def raises_retry(self: Any) -> int:
    """Raises what `retry` raises, without having published anything."""
    note(STARTED)
    if self.request.retries == 0:
        raise Retry("by hand")
    return int(self.request.retries)


@procedure
@shared_task(name="tests.retries_and_returns", bind=True)
def retries_and_returns(self: Any) -> int:
    note(STARTED)
    if self.request.retries == 0:
        self.retry(countdown=0, throw=False)
    return int(self.request.retries)


class Watchful(Task):  # type: ignore[type-arg]  # generic in its stubs only
    """A base class as users write them."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("before_start")
        if kwargs.get("refuse"):
            raise PermissionError("not before Monday")


@procedure
@shared_task(name="tests.watched", base=Watchful)
def watched(*, refuse: bool = False) -> int:
    note(STARTED)
    hold(current_call().id)
    return 1


GRACE = 0.05


def _about(seconds: float) -> None:
    """Work for about so long, where an interrupt may strike at any step."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(50))


@procedure(grace=GRACE)
@shared_task(name="tests.ends_as_it_is_struck")
def ends_as_it_is_struck(more: float) -> str:
    """Asks for its own end, and comes to it about when its grace does: `more` seconds later, or earlier."""
    note(STARTED)
    ends_as_it_is_struck.abort(current_call().id)
    _about(GRACE + more)
    return "in time"


@procedure(grace=GRACE)
@shared_task(name="tests.catches_as_it_is_struck")
def catches_as_it_is_struck(more: float) -> str:
    """The same, of a body that lets no exception pass."""
    note(STARTED)
    catches_as_it_is_struck.abort(current_call().id)
    end = time.monotonic() + GRACE + more
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            _about(0.002)
    return "in time"


@procedure
@shared_task(name="tests.census")
def census() -> list[int]:
    """Return this process, and how many runs are under way in it."""
    note(STARTED)
    _about(0.005)
    return [os.getpid(), len(board.runs())]
