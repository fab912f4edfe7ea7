"""Real workers tell a project of what has ended, by their side process, whatever becomes of whom."""

import os
import signal

import pytest
from django.utils import timezone

from django_app.models import Call
from tests.integration import procedures
from tests.integration.crashes import QUICK, side_of
from tests.integration.harness import eventually

pytestmark = [pytest.mark.integration, pytest.mark.services]

#: Imported by all processes of a worker, and not by this one.
LISTENING = {"include": ["tests.integration.listening"], "tracking": QUICK}
TOLD = "told"


def told(room, call):
    """What was told of a call, and by which processes."""
    lines = [line for line in room.truth(call) if line.event.startswith(TOLD)]
    return [line.event.removeprefix(f"{TOLD}:") for line in lines], [line.pid for line in lines]


def until_told(room, call, *expected, within=20):
    eventually(
        f"it is told that it {expected}",
        lambda: told(room, call)[0] == list(expected),
        within,
        tell=lambda: str(told(room, call)),
    )


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_a_side_process_tells_how_calls_have_ended_and_no_process_that_runs_tasks(quick_room, database):
    room = quick_room("redis", database)
    worker = room.worker(concurrency=1, **LISTENING)
    done, failed = room.tasks.add.delay(1, 1), procedures.owned_fail.call("no")
    until_told(room, done, "succeeded:None")
    until_told(room, failed, "failed:None")
    running = room.until_running(room.tasks.held.delay())
    os.kill(room.last_pid(running.id), signal.SIGKILL)
    until_told(room, running, "failed:worker_lost")
    assert {pid for call in (done, failed, running) for pid in told(room, call)[1]} == {side_of(worker)}


def test_what_a_side_process_was_killed_over_the_next_one_tells_once_more(quick_room):
    room = quick_room()
    worker = room.worker(concurrency=1, **LISTENING)
    call_id = procedures.double.call(4)
    until_told(room, call_id, "succeeded:None")
    os.kill(side_of(worker), signal.SIGKILL)
    row = Call.objects.using(room.alias).filter(pk=call_id)
    assert row.get().tell_at > timezone.now()
    # Instead of waiting for the minute that it is left to whoever has begun.
    row.update(tell_at=timezone.now())
    until_told(room, call_id, "succeeded:None", "succeeded:None")
    room.release(call_id)
    eventually("it is told for good", lambda: row.get().tell_at is None)


def test_a_receiver_that_hangs_keeps_nobody_from_looking_after_what_runs(quick_room):
    room = quick_room()
    room.worker(concurrency=1, **LISTENING)
    slow = procedures.double.call(4)
    until_told(room, slow, "succeeded:None")
    running = room.until_running(room.tasks.owned_hold.delay())
    first = Call.objects.using(room.alias).get(pk=running.id).lease_until
    eventually(
        "its lease is renewed, and again",
        lambda: (
            (Call.objects.using(room.alias).get(pk=running.id).lease_until - first).total_seconds() > QUICK["LEASE"]
        ),
    )
    room.release(running, slow)
    room.expect(running, "succeeded")
    until_told(room, running, "succeeded:None")


def test_what_ends_as_a_worker_is_stopped_is_told_by_it_or_by_the_next(quick_room):
    room = quick_room()
    worker = room.worker(concurrency=2, **LISTENING)
    calls = [room.tasks.add.delay(number, 1) for number in range(20)]
    room.until_running(calls[-1])
    worker.signal(signal.SIGTERM)
    worker.wait()
    room.worker(concurrency=1, name="w2", **LISTENING)
    for call in calls:
        until_told(room, call, "succeeded:None")


def test_what_ended_while_all_were_being_killed_is_told_by_the_next_worker(quick_room):
    room = quick_room()
    worker = room.worker(concurrency=1, **LISTENING)
    os.kill(side_of(worker), signal.SIGSTOP)
    call_id = procedures.owned_fail.call("no")
    room.wait_for(call_id)
    worker.stop()
    room.worker(concurrency=1, name="w2", **LISTENING)
    until_told(room, call_id, "failed:None")
