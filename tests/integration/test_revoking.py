"""Calls that others call off: before they begin, while they wait, while they run, too late."""

import contextlib
import signal
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest

from tests.integration.cells import BASE, GEVENT, MARIADB, MATRIX, RABBITMQ, SOLO, SQLITE, THREADS, on
from tests.integration.harness import eventually

SOFT = "billiard.exceptions.SoftTimeLimitExceeded"


@contextlib.contextmanager
def busy(cell, children=2):
    """Keep every process of the pool busy."""
    held = [cell.until_running(cell.tasks.held.delay()) for _ in range(children)]
    yield
    cell.release(*held)
    for call in held:
        cell.expect(call, "succeeded", source=ANY)


def workers_know(cell, call):
    """Wait until the worker has the id among its revoked ones."""
    inspect = cell.app.control.inspect(timeout=5, limit=1, destination=[cell.worker_name])

    def known():
        return call.id in (inspect.revoked() or {}).get(cell.worker_name, [])

    eventually(f"the worker knows that {call.id} is revoked", known)


@on(BASE, RABBITMQ, MARIADB, MATRIX)
def test_a_call_revoked_before_a_worker_takes_it_is_discarded(cell):
    call = cell.app.AsyncResult(f"revoked-{cell.name}")
    call.revoke()
    workers_know(cell, call)
    cell.tasks.add.apply_async((1, 1), task_id=call.id)
    cell.expect(call, "discarded", "revoked", attempt=0)
    assert cell.runs(call) == 0


@on(BASE, RABBITMQ)
def test_a_call_revoked_while_a_worker_keeps_it_waiting_is_discarded(cell):
    with busy(cell):
        call = cell.tasks.add.delay(1, 1)
        call.revoke()
        workers_know(cell, call)
    cell.expect(call, "discarded", "revoked", attempt=0)
    assert cell.runs(call) == 0


@on(BASE, RABBITMQ, SOLO)
def test_a_call_revoked_while_it_waits_for_its_time_is_discarded_when_that_comes(cell):
    call = cell.tasks.add.apply_async((1, 1), countdown=2)
    call.revoke()
    workers_know(cell, call)
    cell.expect(call, "discarded", "revoked", attempt=0)


@on(BASE)
def test_a_call_revoked_between_two_attempts_is_discarded_and_keeps_the_first(cell):
    call = cell.tasks.retry.delay(1, countdown=2)
    cell.wait_for(call, lambda row: row.status == "retrying")
    call.revoke()
    runs = ["1 retried celery.exceptions.Retry"]
    cell.expect(call, "discarded", "revoked", retries=1, attempts=runs)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL", "SIGQUIT"])
@on(BASE, RABBITMQ)
def test_a_running_call_that_is_terminated_is_discarded(cell, number):
    call = cell.until_running(cell.tasks.held.delay())
    call.revoke(terminate=True, signal=number)
    cell.expect(call, "discarded", "revoked")


@on(BASE, SQLITE)
def test_a_running_call_that_is_revoked_gently_runs_on(cell):
    call = cell.until_running(cell.tasks.held.delay())
    call.revoke()
    workers_know(cell, call)
    cell.release(call)
    cell.expect(call, "succeeded")


@on(GEVENT)
def test_a_running_call_in_a_greenlet_is_terminated(cell):
    call = cell.until_running(cell.tasks.held.delay())
    call.revoke(terminate=True)
    cell.expect(call, "discarded", "revoked")
    cell.expect(cell.tasks.add.delay(1, 1), "succeeded")


@on(THREADS)
def test_a_running_call_in_a_thread_cannot_be_terminated_and_runs_on(cell):
    call = cell.until_running(cell.tasks.held.delay())
    call.revoke(terminate=True)
    workers_know(cell, call)
    cell.release(call)
    cell.expect(call, "succeeded")


@on(BASE)
def test_a_running_call_that_is_told_to_stop_by_its_soft_limits_signal_has_failed(cell):
    call = cell.until_running(cell.tasks.held.delay())
    call.revoke(terminate=True, signal="SIGUSR1")
    cell.expect(call, "failed", "time_limit", error=SOFT)


@on(BASE)
def test_a_call_that_does_not_listen_when_it_is_terminated_has_succeeded(cell):
    call = cell.until_running(cell.tasks.stubborn.delay())
    call.revoke(terminate=True, signal=signal.SIGTERM.name)
    # The row remembers that somebody wants its end, and does not end it.
    cell.wait_for(call, lambda row: row.stop_reason == "revoked")
    cell.release(call)
    cell.expect(call, "succeeded")


@pytest.mark.integration
@pytest.mark.services
def test_a_process_that_outlived_a_revoke_and_dies_later_has_not_been_revoked(make_room):
    room = make_room()
    room.worker(concurrency=1)
    stubborn = room.until_running(room.tasks.stubborn.delay())
    stubborn.revoke(terminate=True, signal=signal.SIGTERM.name)
    room.wait_for(stubborn, lambda row: row.stop_reason == "revoked")
    room.release(stubborn)
    room.expect(stubborn, "succeeded")
    died = room.wait_for(room.tasks.die.delay("sigkill"))
    assert (died.status, died.reason, died.pid) == ("failed", "worker_lost", room.find(stubborn).pid)
    # Celery itself is mistaken about it.
    assert died.error_type in {"billiard.exceptions.WorkerLostError", "WorkerLost"}


@on(BASE, THREADS, GEVENT)
def test_a_call_revoked_after_its_end_keeps_it(cell):
    call = cell.tasks.add.delay(1, 1)
    cell.expect(call, "succeeded")
    failed = cell.tasks.fail.delay()
    cell.expect(failed, "failed", error="ValueError")
    for ended in (call, failed):
        ended.revoke(terminate=True)
        workers_know(cell, ended)


@on(BASE)
def test_an_ignored_call_that_is_revoked_afterwards_stays_ignored(cell):
    call = cell.tasks.ignore.delay()
    cell.expect(call, "discarded", "ignored")
    call.revoke()
    workers_know(cell, call)


# --- Expiry


@on(BASE, MATRIX)
def test_a_call_that_expires_before_it_begins_is_discarded(cell):
    with busy(cell):
        call = cell.tasks.add.apply_async((1, 1), expires=datetime.now(UTC) + timedelta(seconds=0.2))
        row = cell.find(call.id)
        assert row.expires_at > row.enqueued_at
        cell.wait_for(call, lambda row: row.expires_at < datetime.now(UTC))
    cell.expect(call, "discarded", "expired", attempt=0)
    assert cell.runs(call) == 0
