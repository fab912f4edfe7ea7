"""Owned calls with real workers: claimed, run and settled once."""

import time

import pytest
from django.db import connections

from lrp_celery import CallAborted, CallFailed, CallState, CallTimedOut, ResultTimeout
from tests.integration import history, procedures
from tests.integration.cells import BASE, GEVENT, MARIADB, MATRIX, RABBITMQ, SOLO, SQLITE, THREADS, on
from tests.integration.harness import eventually

EVERYWHERE = (BASE, RABBITMQ, THREADS, GEVENT, SOLO, MARIADB, MATRIX)
WAIT = 20.0


@on(*EVERYWHERE)
def test_lrp_06_a_call_that_returns_resolves_with_its_value(cell):
    call_id = procedures.double.call(4, by=3)
    assert procedures.double.get_result(call_id, wait=WAIT) == 12
    assert procedures.double.get_state(call_id) is CallState.SETTLED
    assert cell.runs(call_id) == 1


@on(BASE, SQLITE)
def test_a_delayed_procedure_is_owned_too(cell):
    call_id = procedures.double.delay(4).id
    cell.wait_for(call_id)
    assert procedures.double.get_result(call_id) == 8
    assert cell.find(call_id).owned


@on(BASE)
def test_arguments_and_results_travel_by_their_annotations(cell):
    month = procedures.Month(procedures.date(2026, 10, 1), 31)
    call_id = procedures.next_month.call(month)
    assert procedures.next_month.get_result(call_id, wait=WAIT) == procedures.Month(procedures.date(2026, 11, 1), 31)


@on(*EVERYWHERE)
def test_lrp_07_a_call_that_raises_is_rejected_with_its_error(cell):
    call_id = procedures.owned_fail.call("no such month")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such month") as caught:
            procedures.owned_fail.get_result(call_id, wait=WAIT)
    assert isinstance(caught.value.__cause__, CallFailed)
    row = cell.find(call_id)
    assert (row.status, row.error_type, row.last_error) == ("failed", "ValueError", "no such month")


@on(BASE, SQLITE, THREADS, GEVENT)
def test_a_procedure_retries_under_its_id(cell):
    call_id = procedures.owned_retry.call(2)
    assert procedures.owned_retry.get_result(call_id, wait=WAIT) == 2
    assert [a.outcome for a in cell.attempts(call_id)] == ["retried", "retried"]
    assert cell.runs(call_id) == 3


@on(BASE)
def test_a_procedure_whose_retries_are_exhausted_is_parked(cell):
    call_id = procedures.owned_retry.call(9)
    with pytest.raises(ValueError, match="try 2"):
        procedures.owned_retry.get_result(call_id, wait=WAIT)
    assert cell.find(call_id).status == "parked"


@on(BASE, THREADS, GEVENT)
def test_an_async_procedure_retries_by_itself(cell):
    call_id = procedures.owned_autoretry.call(1)
    assert procedures.owned_autoretry.get_result(call_id, wait=WAIT) == 1
    assert cell.runs(call_id) == 2


@on(BASE)
@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [("ignore", "discarded", "ignored"), ("reject", "discarded", "rejected"), ("result", "failed", "bad_result")],
)
def test_other_ends(cell, how, status, reason):
    call_id = procedures.owned_end.call(how)
    row = cell.wait_for(call_id)
    assert (row.status, row.reason) == (status, reason)


@on(*EVERYWHERE)
def test_lrp_16_a_running_call_is_told_and_settles(cell):
    call_id = procedures.polite.call()
    cell.until_running(call_id)
    assert procedures.polite.get_state(call_id) is CallState.PENDING
    with pytest.raises(ResultTimeout):
        procedures.polite.get_result(call_id, wait=0)
    procedures.polite.abort(call_id, "wrong month")
    with pytest.raises(CallAborted, match="wrong month"):
        procedures.polite.get_result(call_id, wait=WAIT)
    row = cell.wait_for(call_id, within=5)
    assert (row.status, row.reason) == ("aborted", "aborted")


@on(BASE, THREADS, SOLO)
def test_a_deaf_call_is_interrupted_after_its_grace(cell):
    call_id = procedures.busy.call()
    cell.until_running(call_id)
    began = time.monotonic()
    procedures.busy.abort(call_id)
    row = cell.wait_for(call_id, within=10)
    assert (row.status, row.reason) == ("aborted", "aborted")
    assert time.monotonic() - began < 3
    # The next call in that process is unharmed.
    assert procedures.double.get_result(procedures.double.call(1), wait=WAIT) == 2


