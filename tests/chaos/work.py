"""The tasks that are called while everything is being killed; each tells the ledger when its body begins and ends."""

from __future__ import annotations

import os
import signal as os_signal
import time
from dataclasses import dataclass
from typing import Any

from celery import current_task, shared_task

from lrp_celery import AbortSignal, current_call, procedure
from tests.chaos import ledger
from tests.chaos.clocks import OFF
from tests.chaos.terms import BRIEF, FORGOTTEN_AFTER

#: Losses that end a call, and turns that one asks for.
ATTEMPTS = 3
RETRIES = 2
#: Seconds that a run takes which repeats a lost one.
REPEATED = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """What is right for a call of a task: what its body does, and what may become of it."""

    owned: bool = True
    idempotent: bool = False
    retries: int = 0
    raises: str | None = None
    times_out: bool = False
    poison: bool = False
    kept: float | None = None
    """Seconds for which a purge must leave it alone, if it may go at all."""


#: By task name; how often callers choose it.
NATURES = {
    "tests.chaos.once": (Nature(), 18),
    "tests.chaos.again": (Nature(idempotent=True), 22),
    "tests.chaos.retried": (Nature(idempotent=True, retries=RETRIES), 8),
    "tests.chaos.retried_once": (Nature(retries=RETRIES), 6),
    "tests.chaos.raises": (Nature(raises="ValueError"), 6),
    "tests.chaos.stoppable": (Nature(idempotent=True), 10),
    "tests.chaos.endless": (Nature(times_out=True), 4),
    "tests.chaos.poison": (Nature(idempotent=True, poison=True), 1),
    "tests.chaos.brief": (Nature(idempotent=True, kept=BRIEF), 6),
    "tests.chaos.early": (Nature(owned=False), 7),
    "tests.chaos.late": (Nature(owned=False), 5),
    "tests.chaos.late_again": (Nature(owned=False), 3),
    "tests.chaos.forgotten": (Nature(owned=False, kept=FORGOTTEN_AFTER), 4),
    "tests.chaos.stored": (Nature(owned=False), 4),
}


def nature_of(task: str) -> Nature:
    """Return what is right for calls of a task."""
    return NATURES[task][0]


def right_value(value: int) -> int:
    """Return what a call with this argument must return, if it succeeds."""
    return value * 2 + 1


def seconds(value: int) -> float:
    """Return how long the body works with this argument: from nothing to half a second, so that kills meet every stage."""
    return value % 7 * 0.07


def _began() -> dict[str, Any]:
    call = current_call() if nature_of(current_task.name).owned else None
    facts: dict[str, Any] = {"attempt": call.attempt if call else None, "retries": current_task.request.retries}
    ledger.write("began", current_task.request.id, **facts)
    return facts


def _work(value: int) -> int:
    facts = _began()
    time.sleep(seconds(value))
    if facts["retries"] == 0 and (facts["attempt"] or 1) > 1:
        # The run before was lost: whoever was only frozen wakes up while this one goes on.
        time.sleep(REPEATED)
    ledger.write("ended", current_task.request.id, **facts, value=right_value(value))
    return right_value(value)


@procedure
@shared_task(name="tests.chaos.once")
def once(value: int) -> int:
    return _work(value)


@procedure(idempotent=True, max_attempts=ATTEMPTS)
@shared_task(name="tests.chaos.again")
def again(value: int) -> int:
    return _work(value)


@procedure(idempotent=True, max_attempts=ATTEMPTS)
@shared_task(name="tests.chaos.retried", bind=True, max_retries=RETRIES)
def retried(self: Any, value: int) -> int:
    return _retry(self, value)


@procedure
@shared_task(name="tests.chaos.retried_once", bind=True, max_retries=RETRIES)
def retried_once(self: Any, value: int) -> int:
    return _retry(self, value)


def _retry(task: Any, value: int) -> int:
    if task.request.retries < RETRIES:
        _began()
        # Celery has each worker wait by its own clock.
        raise task.retry(countdown=0 if OFF in os.environ else value % 2 * 0.3)
    return _work(value)


@procedure
@shared_task(name="tests.chaos.raises")
def raises(value: int) -> int:
    _began()
    raise ValueError("as it was to be")


@procedure(idempotent=True, max_attempts=ATTEMPTS, grace=0.3)
@shared_task(name="tests.chaos.stoppable")
def stoppable(signal: AbortSignal, value: int) -> int:
    facts = _began()
    if value % 2:
        signal.wait(value % 9 * 0.1)
        signal.raise_if_aborted()
    else:
        time.sleep(value % 9 * 0.1)
    ledger.write("ended", current_call().id, **facts, value=right_value(value))
    return right_value(value)


@procedure(timeout=1.5, grace=0.3)
@shared_task(name="tests.chaos.endless")
def endless(value: int) -> int:
    _began()
    time.sleep(60)
    return value


@procedure(idempotent=True, max_attempts=ATTEMPTS)
@shared_task(name="tests.chaos.poison")
def poison(value: int) -> int:
    _began()
    os.kill(os.getpid(), os_signal.SIGKILL)
    return value


@procedure(idempotent=True, max_attempts=ATTEMPTS, time_to_live=BRIEF)
@shared_task(name="tests.chaos.brief")
def brief(value: int) -> int:
    return _work(value)


@shared_task(name="tests.chaos.early")
def early(value: int) -> int:
    return _work(value)


@shared_task(name="tests.chaos.late", acks_late=True)
def late(value: int) -> int:
    return _work(value)


@shared_task(name="tests.chaos.late_again", acks_late=True, reject_on_worker_lost=True)
def late_again(value: int) -> int:
    return _work(value)


@shared_task(name="tests.chaos.forgotten")
def forgotten(value: int) -> int:
    return _work(value)


@shared_task(name="tests.chaos.stored", ignore_result=False, track_started=True)
def stored(value: int) -> int:
    """What django-celery-results keeps, too."""
    return _work(value)
