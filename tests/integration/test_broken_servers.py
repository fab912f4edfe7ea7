"""Callers, brokers and databases that are killed, at every boundary of a call.

A call was accepted when its row is committed: from then on it comes to exactly one right
outcome. One whose caller was killed before that never was.
"""

import contextlib
import os
import signal
import time

import pytest
from django.db import connections

from django_app.models import Worker
from lrp_celery import CallFailed
from lrp_celery.core.ids import new_id
from tests.integration import hostile
from tests.integration.crashes import (
    DONE,
    LEASE,
    LOST,
    QUICK,
    WAIT,
    call_and_die,
    call_at,
    calling,
    children_of,
    crash,
    kill_only,
    outcomes_of,
    until_gone,
    until_held,
)
from tests.integration.harness import eventually, migrate
from tests.services.databases import postgres_settings

# The cells of the matrix have no PostgreSQL, but collect this file, too.
psycopg = pytest.importorskip("psycopg")

LONG = pytest.mark.skipif("LRP_TEST_LONG" not in os.environ, reason="takes long: set LRP_TEST_LONG")
#: A run that stands still between two boundaries shows no sign of life; here that is nobody's death.
PATIENT = {**QUICK, "LEASE": 60}
#: What becomes of both procedures wherever a server was killed: neither the run nor its process was lost.
UNHARMED = dict.fromkeys(hostile.BOUNDARIES, ((*DONE, 1), (*DONE, 1)))


# --- The caller


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_caller_that_is_killed_at_any_boundary_leaves_a_call_that_never_was_or_one_that_ends_right(
    quick_room, broker
):
    room = quick_room(broker)
    # A relay that meets others' messages in the queue looks again after RESEND_AFTER: not in a minute here.
    worker = room.worker(tracking=QUICK)
    never, made, atomic = {}, {}, set()
    for is_atomic in (False, True):
        places = {
            new_id(): boundary
            for name in ("insert", "publish", "send")
            for boundary in (f"before-{name}", f"after-{name}")
        }
        uncommitted = {"before-insert", "after-insert"} if is_atomic else {"before-insert"}
        never |= {call_id: boundary for call_id, boundary in places.items() if boundary in uncommitted}
        made |= {call_id: boundary for call_id, boundary in places.items() if boundary not in uncommitted}
        atomic |= set(places) if is_atomic else set()
    call_and_die(room, never | made, atomic=atomic)
    for call_id, boundary in made.items():
        assert (boundary, hostile.once.get_result(call_id, wait=WAIT), room.runs(call_id)) == (boundary, 5, 1)
    for call_id, boundary in never.items():
        assert (boundary, room.has_no_row(call_id), room.runs(call_id)) == (boundary, True, 0)
        # Whoever asks again with the same id makes it.
        assert hostile.once.using(call_id=call_id).call(6) == call_id
        assert hostile.once.get_result(call_id, wait=WAIT) == 6
    assert worker.complaints() == []


# --- The broker


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_broker_that_is_killed_at_any_boundary_loses_no_call(quick_room, request, broker):
    """Redis comes back empty; RabbitMQ delivers again what was not acknowledged."""
    server = request.getfixturevalue(f"private_{broker}")
    options = {"confirm_publish": True} if broker == "rabbitmq" else {}
    room = quick_room(broker, broker_url=server.url, broker_transport_options=options)
    room.worker(tracking=PATIENT, concurrency=len(hostile.BOUNDARIES) * 2)
    calls = {boundary: call_at(room, boundary, "hold") for boundary in hostile.BOUNDARIES}
    until_held(room, calls)
    waiting = [hostile.once.call(5) for _ in range(3)] + [hostile.once.using(countdown=2.0).call(5)]
    places = {new_id(): "before-publish", new_id(): "after-send", new_id(): "after-publish"}
    once, again = zip(*calls.values(), strict=True)
    with calling(room, places):
        until_held(room, {boundary: [call_id] for call_id, boundary in places.items()})
        server.kill()
        # They go on while it is away: publish, claim, run and settle, and the worker cannot acknowledge.
        room.release(*places, *once)
    server.launch()
    # Celery's own worker may have given up for good; what it still runs, ends.
    second = room.worker(name="w2", tracking=PATIENT)
    if broker == "rabbitmq":
        # The others go on when their messages have come once more.
        eventually(
            "they come again", lambda: all(received(room, call_id) > 1 for call_id in again), tell=second.log_end
        )
    room.release(*again)
    assert outcomes_of(room, calls) == UNHARMED
    for call_id in (*waiting, *places):
        assert (hostile.once.get_result(call_id, wait=WAIT), room.runs(call_id)) == (5, 1)


def received(room, call_id):
    return sum(process.log().count(f"[{call_id}] received") for process in room.processes)


# --- The database


@pytest.fixture
def private_room(private_postgres, quick_room, workshop):
    """A room whose database a test may kill."""
    with psycopg.connect(private_postgres.url, autocommit=True) as server:
        # What is committed survives the server, if not a power cut.
        server.execute("ALTER DATABASE postgres SET synchronous_commit = on")
    database = postgres_settings(private_postgres.url, "postgres")
    migrate("integration_own", database, workshop.blocker)
    room = quick_room(database=database)
    room.expects_losses = True
    return room


