"""Calls that are stopped by a time limit, and calls whose process dies under them."""

import pytest

from tests.integration.cells import BASE, GEVENT, MARIADB, MATRIX, RABBITMQ, SOLO, THREADS, on

SOFT = "billiard.exceptions.SoftTimeLimitExceeded"
HARD = "billiard.exceptions.TimeLimitExceeded"
LOST = "billiard.exceptions.WorkerLostError"


@on(BASE, RABBITMQ, MATRIX)
def test_a_soft_limit_fails_the_call(cell):
    call = cell.tasks.soft_limit.apply_async(soft_time_limit=0.5)
    cell.expect(call, "failed", "time_limit", error=SOFT)


@on(BASE)
def test_a_soft_limit_that_the_task_catches_does_not(cell):
    cell.expect(cell.tasks.soft_limit_caught.apply_async(soft_time_limit=0.5), "succeeded")


@on(BASE, RABBITMQ, GEVENT, MARIADB, MATRIX)
def test_a_hard_limit_fails_the_call_once(cell):
    # Celery 5.7 says it twice, 5.6 not at all.
    call = cell.tasks.hard_limit.apply_async(time_limit=0.5)
    cell.expect(call, "failed", "time_limit", error=HARD, message="TimeLimitExceeded(0.5,)")


@on(BASE, RABBITMQ)
def test_a_hard_limit_fails_a_call_that_is_acknowledged_late(cell):
    call = cell.tasks.hard_limit_late.apply_async(time_limit=0.5)
    cell.expect(call, "failed", "time_limit", error=HARD)
    assert cell.runs(call) == 1


@on(BASE, MATRIX)
def test_a_call_whose_process_is_killed_has_failed(cell):
    cell.expect(cell.tasks.die.delay("sigkill"), "failed", "worker_lost", error=LOST)


@pytest.mark.parametrize("how", ["os._exit", "sys.exit"])
@on(BASE)
def test_a_call_that_ends_its_process_has_failed(cell, how):
    cell.expect(cell.tasks.die.delay(how), "failed", "worker_lost", error=LOST)


@on(BASE, RABBITMQ)
def test_a_late_call_whose_process_dies_has_failed_too_for_celery_acknowledges_it(cell):
    call = cell.tasks.die_late.delay("sigkill")
    cell.expect(call, "failed", "worker_lost", error=LOST)
    assert cell.runs(call) == 1


@on(BASE, RABBITMQ)
def test_a_call_that_is_given_back_when_its_process_dies_runs_again(cell):
    # No signal tells of the first run's end: the spool does, when its main process has had the time to speak.
    call = cell.tasks.die_once.delay()
    cell.expect(call, "succeeded", attempt=2, attempts=["1 interrupted WorkerLost"])
    assert cell.runs(call) == 2


@on(BASE)
def test_a_dying_process_takes_no_other_call_with_it(cell):
    dying = [cell.tasks.die.delay("sigkill") for _ in range(2)]
    others = [cell.tasks.add.delay(number, 1) for number in range(10)]
    for call in dying:
        cell.expect(call, "failed", "worker_lost", error=LOST)
    for call in others:
        cell.expect(call, "succeeded")


@on(THREADS, SOLO)
def test_pools_without_limits_end_the_call_as_it_ends_itself(cell):
    call = cell.tasks.held.apply_async(time_limit=0.1, soft_time_limit=0.1)
    cell.until_running(call)
    cell.release(call)
    cell.expect(call, "succeeded")
