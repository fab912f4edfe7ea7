"""Calls that run inside their caller: no broker, no worker, and the caller's own connection."""

import contextlib
import os

import pytest
from celery.exceptions import Retry
from django.db import connections, transaction
from django.db.models import Q

from tests.integration.cells import BASE, MARIADB, MATRIX, SQLITE, on


@contextlib.contextmanager
def eagerly(cell, *, propagates=False):
    cell.app.conf.update(task_always_eager=True, task_eager_propagates=propagates)
    try:
        yield
    finally:
        cell.app.conf.update(task_always_eager=False, task_eager_propagates=False)


@on(BASE, MARIADB, MATRIX)
def test_an_eager_call_that_returns_has_succeeded(cell):
    with eagerly(cell):
        call = cell.tasks.add.delay(1, 2)
    assert call.result == 3
    row = cell.wait_for(call)
    assert (row.status, row.attempt, row.retries, row.pid) == ("succeeded", 1, 0, os.getpid())
    assert row.target_summary == "1, 2"


@on(BASE)
def test_apply_runs_the_call_in_place_and_tracks_it(cell):
    call = cell.tasks.add.apply((1, 2))
    assert call.result == 3
    assert cell.wait_for(call).status == "succeeded"


@on(BASE, SQLITE)
def test_an_eager_call_that_raises_has_failed(cell):
    with eagerly(cell):
        call = cell.tasks.fail.delay("KeyError", "k")
    assert isinstance(call.result, KeyError)
    row = cell.wait_for(call)
    assert (row.status, row.reason, row.error_type) == ("failed", None, "KeyError")


@on(BASE)
def test_an_eager_call_that_raises_into_its_caller_has_failed_just_so(cell):
    with eagerly(cell, propagates=True), pytest.raises(KeyError):
        cell.tasks.fail.apply_async(("KeyError", "k"), task_id="eager-propagates")
    row = cell.wait_for("eager-propagates")
    assert (row.status, row.reason, row.error_type) == ("failed", None, "KeyError")


@on(BASE)
def test_an_eager_call_that_retries_has_its_attempts(cell):
    with eagerly(cell):
        call = cell.tasks.autoretry.delay(1)
    row = cell.wait_for(call)
    assert (row.status, row.retries, row.attempt) == ("succeeded", 1, 2)
    assert [attempt.outcome for attempt in cell.attempts(call.id)] == ["retried"]


@on(BASE)
def test_an_eager_call_without_retries_left_is_parked(cell):
    with eagerly(cell):
        call = cell.tasks.autoretry.delay(99)
    row = cell.wait_for(call)
    assert (row.status, row.reason, row.retries, row.attempt) == ("parked", "max_retries", 2, 3)


@on(BASE)
def test_a_retry_that_escapes_to_its_caller_leaves_a_call_that_waits(cell):
    # Celery hands Retry to the caller, and nobody runs the next attempt.
    with eagerly(cell, propagates=True), pytest.raises((Retry, KeyError)):
        cell.tasks.autoretry.apply_async((99,), task_id="eager-retry-escapes")
    row = cell.find("eager-retry-escapes")
    assert row.status in {"retrying", "parked"}


@on(BASE)
def test_an_eager_call_that_ignores_or_rejects_itself_is_discarded(cell):
    with eagerly(cell):
        ignored, rejected = cell.tasks.ignore.delay(), cell.tasks.reject.delay()
    assert cell.wait_for(ignored).reason == "ignored"
    assert cell.wait_for(rejected).reason == "rejected"


@on(BASE, SQLITE)
def test_an_eager_call_shares_its_callers_transaction(cell):
    with eagerly(cell):
        with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=cell.alias):
            undone = cell.tasks.add.delay(1, 2)
            assert cell.find(undone.id).status == "succeeded"
            raise ZeroDivisionError
        with transaction.atomic(using=cell.alias):
            done = cell.tasks.add.delay(1, 2)
    assert not connections[cell.alias].in_atomic_block
    assert cell.has_no_row(undone)
    assert cell.find(done.id).status == "succeeded"


@on(BASE)
def test_a_task_called_as_a_function_is_no_call(cell):
    def made_here():
        # By this process or this test: the worker may still run what earlier tests have called.
        return [row.pk for row in cell.found(Q(pid=os.getpid()) | Q(source_script=cell.script))]

    before = made_here()
    assert cell.tasks.add(1, 2) == 3
    assert made_here() == before