@pytest.mark.integration
@pytest.mark.services
def test_a_database_that_is_killed_at_any_boundary_costs_no_call_its_outcome(private_postgres, private_room):
    room = private_room
    room.worker(tracking=PATIENT, concurrency=len(hostile.BOUNDARIES) * 2)
    calls = {boundary: call_at(room, boundary, "hold") for boundary in hostile.BOUNDARIES}
    until_held(room, calls)
    waiting = [hostile.once.call(5) for _ in range(2)]
    places = {new_id(): "before-insert", new_id(): "after-insert", new_id(): "before-publish"}
    with calling(room, places, atomic=places):
        until_held(room, {boundary: [call_id] for call_id, boundary in places.items()})
        # Some are in the midst of a statement when it dies: it waits for a row that somebody has locked.
        amid = [*calls["before-claim"], *calls["before-settle"]]
        with contextlib.suppress(psycopg.Error), psycopg.connect(private_postgres.url) as other:
            other.execute("SELECT 1 FROM lrp_celery_call WHERE call_id = ANY(%s) FOR UPDATE", [amid])
            room.release(*amid)
            eventually("they wait", lambda: _waiting_for_locks(private_postgres) == len(amid), pause=0.005)
            crash(private_postgres)
        connections[room.alias].close()
        room.release(*places, *(call_id for pair in calls.values() for call_id in pair))
        private_postgres.launch()
    assert outcomes_of(room, calls) == UNHARMED
    for call_id in (*waiting, *places):
        assert (hostile.once.get_result(call_id, wait=WAIT), room.runs(call_id)) == (5, 1)


def _waiting_for_locks(postgres):
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%lrp_celery_call%'"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


@pytest.mark.integration
@pytest.mark.services
def test_rule_10_an_outcome_that_could_not_be_written_for_too_long_waits_in_the_spool(private_postgres, private_room):
    room = private_room
    room.worker(tracking={**QUICK, "SETTLE_WAIT": 0.5}, concurrency=2)
    once, again = call_at(room, "body", "hold")
    until_held(room, {"body": (once, again)})
    crash(private_postgres)
    connections[room.alias].close()
    room.release(once, again)
    log = room.processes[0].log
    eventually("both runs leave it", lambda: log().count("which is recorded when the store is back") == 2)
    private_postgres.launch()
    assert outcomes_of(room, {"body": (once, again)}) == {"body": ((*DONE, 1), (*DONE, 1))}
    assert [hostile.once.get_result(once), hostile.again.get_result(again)] == [3, 3]


@pytest.mark.integration
@pytest.mark.services
def test_rule_10_without_a_spool_an_outcome_that_could_not_be_written_for_too_long_is_lost_and_nothing_else(
    private_postgres, private_room
):
    room = private_room
    room.worker(tracking={**QUICK, "SETTLE_WAIT": 0.5, "RECORDER": "sync"}, concurrency=2)
    once, again = call_at(room, "body", "hold")
    until_held(room, {"body": (once, again)})
    crash(private_postgres)
    connections[room.alias].close()
    room.release(once, again)
    log = room.processes[0].log
    eventually("both runs give up", lambda: log().count("which could not be recorded") == 2)
    private_postgres.launch()
    assert outcomes_of(room, {"body": (once, again)}) == {"body": ((*LOST, 1), (*DONE, 2))}
    with pytest.raises(CallFailed):
        hostile.once.get_result(once)


@pytest.mark.integration
@pytest.mark.services
def test_rule_10_a_database_that_is_away_for_three_leases_costs_no_call_its_outcome(private_postgres, private_room):
    room = private_room
    room.worker(tracking=QUICK, concurrency=3)
    running, ending, again = new_id(), new_id(), new_id()
    for task, call_id in ((hostile.once, running), (hostile.once, ending), (hostile.again, again)):
        hostile.trap(room.folder, call_id, "body", "hold")
        task.using(call_id=call_id).call(2)
        room.until_running(call_id)
    private_postgres.stop()
    connections[room.alias].close()
    gone = time.monotonic()
    room.release(ending)
    eventually("three leases are over", lambda: time.monotonic() - gone > 3.5 * LEASE)
    private_postgres.launch()
    assert hostile.once.get_result(ending, wait=WAIT) == 2
    # Nobody is condemned for the database's absence.
    lease = room.find(running).lease_until
    eventually("leases are renewed", lambda: (room.find(running).lease_until - lease).total_seconds() > LEASE)
    assert [room.find(call_id).status for call_id in (running, again)] == ["started"] * 2
    room.release(running, again)
    assert [hostile.once.get_result(running, wait=WAIT), hostile.again.get_result(again, wait=WAIT)] == [2, 2]
    assert [room.runs(call_id) for call_id in (running, ending, again)] == [1, 1, 1]


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.slow
@pytest.mark.chaos
@LONG
def test_a_side_process_whose_database_never_answers_ends_with_its_worker(private_postgres, private_room, folders):
    room = private_room
    worker = room.worker(tracking=QUICK, concurrency=1)
    hostile.once.get_result(hostile.once.call(), wait=WAIT)
    looked_after = Worker.objects.using(room.alias).filter(pid=worker.pid)
    eventually("the side process is at work", looked_after.exists)
    connections[room.alias].close()
    backends = children_of(private_postgres.pid)
    for pid in backends:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        kill_only(worker)
        until_gone(worker)
        assert folders() == []
    finally:
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
