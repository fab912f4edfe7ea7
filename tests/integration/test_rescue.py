"""Calls of tasks that are no procedures, of which nobody reports any more."""

import os
import re
import signal
from datetime import UTC, datetime, timedelta
from functools import partial

import kombu
import pytest

from tests import services
from tests.integration.crashes import LEASE, QUICK, kill_only, until_gone
from tests.integration.harness import migrate

pytestmark = [pytest.mark.integration, pytest.mark.services]

GONE = 3 * LEASE
#: How kombu looks for messages that nobody has acknowledged: often.
SOON = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
KILLS = {"everything": lambda worker: worker.kill(), "only the main process": kill_only}


@pytest.fixture
def own_database(workshop):
    with services.postgres_database() as database:
        migrate("integration_own", database, workshop.blocker)
        yield database


@pytest.fixture
def make(own_database, quick_room):
    """Makes rooms on a database of their own: whoever looks for silent calls looks at all that a database has."""
    return partial(quick_room, database=own_database)


@pytest.fixture
def room(make):
    return make()


def worker(room, name, **options):
    # Without spools, as if each had a host of its own: there only its silence tells of a worker's death.
    tracking = QUICK | {"RECORDER": "sync"} | options.pop("tracking", {})
    return room.worker(name=name, tracking=tracking, **options)


def is_interrupted(row):
    return row.run_outcome == "interrupted" and not row.is_terminal


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("kill", KILLS)
def test_the_calls_of_a_killed_worker_fail_and_say_why(make, broker, kill):
    room = make(broker)
    first = worker(room, "w1")
    calls = [room.until_running(room.tasks.held.delay()) for _ in range(2)]
    KILLS[kill](first)
    until_gone(first)
    for name in ("w2", "w3"):
        worker(room, name)
    for call in calls:
        row = room.expect(call, "failed", "worker_lost", error="WorkerLost", attempts=["1 interrupted WorkerLost"])
        told = re.fullmatch(
            rf"Its worker {room.name_of('w1')} is gone, last heard of at (.+) UTC\. "
            r"Nobody else runs it: it was acknowledged before\.",
            row.last_error,
        )
        heard = datetime.fromisoformat(told[1]).replace(tzinfo=UTC)
        assert (row.terminal_at - heard).total_seconds() >= GONE
        assert row.version == 2, "one of the two was first"


def test_a_call_that_acknowledges_late_is_shown_interrupted_and_succeeds_when_it_is_delivered_again(make):
    room = make("redis", transport={"visibility_timeout": 15, **SOON})
    worker(room, "elsewhere", options=("--queues", "elsewhere"))
    first = worker(room, "w1")
    call = room.until_running(room.tasks.held_late.delay())
    first.kill()
    row = room.wait_for(call, is_interrupted)
    worker(room, "w2")
    assert (row.status, row.error_type) == ("retrying", "WorkerLost")
    assert row.last_error.endswith("The broker delivers the message again.")
    room.until_running(call, runs=2)
    room.release(call)
    room.expect(
        call, "succeeded", attempt=2, attempts=["1 interrupted WorkerLost"], worker=room.name_of("w2")
    )  # fmt: skip


def test_what_rabbitmq_drops_because_it_expired_is_discarded(make):
    room = make("rabbitmq")
    worker(room, "w1", concurrency=1)
    holding = room.until_running(room.tasks.held.delay())
    # One more waits in the process's stead, so that this one stays with the broker.
    waiting = room.tasks.add.delay(1, 1)
    call = room.tasks.add.apply_async((1, 1), expires=0.2)
    # The broker counts from when it has the message; one that it still delivers a worker would drop, and say so.
    row = room.wait_for(call, lambda row: row.expires_at + timedelta(seconds=1) < datetime.now(UTC))
    room.release(holding)
    room.expect(waiting, "succeeded")
    room.expect(call, "discarded", "expired", attempt=0, error=None)
    ended = room.find(call.id)
    assert ended.last_error.startswith("It had to start before ")
    assert (ended.terminal_at - row.expires_at).total_seconds() >= GONE
    assert room.runs(call) == 0


def test_a_call_of_which_nothing_is_heard_is_discarded_and_a_slow_one_is_left_alone(room):
    kombu.serialization.register("tests-torn", lambda body: "{torn", None, "application/json", "utf-8")
    worker(room, "w1", tracking={"SILENT_AFTER": 2})
    slow = room.until_running(room.tasks.held.delay())
    later = room.tasks.add.apply_async((1, 1), countdown=3600)
    for _ in range(2):
        torn = room.tasks.add.apply_async((1, 1), serializer="tests-torn")
        room.expect(torn, "discarded", "lost", attempt=0)
        assert room.find(torn.id).last_error.startswith("Nobody has spoken of it for 2 s, since ")
    assert room.find(slow.id).status == "started"
    assert room.find(later.id).status == "submitted"
    room.release(slow)
    room.expect(slow, "succeeded")


def test_what_a_run_says_after_its_worker_counted_as_gone_is_a_late_end(room):
    first = worker(room, "w1")
    call = room.until_running(room.tasks.held.delay())
    worker(room, "w2")
    os.killpg(first.pid, signal.SIGSTOP)
    room.wait_for(call)
    os.killpg(first.pid, signal.SIGCONT)
    room.release(call)
    room.expect(call, "failed", "worker_lost", error="WorkerLost", late_runs=1, attempts=["1 late succeeded"])
