"""Observing never harms the observed: whatever happens to tracking, the task runs and returns what it would have.

What tracking could not write is counted, and said once in each process.
"""

import asyncio
import contextlib
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core import mail
from django.db import DatabaseError, connections, transaction

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.recorder import Losses
from tests.integration.cells import BASE, MARIADB, MATRIX, SQLITE, on
from tests.integration.harness import lost, migrate
from tests.services import sqlite_database
from tests.services.databases import postgres_settings

#: Without the spool, which remembers what the database did not take.
IN_PLACE = {"RECORDER": "sync"}
#: Seconds that a publish may take while the database is away.
BRIEFLY = 5.0


@contextlib.contextmanager
def losing(room):
    """Expect losses in this process."""
    room.expects_losses = True
    before = lost()
    yield
    assert lost() > before


@pytest.fixture
def quiet_log(monkeypatch):
    """The counter of this process, as if it had not complained for a minute."""
    monkeypatch.setattr("lrp_celery.tracking.recorder.losses._silent_until", 0.0)
    assert Losses.INTERVAL == 60


@contextlib.contextmanager
def brief():
    """Whatever is published meanwhile must not wait long for tracking."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BRIEFLY


# --- The database is away


@pytest.fixture
def private_room(private_postgres, make_room, workshop):
    """A room whose database a test may kill."""
    database = postgres_settings(private_postgres.url, "postgres")
    migrate("integration_own", database, workshop.blocker)
    return make_room(database=database)


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.usefixtures("quiet_log")
def test_a_database_that_dies_while_tasks_run_stops_none_and_is_used_again_when_it_is_back(
    private_postgres, private_room, caplog
):
    room = private_room
    worker = room.worker(tracking=IN_PLACE)
    running = room.until_running(room.tasks.held.delay())
    private_postgres.kill()
    connections[room.alias].close()

    with losing(room), brief():
        calls = [room.tasks.add.delay(number, 1) for number in range(5)]
    assert [call.get(timeout=20) for call in calls] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="no"):
        room.tasks.fail.delay().get(timeout=20)
    room.release(running)
    assert running.get(timeout=20) is None

    # Each process says it once a minute: this one, and those of the worker.
    assert [record.name for record in caplog.records if "Tracking lost" in record.message] == ["lrp_celery.recorder"]
    assert 1 <= len(worker.complaints()) <= 3

    private_postgres.launch()
    again = room.tasks.add.delay(20, 22)
    room.expect(again, "succeeded")


@pytest.mark.integration
@pytest.mark.services
def test_a_server_that_does_not_answer_delays_publishing_once_and_stops_no_task(private_postgres, private_room):
    room = private_room
    room.worker()
    connections[room.alias].close()
    private_postgres.freeze()
    try:
        with losing(room), brief():
            calls = [room.tasks.add.delay(number, 1) for number in range(2)]
        assert [call.get(timeout=30) for call in calls] == [1, 2]
    finally:
        private_postgres.thaw()


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize(("tracking", "complaints"), [({}, {0}), (IN_PLACE, {1, 2, 3})], ids=["spool", "in place"])
def test_a_worker_that_cannot_reach_the_database_runs_its_tasks(make_room, tracking, complaints):
    room = make_room()
    worker = room.worker(database=room.database | {"PORT": "1"}, tracking=tracking)
    calls = [room.tasks.add.delay(number, 1) for number in range(5)]
    assert [call.get(timeout=20) for call in calls] == [1, 2, 3, 4, 5]
    assert len(worker.complaints()) in complaints
    # The publisher's rows are all that is known.
    for call in calls:
        room.expect(call, "submitted", attempt=0)


@pytest.mark.usefixtures("quiet_log")
@on(BASE)
def test_a_publisher_that_cannot_reach_the_database_publishes_and_the_worker_makes_the_row(cell, monkeypatch, caplog):
    monkeypatch.setitem(connections.settings[cell.alias], "PORT", "1")
    connections[cell.alias].close()
    del connections[cell.alias]
    with losing(cell), brief():
        calls = [cell.tasks.add.delay(number, 1) for number in range(5)]
    assert [call.get(timeout=20) for call in calls] == [1, 2, 3, 4, 5]
    assert sum("Tracking lost" in record.message for record in caplog.records) == 1
    monkeypatch.undo()
    del connections[cell.alias]
    for call in calls:
        cell.expect(call, "succeeded")


@pytest.mark.parametrize(
    "options",
    [{"init_command": "PRAGMA query_only = 1"}, {"init_command": "PRAGMA max_page_count = 1"}],
    ids=["read-only", "full"],
)
@pytest.mark.integration
def test_a_disk_that_takes_nothing_stops_no_task(make_room, workshop, tmp_path, options):
    database = sqlite_database(tmp_path / "calls.sqlite3")
    migrate("integration_own", database, workshop.blocker)
    room = make_room(database=database | {"OPTIONS": options})
    worker = room.worker(tracking=IN_PLACE)
    with losing(room), brief():
        calls = [room.tasks.add.delay(number, 1, more="x" * 900) for number in range(30)]
    assert [call.get(timeout=20) for call in calls] == list(range(1, 31))
    with pytest.raises(ValueError, match="no"):
        room.tasks.fail.delay().get(timeout=20)
    assert 1 <= len(worker.complaints()) <= 3


@on(BASE)
def test_a_connection_that_the_server_dropped_is_healed_without_a_loss(cell, monkeypatch):
    # Under test our connections are closed after each use; a real publisher keeps its own.
    monkeypatch.delattr(mail, "outbox")
    calls = [cell.tasks.add.delay(1, 1), cell.until_running(cell.tasks.held.delay())]
    with connections[cell.alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 2
    cell.release(calls[1])
    calls += [cell.tasks.add.delay(number, 1) for number in range(4)]
    for call in calls:
        cell.expect(call, "succeeded")


FORKING = """
import os
import django
django.setup()
from tests.integration.app import app
app.loader.import_default_modules()
add = app.tasks["tests.add"]

