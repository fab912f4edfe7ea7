"""The outbox: a call is a row in its caller's transaction, and a message once that is committed, whatever happens between."""

import json
import os
import threading
import time

import pytest
from django.db import connections, transaction
from django.test import override_settings

from lrp_celery import CallIdConflict, CallNotCommitted, CallState, ConfigurationError
from lrp_celery.core.ids import new_id
from tests.integration import hostile, procedures
from tests.integration.cells import BASE, MARIADB, SQLITE, on
from tests.integration.harness import eventually

WAIT = 20.0
#: Settings under which nothing waits for long, in the worker and in this process.
QUICK = {"HEARTBEAT": 0.5, "LEASE": 2, "RESCUE_INTERVAL": 0.2, "RESEND_AFTER": 1}
LONG = pytest.mark.skipif("LRP_TEST_LONG" not in os.environ, reason="takes minutes: set LRP_TEST_LONG")


class Regret(Exception):
    """Rolls a transaction back."""


def received(room):
    return room.processes[0].log().count("] received")


def quick(room, **settings):
    """Let this process and the workers it starts wait for nothing."""
    return override_settings(LRP_CELERY={"DATABASE": room.alias, **QUICK, **settings})


# --- Transactions


@on(BASE, SQLITE, MARIADB)
def test_a_call_in_a_transaction_that_is_rolled_back_never_was(cell):
    with pytest.raises(Regret), transaction.atomic(using=cell.alias):
        call_id = hostile.once.call()
        assert hostile.once.get_state(call_id) is CallState.PENDING
        raise Regret
    assert cell.has_no_row(call_id)
    hostile.once.get_result(hostile.once.call(), wait=WAIT)
    assert call_id not in cell.processes[0].log()
    assert cell.runs(call_id) == 0


@on(BASE, MARIADB)
def test_a_call_in_a_transaction_begins_after_the_commit(cell):
    with transaction.atomic(using=cell.alias):
        call_id = hostile.once.call(8)
        # Another call that goes out now is over before this one begins.
        hostile.once.get_result(hostile.once.using(detached=True).call(), wait=WAIT)
        assert call_id not in cell.processes[0].log()
    assert hostile.once.get_result(call_id, wait=WAIT) == 8
    assert cell.runs(call_id) == 1


@on(BASE, SQLITE)
def test_a_savepoint_that_is_rolled_back_takes_only_its_own_call_back(cell):
    with transaction.atomic(using=cell.alias):
        kept = hostile.once.call(1)
        with pytest.raises(Regret), transaction.atomic(using=cell.alias):
            lost = hostile.once.call(2)
            raise Regret
    assert hostile.once.get_result(kept, wait=WAIT) == 1
    assert cell.has_no_row(lost)


@on(BASE, SQLITE)
def test_rule_15_waiting_inside_the_transaction_that_called_raises_at_once(cell):
    with transaction.atomic(using=cell.alias):
        call_id = hostile.once.call(3)
        for wait in (None, 0, WAIT):
            began = time.monotonic()
            with pytest.raises(CallNotCommitted):
                hostile.once.get_result(call_id, wait=wait)
            assert time.monotonic() - began < 1
    assert hostile.once.get_result(call_id, wait=WAIT) == 3


@on(BASE, MARIADB)
def test_rule_15_a_result_is_seen_by_a_transaction_whose_snapshot_is_older(cell):
    call_id = procedures.owned_hold.call()
    cell.until_running(call_id)
    level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    connection = connections[cell.alias]
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(level)
    with transaction.atomic(using=cell.alias):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(level)
        assert procedures.owned_hold.get_state(call_id) is CallState.PENDING
        cell.release(call_id)
        assert procedures.owned_hold.get_result(call_id, wait=WAIT) == "held"
        assert procedures.owned_hold.get_state(call_id) is CallState.PENDING


@on(BASE)
def test_rule_14_a_call_from_a_transaction_on_another_database_is_refused_unless_detached(cell):
    with pytest.raises(Regret), transaction.atomic(using="default"):
        with pytest.raises(ConfigurationError, match="detached"):
            hostile.once.call()
        call_id = hostile.once.using(detached=True).call(4)
        raise Regret
    assert hostile.once.get_result(call_id, wait=WAIT) == 4


@on(BASE)
def test_a_detached_call_survives_its_callers_rollback(cell):
    with pytest.raises(Regret), transaction.atomic(using=cell.alias):
        call_id = hostile.once.using(detached=True).call(6)
        raise Regret
    assert hostile.once.get_result(call_id, wait=WAIT) == 6


# --- One id, one call

FORKS = """
import os, django
django.setup()
from tests.integration.app import app
from tests.integration import hostile
app.finalize()
gate, opened = os.pipe()
children = []
for number in range(8):
    child = os.fork()
    if not child:
        os.close(opened)
        os.read(gate, 1)
        ended = 1
        try:
            assert hostile.once.using(call_id=os.environ["CALL_ID"]).call(number) == os.environ["CALL_ID"]
            ended = 0
        finally:
            os._exit(ended)
    children.append(child)
os.close(opened)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
"""


@on(SQLITE)
def test_rule_12_one_id_called_by_eight_processes_is_one_call(cell):
    call_id = new_id()
    cell.run_script(FORKS, CALL_ID=call_id)
    assert hostile.once.get_result(call_id, wait=WAIT) in range(8)
    assert cell.runs(call_id) == 1
    assert cell.processes[0].log().count(f"[{call_id}] received") == 1


