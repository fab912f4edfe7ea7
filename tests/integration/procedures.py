"""A procedure for every way in which an owned call can go. Each notes what it really does in the truth file."""

import asyncio
import os
import signal as os_signal
import threading
import time
from dataclasses import dataclass
from datetime import date
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject

from lrp_celery import AbortSignal, current_call, procedure
from tests.integration.truth import STARTED, hold, note

FOREVER = 60.0


@dataclass(frozen=True)
class Month:
    """Something that travels by its annotation."""

    first: date
    days: int


@procedure
@shared_task(name="tests.double")
def double(number: int, by: int = 2) -> int:
    note(STARTED)
    return number * by


@procedure
@shared_task(name="tests.next_month")
def next_month(month: Month) -> Month:
    note(STARTED)
    return Month(date(month.first.year, month.first.month + 1, 1), month.days)


@procedure
@shared_task(name="tests.owned_fail")
def owned_fail(message: str, password: str = "") -> None:
    note(STARTED)
    raise ValueError(message)


@procedure
@shared_task(name="tests.owned_end")
def owned_end(how: str) -> object:
    note(STARTED)
    if how == "ignore":
        raise Ignore("not today")
    if how == "reject":
        raise Reject("not here", requeue=False)
    if how == "result":
        return threading.Lock()
    raise KeyError(how)


@procedure
@shared_task(name="tests.owned_retry", bind=True, max_retries=2, default_retry_delay=0)
def owned_retry(self: Any, succeed_at: int) -> int:
    note(STARTED)
    if self.request.retries < succeed_at:
        raise self.retry(exc=ValueError(f"try {self.request.retries}"))
    return int(self.request.retries)


@procedure
@shared_task(
    name="tests.owned_autoretry", autoretry_for=(ValueError,), max_retries=3, retry_backoff=False, default_retry_delay=0
)
async def owned_autoretry(succeed_at: int) -> int:
    note(STARTED)
    await asyncio.sleep(0)
    retries = int(owned_autoretry.request.retries)
    if retries < succeed_at:
        raise ValueError(f"try {retries}")
    return retries


@procedure
@shared_task(name="tests.owned_hold")
def owned_hold() -> str:
    note(STARTED)
    hold(current_call().id)
    return "held"


@procedure(idempotent=True)
@shared_task(name="tests.owned_hold_again")
def owned_hold_again() -> str:
    note(STARTED)
    hold(current_call().id)
    return "held"


@procedure(grace=0.5)
@shared_task(name="tests.polite")
def polite(signal: AbortSignal) -> str:
    note(STARTED)
    signal.wait(FOREVER)
    signal.raise_if_aborted()
    return "nobody asked"


@procedure(grace=0.5)
@shared_task(name="tests.deaf", autoretry_for=(Exception,), max_retries=5, default_retry_delay=0)
def deaf() -> str:
    note(STARTED)
    try:
        time.sleep(FOREVER)
    except Exception:
        note("caught")
        raise
    return "slept"


@procedure(grace=0.5)
@shared_task(name="tests.busy")
def busy() -> int:
    note(STARTED)
    count = 0
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        count += 1
    return count


@procedure(grace=0.5)
@shared_task(name="tests.deaf_coroutine")
async def deaf_coroutine() -> str:
    note(STARTED)
    await asyncio.sleep(FOREVER)
    return "slept"


@procedure(timeout=1.0, grace=0.3)
@shared_task(name="tests.short_lived")
def short_lived() -> str:
    note(STARTED)
    time.sleep(FOREVER)
    return "slept"


@procedure(idempotent=True, max_attempts=2)
@shared_task(name="tests.suicidal")
def suicidal(survive_at: int) -> int:
    note(STARTED)
    attempt = current_call().attempt
    if attempt < survive_at:
        os.kill(os.getpid(), os_signal.SIGKILL)
    return attempt
