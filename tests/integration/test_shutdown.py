"""Workers that are stopped, warmly and coldly, and workers that are killed."""

import signal

import celery
import pytest

from tests.integration.harness import eventually

pytestmark = [pytest.mark.integration, pytest.mark.services]

#: Redis delivers again what was not acknowledged within a second, and looks every second.
SOON = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
LOST = "billiard.exceptions.WorkerLostError"


# --- Killed


def test_a_call_whose_whole_worker_is_killed_stays_open_until_another_worker_looks(make_room):
    """Nobody is left to tell; see `test_rescue`."""
    room = make_room()
    worker = room.worker()
    call = room.until_running(room.tasks.held.delay())
    worker.kill()
    room.expect(call, "started")


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_a_late_call_whose_whole_worker_is_killed_is_run_by_another(make_room, broker):
    room = make_room(broker, transport=SOON if broker == "redis" else None)
    # One process: it must not run the call again itself, before it is killed.
    worker = room.worker(concurrency=1)
    call = room.until_running(room.tasks.held_late.delay())
    worker.kill()
    room.release(call)
    room.worker(name="w2")
    # Nobody reported the end of the first run; the spool shows that it was cut off.
    cut = ["1 interrupted WorkerLost"]
    row = room.expect(call, "succeeded", attempt=2, attempts=cut, worker=room.name_of("w2"))
    assert row.redelivered
    assert room.runs(call) == 2


def test_messages_that_a_killed_worker_had_only_reserved_run_once(make_room):
    room = make_room("rabbitmq")
    worker = room.worker(concurrency=1)
    held = room.until_running(room.tasks.held.delay())
    waiting = room.tasks.add.delay(1, 1)
    worker.kill()
    room.worker(name="w2")
    room.expect(waiting, "succeeded", worker=room.name_of("w2"))
    assert (room.runs(waiting), room.runs(held)) == (1, 1)


def test_a_task_without_memory_takes_the_worker_down_and_has_failed(make_room):
    room = make_room()
    worker = room.worker()
    call = room.tasks.fail.delay("MemoryError")
    room.expect(call, "failed", error="MemoryError")
    worker.wait()


def test_a_call_that_ends_its_own_solo_worker_has_failed(make_room):
    room = make_room()
    worker = room.worker("solo")
    call = room.tasks.die.delay("sys.exit")
    worker.wait()
    room.expect(call, "failed", "worker_lost", error="WorkerLost", attempts=["1 interrupted WorkerLost"])


def test_a_call_delivered_twice_for_it_ran_too_long_is_one_call_with_two_runs(make_room):
    room = make_room(transport=SOON)
    room.worker()
    call = room.until_running(room.tasks.held_late.delay())
    room.until_running(call, runs=2)
    room.release(call)
    ended = room.wait_for(call, lambda row: row.is_terminal and room.attempts(call.id))
    assert (ended.status, ended.attempt, ended.runs) == ("succeeded", ended.attempt, 2)
    assert {attempt.number for attempt in room.attempts(call.id)} <= {1, 2}


# --- Shut down


def test_a_warm_shutdown_lets_the_running_call_end_and_gives_the_others_back(make_room):
    room = make_room()
    worker = room.worker(concurrency=1)
    held = room.until_running(room.tasks.held.delay())
    waiting = room.tasks.add.delay(1, 1)
    worker.signal(signal.SIGTERM)
    eventually("the worker shuts down", lambda: "Warm shutdown" in worker.log(), tell=worker.log_end)
    room.release(held)
    assert worker.wait() == 0
    room.expect(held, "succeeded")
    room.worker(name="w2")
    room.expect(waiting, "succeeded", worker=room.name_of("w2"))


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_cold_shutdown_loses_the_running_call_and_says_so(make_room, broker):
    # Celery calls it a retry, and publishes none.
    room = make_room(broker)
    worker = room.worker()
    call = room.until_running(room.tasks.held.delay())
    worker.signal(signal.SIGQUIT)
    worker.wait()
    room.expect(call, "failed", "worker_lost")


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_late_call_survives_a_cold_shutdown(make_room, broker):
    room = make_room(broker)
    worker = room.worker()
    call = room.until_running(room.tasks.held_late.delay())
    worker.signal(signal.SIGQUIT)
    worker.wait()
    room.wait_for(call, lambda row: row.status == "retrying")
    room.release(call)
    room.worker(name="w2")
    row = room.expect(call, "succeeded", attempt=2, attempts=["1 interrupted"], worker=room.name_of("w2"))
    assert row.redelivered


def test_a_call_that_ends_within_a_soft_shutdown_has_succeeded(make_room):
    room = make_room()
    worker = room.worker(worker_soft_shutdown_timeout=3.0)
    call = room.until_running(room.tasks.held.delay())
    worker.signal(signal.SIGQUIT)
    eventually("the worker waits", lambda: "soft shutdown" in worker.log().lower(), tell=worker.log_end)
    room.release(call)
    room.expect(call, "succeeded")
    worker.wait()


# --- Processes that come and go


def test_processes_that_are_replaced_after_a_few_tasks_lose_nothing(make_room):
    room = make_room()
    room.worker(options=["--max-tasks-per-child", "2"])
    calls = [room.tasks.add.delay(number, 1) for number in range(6)]
    for call in calls:
        room.expect(call, "succeeded")
    assert len({room.last_pid(call.id) for call in calls}) >= 3


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="retry_on_worker_lost is new in Celery 5.7")
def test_a_call_that_celery_retries_when_its_process_dies_is_one_call_with_two_turns(make_room):
    room = make_room(
        task_annotations={"tests.die": {"retry_on_worker_lost": True, "max_retries": 1, "default_retry_delay": 0}}
    )
    room.worker()
    call = room.tasks.die.delay("sigkill")
    runs = [f"1 retried {LOST}", f"2 failed {LOST}"]
    room.expect(call, "failed", "worker_lost", retries=1, attempt=2, attempts=runs, error=LOST)
    assert room.runs(call) == 2