@on(BASE, MARIADB)
def test_rule_12_one_id_called_by_eight_threads_is_one_call(cell):
    call_id, answers = new_id(), []
    together = threading.Barrier(8)

    def call(number):
        try:
            cell.app.set_current()
            together.wait()
            answers.append(hostile.once.using(call_id=call_id).call(number))
        except BaseException as error:
            answers.append(error)
        finally:
            connections[cell.alias].close()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [call_id] * 8
    hostile.once.get_result(call_id, wait=WAIT)
    assert cell.runs(call_id) == 1
    assert cell.processes[0].log().count(f"[{call_id}] received") == 1


@on(BASE)
def test_rule_12_an_id_of_another_task_or_owner_is_a_conflict_and_changes_nothing(cell):
    call_id = hostile.once.using(owner="ada").call(1)
    with pytest.raises(CallIdConflict):
        hostile.again.using(call_id=call_id, owner="ada").call(2)
    for other in ("bob", None):
        with pytest.raises(CallIdConflict):
            hostile.once.using(call_id=call_id, owner=other).call(2)
    assert hostile.once.get_result(call_id, wait=WAIT) == 1
    assert hostile.once.using(call_id=call_id, owner="ada").call(3) == call_id
    assert cell.runs(call_id) == 1


# --- The broker is away, or the process is


@pytest.fixture
def away(private_redis, make_room):
    """A room whose broker a test may kill."""
    room = make_room(broker_url=private_redis.url, broker_transport_options={})
    with quick(room):
        yield room


@pytest.mark.integration
@pytest.mark.services
def test_a_call_while_the_broker_is_away_returns_soon_and_is_sent_when_it_is_back(private_redis, away):
    away.worker(tracking=QUICK)
    assert hostile.once.get_result(hostile.once.call(), wait=WAIT) == 1
    running = procedures.owned_hold.call()
    away.until_running(running)
    private_redis.freeze()
    calls = []
    for number in range(3):
        began = time.monotonic()
        calls.append(hostile.once.call(number))
        assert time.monotonic() - began < 2

    # The worker's care for what runs does not wait for the broker.
    lease = away.find(running).lease_until
    eventually("leases are renewed meanwhile", lambda: (away.find(running).lease_until - lease).total_seconds() > 7)
    private_redis.kill()
    private_redis.launch()
    # Celery's own worker may have given up for good; what it still runs, ends.
    away.worker(name="w2", tracking=QUICK)
    assert [hostile.once.get_result(call_id, wait=WAIT) for call_id in calls] == [0, 1, 2]
    away.release(running)
    assert procedures.owned_hold.get_result(running, wait=WAIT) == "held"
    assert [away.runs(call_id) for call_id in (*calls, running)] == [1] * 4


CALLS = """
import os, django
django.setup()
from tests.integration.app import app
from tests.integration import hostile
hostile.once.using(call_id=os.environ["CALL_ID"]).call(5)
"""


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("how", [pytest.param("kill", marks=[pytest.mark.slow, LONG]), "freeze"])
def test_a_program_that_calls_while_the_broker_is_away_ends(private_redis, away, how):
    getattr(private_redis, how)()
    call_id = new_id()
    began = time.monotonic()
    away.run_script(CALLS, CALL_ID=call_id, LRP_TEST_TRACKING=json.dumps(QUICK))
    assert time.monotonic() - began < 15
    assert away.find(call_id).published_at is None


DIES = """
import os, django
django.setup()
from django.db import transaction
from tests.integration.app import app
from tests.integration import hostile
with transaction.atomic():
    transaction.on_commit(lambda: os._exit(0))
    hostile.once.using(call_id=os.environ["CALL_ID"]).call(5)
os._exit(1)
"""


@on(BASE)
def test_a_call_whose_caller_dies_between_commit_and_publish_is_sent(cell):
    call_id = new_id()
    cell.run_script(DIES, CALL_ID=call_id, LRP_TEST_TRACKING=json.dumps(QUICK))
    assert hostile.once.get_result(call_id, wait=WAIT) == 5
    assert (cell.runs(call_id), cell.find(call_id).sends) == (1, 1)


# --- A long queue is no reason to send anything twice


def work_off(room, count, seconds):
    """Make `count` calls that take `seconds`, and wait for all."""
    calls = [hostile.slow.call(seconds) for _ in range(count)]
    within = 60 + 2 * count * (seconds + 0.05)
    eventually(
        "the queue is worked off",
        lambda: not room.found(task="tests.slow", queue=room.queue, terminal_at=None),
        within=within,
        pause=0.2,
    )
    rows = room.found(task="tests.slow", queue=room.queue)
    assert {row.status for row in rows} == {"succeeded"}
    assert (len(rows), {row.sends for row in rows}, {row.runs for row in rows}) == (count, {0}, {1})
    assert {call_id: room.runs(call_id) for call_id in calls[:: count // 10]} == dict.fromkeys(calls[:: count // 10], 1)
    took = max(row.started_at for row in rows) - max(row.enqueued_at for row in rows)
    assert received(room) == count
    return took.total_seconds()


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=[pytest.mark.slow, LONG])])
def test_rule_16_a_queue_longer_than_its_patience_is_not_sent_again(make_room, broker):
    room = make_room(broker)
    room.worker(concurrency=1, tracking=QUICK)
    # On a machine that stands still for a second, what did not get out in time is sent once more.
    with quick(room, PUBLISH_WAIT=30):
        took = work_off(room, 120, 0.05)
    assert took > 2 * QUICK["RESEND_AFTER"]


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.slow
@pytest.mark.chaos
@LONG
def test_rule_16_five_thousand_calls_that_wait_longer_than_its_patience_are_not_sent_again(make_room):
    room = make_room()
    room.worker(concurrency=1)
    assert work_off(room, 5000, 0.02) > 60
