"""What a type checker knows of procedures. Nothing here is run: mypy reads it, and test_typing.py has it read.

`assert_type` says what it must know. A wrong call carries the error that it must be, for an
`ignore` that ignores nothing is an error itself.
"""

import asyncio
from datetime import date, timedelta
from typing import Any, assert_type

from celery import Celery, shared_task
from celery.app.task import Task

from lrp_celery import (
    AbortController,
    AbortSignal,
    Caller,
    CallSnapshot,
    CallState,
    LongRunningProcedure,
    PollingCaller,
    procedure,
)
from lrp_celery.procedures.local import LocalProcedure
from lrp_celery.procedures.stores import MemoryStore

app = Celery("typing")
Report = dict[str, int]


# --- Every way to declare one


@procedure
@shared_task
def plain(month: str, pages: int = 1) -> Report:
    return {month: pages}


@procedure(timeout=timedelta(minutes=30), time_to_live=None, idempotent=True, sensitive=["month"])
@shared_task(name="typing.with_options", acks_late=True)
def with_options(month: str, pages: int = 1) -> Report:
    return {month: pages}


@procedure
@shared_task
def with_signal(signal: AbortSignal, month: str, *, pages: int = 1) -> Report:
    return {month: pages}


@procedure(grace=5)
def alone(signal: AbortSignal, month: str) -> Report:
    return {month: 1}


@procedure
def alone_and_bare(month: str) -> Report:
    return {month: 1}


@procedure
@shared_task
def with_signal_last(month: str, signal: AbortSignal | None = None) -> Report:
    return {month: 1}


@procedure
@shared_task
async def in_loop(month: str) -> Report:
    await asyncio.sleep(0)
    return {month: 1}


@procedure(timeout=60)
@shared_task
async def in_loop_with_signal(signal: AbortSignal, month: str) -> Report:
    await asyncio.sleep(0)
    return {month: 1}


@procedure
@shared_task(bind=True)
def bound(self: Task[[str], Report], month: str) -> Report:
    return {month: self.request.retries}


@procedure
@shared_task(bind=True)
def bound_with_signal(self: object, signal: AbortSignal, month: str) -> Report:
    return {month: 1}


@procedure(store=MemoryStore())
def local(signal: AbortSignal, month: str) -> Report:
    return {month: 1}


@procedure(store=MemoryStore(), timeout=5)
async def local_in_loop(month: str) -> Report:
    await asyncio.sleep(0)
    return {month: 1}


def what_each_returns(call_id: str) -> None:
    assert_type(plain.get_result(call_id), Report)
    assert_type(with_options.get_result(call_id, wait=5), Report)
    assert_type(with_signal.get_result(call_id), Report)
    assert_type(alone.get_result(call_id), Report)
    assert_type(alone_and_bare.get_result(call_id), Report)
    assert_type(with_signal_last.get_result(call_id), Report)
    assert_type(in_loop.get_result(call_id), Report)
    assert_type(in_loop_with_signal.get_result(call_id), Report)
    assert_type(bound.get_result(call_id), Report)
    assert_type(bound_with_signal.get_result(call_id), Report)
    assert_type(local.get_result(call_id), Report)
    assert_type(local_in_loop.get_result(call_id), Report)


def what_each_takes() -> None:
    assert_type(plain.call("2026-10", pages=2), str)
    plain.call(10)  # type: ignore[arg-type]
    plain.call()  # type: ignore[call-arg]
    plain.call("2026-10", 2, 3)  # type: ignore[call-arg]
    plain.call("2026-10", pagse=2)  # type: ignore[call-arg]

    with_options.call("2026-10", 2)
    with_options.call(date(2026, 10, 1))  # type: ignore[arg-type]

    with_signal.call("2026-10", pages=2)
    with_signal.call(AbortController().signal, "2026-10")  # type: ignore[call-arg, arg-type]
    with_signal.call("2026-10", 2)  # type: ignore[call-arg]

    alone.call("2026-10")
    alone.call(AbortController().signal, "2026-10")  # type: ignore[call-arg, arg-type]
    alone_and_bare.call("2026-10", "")  # type: ignore[call-arg]

    in_loop.call("2026-10")
    in_loop.call(10)  # type: ignore[arg-type]
    in_loop_with_signal.call("2026-10")
    in_loop_with_signal.call()  # type: ignore[call-arg]

    bound.call("2026-10")
    bound.call(10)  # type: ignore[arg-type]
    bound_with_signal.call("2026-10")
    bound_with_signal.call(10)  # type: ignore[arg-type]

    local.call("2026-10")
    local.call(10)  # type: ignore[arg-type]
    local_in_loop.call()  # type: ignore[call-arg]


