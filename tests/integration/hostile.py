"""Procedures for tests that mean harm, and processes that die or stand still at a boundary of a call's life.

A test says where by a file beside the truth file, `<call id>.<boundary>`: what it holds
happens once, in the process that comes there first. "kill" ends it, "hold" lets it wait for
the test. At `answer-claim`, "tell" notes whether the claim was granted. The boundaries are `body`,
and before and after each of

    insert, publish                 of whoever calls; `send`: the message is given to the broker
    claim, settle                   of the run
    acknowledge                     of the worker's main process
    attend, sending, publish        of the side process, before it sends a message again
"""

import contextlib
import os
import signal as os_signal
import time
from pathlib import Path
from typing import Any

import amqp
from celery import Task, shared_task
from celery.exceptions import Retry
from kombu.message import Message
from kombu.transport import redis

from django_app.stores import DjangoTrackingStore
from lrp_celery import current_call, procedure
from lrp_celery.procedures.aborts import board
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.tracking.owned import Verdict
from tests.integration import truth
from tests.integration.truth import STARTED, hold, note

FOREVER = 60.0
#: Of a run.
BOUNDARIES = ("before-claim", "after-claim", "body", "before-settle", "after-settle")


def trap(folder: Path, call_id: str, boundary: str, what: str) -> None:
    """Let `what` happen at a boundary of a call."""
    (folder / f"{call_id}.{boundary}").write_text(what)


def _pass(boundary: str, call_id: str, answer: Any = None) -> None:
    place = Path(os.environ[truth.FOLDER]) / f"{call_id}.{boundary}"
    taken = place.with_name(f"{place.name}.taken")
    with contextlib.suppress(FileNotFoundError):
        place.rename(taken)
        what = taken.read_text()
        said = answer.verdict if what == "tell" else what
        note(f"{said}@{boundary}", call_id)
        if what == "kill":
            os.kill(os.getpid(), os_signal.SIGKILL)
        if what == "hold":
            hold(call_id, place=boundary)


def _guard(owner: Any, method: str, call_id_of: Any, name: str) -> None:
    original = getattr(owner, method)

    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        call_id = call_id_of(self, *args)
        _pass(f"before-{name}", call_id)
        answer = original(self, *args, **kwargs)
        _pass(f"answer-{name}", call_id, answer)
        # A copy that is refused is past no boundary of the call.
        if getattr(answer, "verdict", Verdict.GRANTED) is Verdict.GRANTED:
            _pass(f"after-{name}", call_id)
        return answer

    setattr(owner, method, guarded)


#: What is guarded, by its name: whose method, and which call its arguments are about.
_GUARDED: dict[str, tuple[Any, str, Any]] = {
    "insert": (DjangoTrackingStore, "insert", lambda _, order: order.call_id),
    "claim": (DjangoTrackingStore, "claim", lambda _, delivery: delivery.call_id),
    "settle": (DjangoTrackingStore, "settle", lambda _, call_id, *__: call_id),
    "attend": (DjangoTrackingStore, "attend", lambda _, call_id, *__: call_id),
    "sending": (DjangoTrackingStore, "sending", lambda _, call_id, *__: call_id),
    "publish": (Envelope, "publish", lambda envelope, *_: envelope.headers["id"]),
    "acknowledge": (Message, "ack", lambda message: (message.headers or {}).get("id")),
}
#: What is handed to the broker, before it has said that it has it.
_SENT: tuple[tuple[Any, str, Any], ...] = (
    (redis.Channel, "_put", lambda _, __, message: message["headers"].get("id")),
    (amqp.Channel, "_basic_publish", lambda _, message, *__: (message.headers or {}).get("id")),
)
#: All boundaries that there are.
ALL = frozenset({"body", *(f"{when}-{name}" for name in (*_GUARDED, "send") for when in ("before", "after"))})

if truth.FOLDER in os.environ:
    for _name, _place in _GUARDED.items():
        _guard(*_place, _name)
    for _place in _SENT:
        _guard(*_place, "send")


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
@shared_task(name="tests.comes_again", reject_on_worker_lost=True)
def comes_again(value: int) -> int:
    """Its message goes back to the broker when its process dies."""
    note(STARTED)
    return value


@procedure(idempotent=True)
@shared_task(name="tests.meets")
def meets(*, fails: bool = False) -> str:
    """Notes whether it came to its end, too."""
    note(STARTED)
    _pass("body", current_call().id)
    note("raises" if fails else "returns")
    if fails:
        raise ValueError("as it was to be")
    return "met"


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
#: Seconds by which a body ends later than the one before, if that came to its end, or earlier, if that was struck.
STEP = 0.004


class _Aim:
    """Ends bodies about when they are struck, of which neither always comes first, however late a busy machine strikes."""

    def __init__(self) -> None:
        self.was_in_time = False
        self._later = 0.0

    def seconds(self) -> float:
        """Return how long the next body is to work."""
        self._later += STEP if self.was_in_time else -STEP
        self.was_in_time = False
        return GRACE + self._later


_ending, _catching = _Aim(), _Aim()


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
    _about(_ending.seconds() + more)
    _ending.was_in_time = True
    return "in time"


@procedure(grace=GRACE)
@shared_task(name="tests.catches_as_it_is_struck")
def catches_as_it_is_struck(more: float) -> str:
    """The same, of a body that lets no exception pass."""
    note(STARTED)
    catches_as_it_is_struck.abort(current_call().id)
    end = time.monotonic() + _catching.seconds() + more
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            _about(0.002)
    _catching.was_in_time = True
    return "in time"


@procedure
@shared_task(name="tests.census")
def census() -> list[int]:
    """Return this process, and how many runs are under way in it."""
    note(STARTED)
    _about(0.005)
    return [os.getpid(), len(board.runs())]