@on(BASE, GEVENT, SOLO)
def test_rule_24_a_call_that_blocks_is_interrupted_once_and_not_retried(cell):
    call_id = procedures.deaf.call()
    cell.until_running(call_id)
    procedures.deaf.abort(call_id)
    row = cell.wait_for(call_id, within=10)
    assert (row.status, row.reason) == ("aborted", "aborted")
    assert [line.event for line in cell.truth(call_id)] == ["started"]


@on(BASE, THREADS, GEVENT)
def test_an_async_call_is_cancelled(cell):
    call_id = procedures.deaf_coroutine.call()
    cell.until_running(call_id)
    procedures.deaf_coroutine.abort(call_id)
    row = cell.wait_for(call_id, within=10)
    assert (row.status, row.reason) == ("aborted", "aborted")


@on(BASE, SOLO)
def test_lrp_25_a_timeout_ends_a_call_with_nobody_waiting(cell):
    call_id = procedures.short_lived.call()
    row = cell.wait_for(call_id, within=10)
    assert (row.status, row.reason) == ("aborted", "timeout")
    with pytest.raises(CallTimedOut):
        procedures.short_lived.get_result(call_id)


@on(BASE, RABBITMQ)
def test_an_idempotent_call_whose_process_dies_runs_again(cell):
    call_id = procedures.suicidal.call(2)
    assert procedures.suicidal.get_result(call_id, wait=WAIT) == 2
    assert cell.runs(call_id) == 2


@on(BASE)
def test_rule_08_losses_are_limited(cell):
    call_id = procedures.suicidal.call(9)
    with pytest.raises(CallFailed) as caught:
        procedures.suicidal.get_result(call_id, wait=WAIT)
    assert caught.value.reason == "worker_lost"
    assert cell.runs(call_id) == 2


@pytest.mark.integration
@pytest.mark.services
def test_a_call_costs_three_writing_transactions(make_room):
    room = make_room()
    calls = [procedures.double.call(n) for n in range(5)]
    # Inserted: row and message together, for nobody has written either since.
    assert all(wrote_both(room, call_id) for call_id in calls)
    room.worker()
    for call_id in calls:
        row = room.wait_for(call_id)
        # What marks many ended calls as counted in one transaction leaves their version as it was.
        states = {state["version"]: state["status"] for state in history.read(connections[room.alias], call_id)}
        assert states == {0: "submitted", 1: "started", 2: "succeeded"}
        # Settled: row and result together, and nothing else was written for it.
        assert wrote_both(room, call_id)
        assert (list(room.attempts(call_id)), row.lines, row.version) == ([], 0, 2)


def wrote_both(room, call_id):
    query = (
        "SELECT c.xmin = p.xmin OR c.counted_at IS NOT NULL "
        "FROM lrp_celery_call c JOIN lrp_celery_payload p USING (call_id) WHERE call_id = %s"
    )
    with connections[room.alias].cursor() as cursor:
        cursor.execute(query, [call_id])
        return cursor.fetchone()[0]


#: Of a worker whose greenlets have all ended, with its side process: whatever does not grow with its calls.
MOST_AT_REST = 8


@pytest.mark.integration
@pytest.mark.services
def test_greenlets_on_postgresql_leave_no_connections_behind(make_room, monkeypatch):
    room = make_room()
    with monkeypatch.context() as named:
        named.setenv("PGAPPNAME", room.name)
        room.worker(pool="gevent", concurrency=10)
    for _ in range(3):
        calls = [procedures.double.call(n) for n in range(20)]
        others = [room.tasks.add.delay(n, 1) for n in range(20)]
        assert [procedures.double.get_result(call_id, wait=WAIT) for call_id in calls] == [2 * n for n in range(20)]
        assert {room.wait_for(call).status for call in others} == {"succeeded"}
    eventually("the greenlets' connections are closed", lambda: 0 < connections_of(room) <= MOST_AT_REST)


def connections_of(room):
    """How many connections the room's worker has."""
    with connections[room.alias].cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = %s", [room.name])
        return cursor.fetchone()[0]