# --- What can be asked of one


def what_can_be_asked(call_id: str) -> None:
    assert_type(plain.get_state(call_id), CallState)
    assert_type(plain.get_call(call_id), CallSnapshot | None)
    plain.abort(call_id, reason="wrong month", by="ada")
    plain.remove(call_id, when_settled=True)
    plain.get_result(call_id, wait="5")  # type: ignore[arg-type]
    assert_type(plain("2026-10"), Report)
    assert_type(in_loop("2026-10"), Report)


def what_a_copy_knows() -> None:
    assert_type(plain.using(queue="slow", timeout=None).call("2026-10"), str)
    plain.using(call_id="report-2026-10").call(10)  # type: ignore[arg-type]
    plain.using(call_id=10)  # type: ignore[arg-type]


async def what_the_twins_return(call_id: str) -> None:
    assert_type(await plain.acall("2026-10"), str)
    await plain.acall(10)  # type: ignore[arg-type]
    assert_type(await plain.aget_state(call_id), CallState)
    assert_type(await plain.aget_call(call_id), CallSnapshot | None)
    assert_type(await with_signal.aget_result(call_id, wait=timedelta(seconds=5)), Report)
    assert_type(await in_loop.aget_result(call_id), Report)


# --- Callers


async def what_callers_know() -> None:
    controller = AbortController()
    assert_type(Caller(plain).call("2026-10"), Report)
    assert_type(Caller(with_signal, signal=controller.signal).call("2026-10", pages=2), Report)
    assert_type(await Caller(in_loop).acall("2026-10"), Report)
    assert_type(PollingCaller(plain, polling_interval=1.0).call("2026-10"), Report)
    assert_type(Caller(local).call("2026-10"), Report)
    Caller(plain).call(10)  # type: ignore[arg-type]
    PollingCaller(plain)  # type: ignore[call-arg]


# --- Where more cannot be known, nothing right is called wrong


@procedure
@app.task(name="typing.of_app")
def of_app(signal: AbortSignal, month: str) -> Report:
    """The types of `app.task` forget the function."""
    return {month: 1}


@procedure
@shared_task
def anything_returned(month: str) -> dict[str, Any]:
    return {month: 1}


@procedure
@shared_task
def anything_with_signal(signal: AbortSignal, month: str) -> dict[str, Any]:
    """A type checker cannot tell which overload an Any means."""
    return {month: 1}


@procedure
@shared_task
def anything_with_signal_by_position(signal: AbortSignal, /, month: str) -> dict[str, Any]:
    """By the slash it can."""
    return {month: 1}


@procedure
@shared_task
async def anything_in_loop(month: str) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {month: 1}


@procedure
@shared_task
def anything_first(value: Any, pages: int = 1) -> Report:
    return {str(value): pages}


@procedure
@shared_task(bind=True)
def bound_to_anything(self: Any, signal: AbortSignal, month: str) -> Report:
    """The types of `shared_task` take what it returns from `self`."""
    return {month: 1}


def what_is_not_known(call_id: str) -> None:
    assert_type(of_app.get_result(call_id), Any)
    of_app.call("2026-10")

    assert_type(anything_returned.get_result(call_id), dict[str, Any])
    anything_returned.call(10)  # type: ignore[arg-type]
    assert_type(anything_with_signal.get_result(call_id), Any)
    anything_with_signal.call("2026-10")
    assert_type(anything_with_signal_by_position.get_result(call_id), dict[str, Any])
    anything_with_signal_by_position.call(10)  # type: ignore[arg-type]
    assert_type(anything_in_loop.get_result(call_id), dict[str, Any])
    anything_in_loop.call(10)  # type: ignore[arg-type]

    anything_first.call(["2026-10"], pages=2)
    bound_to_anything.call("2026-10")


# --- Options


def what_is_refused() -> None:
    procedure(timeout="30 minutes")  # type: ignore[call-overload]
    procedure(tiemout=30)  # type: ignore[call-overload]
    procedure(store=MemoryStore(), idempotent=True)  # type: ignore[call-overload]


def takes_one(one: LongRunningProcedure[[str], Report], here: LocalProcedure[..., Report]) -> str:
    assert_type(here.get_result("any"), Report)
    return one.call("2026-10")


def what_may_be_passed_on() -> None:
    takes_one(plain, local)
    takes_one(with_signal, local_in_loop)
    takes_one(anything_first, plain)  # type: ignore[arg-type]
