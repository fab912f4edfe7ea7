"""What one may do to any call, and callers, with real workers."""

import threading
import time

import pytest

from django_app.models import ActionLog, Worker
from lrp_celery import AbortController, CallAborted, Caller, ConfigurationError, PollingCaller, calls
from tests.integration import procedures
from tests.integration.cells import BASE, GEVENT, MARIADB, RABBITMQ, SOLO, SQLITE, THREADS, on
from tests.integration.harness import eventually

WAIT = 20.0


def busy(cell, children=2):
    return [cell.until_running(cell.tasks.held.delay()) for _ in range(children)]


@on(BASE, RABBITMQ)
def test_rule_22_an_observed_call_that_waits_is_aborted_by_the_worker_that_drops_it(cell):
    held = busy(cell)
    call = cell.tasks.add.delay(1, 1)
    calls.abort(call.id, reason="not needed", by="ada")
    assert cell.find(call.id).status == "submitted"
    inspect = cell.app.control.inspect(timeout=5, limit=1, destination=[cell.worker_name])
    eventually("the worker knows", lambda: call.id in (inspect.revoked() or {}).get(cell.worker_name, []))
    cell.release(*held)
    row = cell.wait_for(call)
    assert (row.status, row.reason, row.abort_reason, row.abort_by) == ("aborted", "aborted", "not needed", "ada")
    assert cell.runs(call) == 0
    assert ActionLog.objects.using(cell.alias).get(call_id=call.id).by == "ada"


@pytest.mark.integration
@pytest.mark.services
def test_rule_22_a_worker_that_starts_later_knows_what_was_revoked(make_room):
    room = make_room("redis")
    call, other = room.tasks.add.delay(1, 1), room.tasks.add.delay(2, 2)
    calls.abort(call.id)
    room.worker()
    row = room.wait_for(call)
    assert (row.status, row.reason) == ("aborted", "aborted")
    assert room.wait_for(other).status == "succeeded"
    assert room.runs(call) == 0


@on(BASE, RABBITMQ, MARIADB, SQLITE)
def test_rule_25_force_kills_the_process_that_runs_the_call_and_nothing_else(cell):
    call_id, neighbour = procedures.owned_hold.call(), procedures.owned_hold.call()
    for each in (call_id, neighbour):
        cell.until_running(each)
    workers = Worker.objects.using(cell.alias).filter(name=cell.worker_name)
    eventually("the worker has shown a sign of life", workers.exists)
    began = time.monotonic()
    calls.abort(call_id, reason="now", force=True)
    with pytest.raises(CallAborted, match="now"):
        procedures.owned_hold.get_result(call_id, wait=WAIT)
    row = cell.wait_for(call_id)
    # Its grace is ten seconds.
    assert time.monotonic() - began < 8
    assert (row.status, row.reason) == ("aborted", "aborted")
    cell.release(neighbour)
    assert procedures.owned_hold.get_result(neighbour, wait=WAIT) == "held"
    assert procedures.double.get_result(procedures.double.call(1), wait=WAIT) == 2
    assert cell.runs(call_id) == 1


@on(THREADS, GEVENT, SOLO)
def test_rule_25_force_is_refused_where_the_pool_cannot(cell):
    call_id = procedures.owned_hold.call()
    cell.until_running(call_id)
    with pytest.raises(ConfigurationError, match="without force"):
        calls.abort(call_id, force=True)
    assert cell.find(call_id).abort_requested_at is None
    cell.release(call_id)
    assert procedures.owned_hold.get_result(call_id, wait=WAIT) == "held"


@on(BASE)
def test_force_ends_an_observed_call_that_runs(cell):
    call = cell.until_running(cell.tasks.held.delay())
    calls.abort(call.id)
    assert cell.find(call.id).status == "started"
    calls.abort(call.id, force=True)
    row = cell.wait_for(call)
    assert (row.status, row.reason) == ("aborted", "aborted")


@on(BASE, SQLITE)
def test_rule_13_a_parked_call_runs_again_as_another(cell):
    parked = procedures.owned_retry.using(owner="ada").call(9)
    assert cell.wait_for(parked).status == "parked"
    again = calls.rerun(parked, by="grace")
    row = cell.wait_for(again)
    assert (row.status, row.rerun_of, row.owner, row.retries) == ("parked", parked, "ada", 2)
    assert cell.find(parked).status == "parked"


@on(BASE, THREADS, GEVENT, MARIADB)
@pytest.mark.parametrize("polls", [False, True])
def test_lrp_34_to_43_callers(cell, polls):
    def caller(used, signal=None):
        if polls:
            return PollingCaller(used, polling_interval=0.05, signal=signal)
        return Caller(used, signal=signal)

    assert caller(procedures.double).call(4, by=3) == 12
    with pytest.raises(ValueError, match="no such month"):
        caller(procedures.owned_fail).call("no such month")
    controller = AbortController()
    # Rooms share their database, and others' calls may make calls of their own.
    mine = {"task": procedures.polite.name, "source_script": cell.script}
    made = [row.pk for row in cell.found(**mine)]
    timer = threading.Timer(0.3, controller.abort, ("wrong month",))
    timer.start()
    with pytest.raises(CallAborted, match="wrong month"):
        caller(procedures.polite, controller.signal).call()
    timer.join()
    (row,) = [row for row in cell.found(**mine) if row.pk not in made]
    # It settles after its caller has gone, and is gone itself then.
    row = cell.wait_for(row.pk, lambda row: row.removed_at is not None)
    assert row.status == "aborted"
    assert calls.get(row.pk) is None
