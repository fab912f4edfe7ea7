"""The spool of real workers: what was reported is not lost, whoever is killed, and what was cut short is known at once."""

import os
import signal
from pathlib import Path

import pytest
from django.db import connections

from django_app.models import Worker
from tests.integration.crashes import QUICK, crash, kill_only, processes_of, side_of, until_gone
from tests.integration.harness import eventually, migrate
from tests.services.databases import postgres_settings

psycopg = pytest.importorskip("psycopg")

pytestmark = [pytest.mark.integration, pytest.mark.services]

POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
#: A worker that runs one thing at a time.
ONE = {"concurrency": 1, "tracking": QUICK}


def spooled(room):
    """The files of the spools, and what proves that their workers live."""
    return sorted(path.name for path in (room.folder / "spools").rglob("*") if path.is_file())


@pytest.fixture
def private_room(private_postgres, make_room, workshop):
    """A room whose database a test may kill."""
    with psycopg.connect(private_postgres.url, autocommit=True) as server:
        # What is committed survives the server, if not a power cut: what was told is not told again.
        server.execute("ALTER DATABASE postgres SET synchronous_commit = on")
    database = postgres_settings(private_postgres.url, "postgres")
    migrate("integration_own", database, workshop.blocker)
    return make_room(database=database)


@POOLS
def test_a_worker_that_has_ended_in_good_order_has_told_everything_and_leaves_nothing(make_room, pool):
    room = make_room()
    worker = room.worker(pool)
    calls = [room.tasks.add.delay(number, 1) for number in range(50)]
    room.until_running(calls[-1])
    worker.signal(signal.SIGTERM)
    worker.wait()
    done = [call for call in calls if room.runs(call.id)]
    assert {row.status for row in room.found(pk__in=[call.id for call in done])} == {"succeeded"}
    assert spooled(room) == []


def test_what_pool_processes_that_are_replaced_have_written_is_told_and_cleared_away(make_room):
    room = make_room()
    room.worker(concurrency=2, options=["--max-tasks-per-child", "3"])
    for number in range(20):
        room.expect(room.tasks.add.delay(number, 1), "succeeded")
    eventually("only what lives has files", lambda: len(spooled(room)) <= 4, tell=lambda: str(spooled(room)))


@POOLS
def test_when_only_the_main_process_is_killed_its_side_process_judges_what_ran_at_once(make_room, pool):
    room = make_room()
    worker = room.worker(pool, **ONE)
    done = room.tasks.add.delay(1, 1)
    room.expect(done, "succeeded")
    call = room.until_running(room.tasks.held.delay())
    kill_only(worker)
    room.expect(call, "failed", "worker_lost", error="WorkerLost", attempts=["1 interrupted WorkerLost"], within=8)
    until_gone(worker)
    assert spooled(room) == []


@POOLS
def test_when_all_are_killed_the_next_worker_on_the_host_tells_what_they_had_written(make_room, pool):
    room = make_room()
    worker = room.worker(pool, **ONE)
    os.kill(side_of(worker), signal.SIGSTOP)
    done = room.tasks.add.delay(1, 1)
    eventually("it has run", lambda: room.runs(done.id))
    running = room.tasks.held.delay()
    eventually("it runs", lambda: room.runs(running.id))
    worker.kill()
    assert [room.find(call.id).status for call in (done, running)] == ["submitted"] * 2
    room.worker(pool, name="w2", **ONE)
    room.expect(done, "succeeded", within=5, worker=room.name_of("w1"))
    room.expect(
        running,
        "failed",
        "worker_lost",
        error="WorkerLost",
        attempts=["1 interrupted WorkerLost"],
        within=5,
        worker=room.name_of("w1"),
    )


def test_a_call_whose_message_comes_again_is_not_condemned(make_room):
    room = make_room("rabbitmq")
    worker = room.worker(**ONE)
    call = room.until_running(room.tasks.held_late.delay())
    kill_only(worker)
    room.wait_for(call, lambda row: row.status == "retrying", within=8)
    room.release(call)
    room.worker(name="w2", **ONE)
    room.expect(call, "succeeded", attempt=2, attempts=["1 interrupted WorkerLost"], worker=room.name_of("w2"))


def test_a_side_process_that_is_killed_is_replaced_and_nothing_is_lost(make_room):
    room = make_room()
    worker = room.worker(concurrency=2)
    calls = []
    for _ in range(3):
        calls += [room.tasks.add.delay(number, 1) for number in range(10)]
        killed = side_of(worker)
        os.kill(killed, signal.SIGKILL)
        eventually("another one runs", lambda killed=killed: processes_of(worker)[1] not in {None, killed})
    for call in calls:
        room.expect(call, "succeeded")


def test_while_the_database_is_away_reports_wait_and_nothing_is_lost(private_postgres, private_room):
    room = private_room
    worker = room.worker(concurrency=2)
    calls = [room.tasks.held.delay() for _ in range(2)]
    for call in calls:
        room.until_running(call)
    crash(private_postgres)
    connections[room.alias].close()
    room.release(*calls)
    for call in calls:
        call.get(timeout=20)
    private_postgres.launch()
    for call in calls:
        room.expect(call, "succeeded")
    assert worker.complaints() == []


def test_a_worker_without_a_folder_for_its_spool_says_so_once_and_writes_in_place(make_room):
    room = make_room()
    worker = room.worker(concurrency=2, tracking={"SPOOL_DIR": "/dev/null/spools"})
    for number in range(6):
        room.expect(room.tasks.add.delay(number, 1), "succeeded")
    assert worker.log().count("There is no spool") == 1


def test_what_waits_and_what_was_dropped_stands_with_the_worker(make_room):
    room = make_room()
    worker = room.worker(concurrency=1, tracking={**QUICK, "SPOOL_MAX": 10_000})
    workers = Worker.objects.using(room.alias).filter(pid=worker.pid)
    eventually("its side process is at work", workers.exists)
    side = side_of(worker)
    os.kill(side, signal.SIGSTOP)
    room.expects_losses = True
    calls = [room.tasks.add.delay(number, 1) for number in range(60)]
    for call in calls:
        call.get(timeout=20)
    os.kill(side, signal.SIGCONT)
    dropped = eventually("what was dropped is counted", lambda: workers.get().dropped)
    open_rows = eventually(
        "the rest is told",
        lambda: room.found(pk__in=[call.id for call in calls], terminal_at=None) if not workers.get().waiting else None,
    )
    assert 0 < len(open_rows) <= dropped


def test_spools_are_for_the_eyes_of_their_owner(make_room):
    room = make_room()
    room.worker(concurrency=1)
    room.expect(room.tasks.add.delay(1, 1), "succeeded")
    files = list((room.folder / "spools").rglob("*"))
    assert {Path(path).stat().st_mode & 0o077 for path in files} == {0}