def call(when):
    add.apply_async((1, 1), task_id=when + "-" + os.environ["ROOM"])

call("before")
pid = os.fork()
call("parent" if pid else "child")
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
call("after")
"""


@on(BASE, SQLITE)
def test_a_process_that_forks_keeps_its_connection_and_its_child_takes_its_own(cell):
    cell.run_script(FORKING, ROOM=cell.name)
    for when in ("before", "parent", "child", "after"):
        row = cell.wait_for(f"{when}-{cell.name}")
        assert row.status == "succeeded"


@on(BASE)
def test_a_pool_process_that_is_born_later_does_not_use_its_parents_connection(cell):
    # A hard limit is reported by the main process; the pool process that follows inherits its connection.
    for _ in range(2):
        limited = cell.tasks.hard_limit.apply_async(time_limit=0.5)
        assert cell.wait_for(limited).reason == "time_limit"
        calls = [cell.tasks.add.delay(number, 1) for number in range(6)]
        for call in calls:
            cell.expect(call, "succeeded")


# --- Transactions


class RolledBack(Exception):
    pass


@on(BASE, MARIADB, MATRIX)
def test_a_call_made_in_a_transaction_that_is_rolled_back_was_made_all_the_same(cell):
    with contextlib.suppress(RolledBack), transaction.atomic(using=cell.alias):
        call = cell.tasks.add.delay(1, 2)
        raise RolledBack
    # On SQLite the row is the worker's doing: nothing could be written beside an open transaction.
    cell.expect(call, "succeeded", summary="1, 2")
    assert call.get(timeout=10) == 3


@on(BASE, MARIADB, SQLITE)
def test_a_call_made_in_a_transaction_that_is_committed_has_its_row(cell):
    with transaction.atomic(using=cell.alias):
        call = cell.tasks.add.delay(1, 2)
    cell.expect(call, "succeeded")


@on(BASE, MARIADB, SQLITE)
def test_a_transaction_that_the_caller_has_spoilt_stays_his_own_affair(cell):
    with pytest.raises(DatabaseError), transaction.atomic(using=cell.alias):
        with contextlib.suppress(DatabaseError), connections[cell.alias].cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        call = cell.tasks.add.delay(1, 2)
        with connections[cell.alias].cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
    cell.expect(call, "succeeded")


@on(BASE)
def test_an_eager_call_that_cannot_be_tracked_does_not_spoil_its_callers_transaction(cell):
    cell.expects_losses = True
    with connections[cell.alias].cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON lrp_celery_call FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        try:
            with transaction.atomic(using=cell.alias):
                call = cell.tasks.add.apply((1, 2))
                cursor.execute("SELECT 1")
        finally:
            cursor.execute("DROP FUNCTION refuse CASCADE")
    assert call.get() == 3
    assert cell.has_no_row(call)


# --- Values


class Unshowable(str):
    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


@on(BASE, SQLITE)
def test_a_value_that_cannot_be_shown_is_passed_on(cell):
    with contextlib.suppress(RuntimeError):
        # Celery itself shows arguments in the message's headers, and may refuse; then there is no call.
        call = cell.tasks.add.delay(Unshowable("a"), Unshowable("b"))
        cell.expect(call, "succeeded")
        assert call.get(timeout=10) == "ab"
    eager = cell.tasks.add.apply((Unshowable("a"), Unshowable("b")))
    assert eager.result == "ab"
    assert cell.wait_for(eager).status == "succeeded"


@on(BASE, SQLITE)
def test_an_exception_that_cannot_be_shown_fails_the_call_as_it_would(cell):
    call = cell.tasks.fail_unspeakably.delay()
    error = "tests.integration.tasks.Unspeakable"
    cell.expect(call, "failed", error=error, message="<Unspeakable that cannot be shown>")


@on(BASE, MARIADB, SQLITE)
def test_texts_that_databases_refuse_are_passed_on_and_shown_without_what_they_refuse(cell):
    text = "nul \x00, lone \ud800, whole \U0001f600"
    call = cell.tasks.add.delay(text, text)
    row = cell.expect(call, "succeeded")
    assert call.get(timeout=10) == text * 2
    failed = cell.tasks.fail.delay("ValueError", text)
    row = cell.expect(failed, "failed", error="ValueError")
    assert "whole \U0001f600" in row.last_error
    with pytest.raises(ValueError, match="whole"):
        failed.get(timeout=10)


@on(BASE, MARIADB, SQLITE)
def test_arguments_of_a_megabyte_are_passed_on_and_shown_shortened(cell):
    big = "x" * 1_000_000
    call = cell.tasks.add.delay(big, "y")
    row = cell.expect(call, "succeeded")
    assert len(row.target_summary) <= 1000
    assert len(call.get(timeout=10)) == 1_000_001


@on(BASE, MARIADB, SQLITE)
def test_ids_of_one_and_of_two_hundred_characters_are_tracked(cell):
    for call_id in ("\u00e4", "i" * 200):
        cell.expect(cell.tasks.add.apply_async((1, 1), task_id=call_id), "succeeded")


@on(BASE, SQLITE)
def test_an_id_of_two_hundred_and_one_characters_runs_untracked_and_is_counted(cell):
    with losing(cell):
        call = cell.tasks.add.apply_async((1, 1), task_id="i" * 201)
    assert call.get(timeout=10) == 2
    with pytest.raises(ConfigurationError, match="1 to 200"):
        from lrp_celery import calls

        calls.get(call.id)


# --- Where calls are made and run


@on(BASE, MARIADB, SQLITE)
def test_calls_can_be_made_on_an_event_loop(cell):
    async def view():
        return cell.tasks.add.delay(1, 2), await asyncio.to_thread(cell.tasks.add.delay, 3, 4)

    first, second = asyncio.run(view())
    source = (f"{cell.script}.<locals>.view",)
    row = cell.wait_for(first)
    cell.expect(first, "succeeded", source=(row.source_instance_id, *source, cell.publisher))
    assert cell.wait_for(second).status == "succeeded"


@on(BASE)
def test_a_soft_limit_that_strikes_while_the_start_is_recorded_still_reaches_the_task(cell):
    cell.expects_losses = True
    with connections[cell.alias].cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.status = 'started' THEN PERFORM pg_sleep(1.5); END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER dawdle BEFORE UPDATE ON lrp_celery_call FOR EACH ROW EXECUTE FUNCTION dawdle()"
        )
        try:
            began = time.monotonic()
            call = cell.tasks.soft_limit.apply_async(soft_time_limit=0.5)
            with pytest.raises(SoftTimeLimitExceeded):
                call.get(timeout=20)
            assert time.monotonic() - began < 10
        finally:
            cursor.execute("DROP FUNCTION dawdle CASCADE")
    assert (cell.wait_for(call).status, cell.find(call.id).reason) == ("failed", "time_limit")
