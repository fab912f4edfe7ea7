"""Messages of owned calls that come twice, late, early, out of turn, or not at all: one run, one outcome."""

from datetime import timedelta

import pytest
from celery import chain, chord, group, shared_task
from django.test import override_settings
from django.utils import timezone

from django_app.conf import Options
from django_app.models import Call, Payload
from lrp_celery import CallAborted, CallDiscarded, CallFailed, CallNotFound, procedure
from lrp_celery.core.ids import new_id
from lrp_celery.tracking.owned import Timing
from tests.integration import hostile, procedures
from tests.integration.cells import BASE, GEVENT, RABBITMQ, SOLO, SQLITE, THREADS, on
from tests.integration.copies import envelope_of, facts, publish, until_ended
from tests.integration.harness import id_of

WAIT = 20.0


def result_of(room, procedure, call):
    """Return the result of a call whose row is made by its worker: one of a canvas, or by `delay`."""
    room.wait_for(call)
    return procedure.get_result(id_of(call))


@procedure
@shared_task(name="tests.unknown_to_workers")
def unknown() -> None:
    """No worker imports this module."""


# --- Copies


@on(BASE, RABBITMQ, THREADS, GEVENT, SQLITE)
def test_rule_01_a_message_that_comes_three_times_runs_once(cell):
    call_id = new_id()
    hostile.trap(cell.folder, call_id, "before-claim", "hold")
    assert hostile.once.using(call_id=call_id).call(7) == call_id
    publish(cell, envelope_of(cell, call_id), 2)
    assert hostile.once.get_result(call_id, wait=WAIT) == 7
    # One of the three waits before its claim: it comes when the call is over.
    cell.release(call_id)
    until_ended(cell, call_id, 3)
    row = cell.find(call_id)
    assert (row.status, row.reason, row.runs, row.late_runs) == ("succeeded", None, 1, 0)
    assert cell.runs(call_id) == 1
    assert cell.attempts(call_id) == []


@on(BASE, THREADS, GEVENT)
def test_rule_01_a_copy_of_a_running_call_ends_quietly(cell):
    call_id = procedures.owned_hold.call()
    cell.until_running(call_id)
    before = facts(cell, call_id)
    publish(cell, envelope_of(cell, call_id), 2)
    until_ended(cell, call_id, 2)
    assert facts(cell, call_id) == before
    cell.release(call_id)
    assert procedures.owned_hold.get_result(call_id, wait=WAIT) == "held"
    assert cell.runs(call_id) == 1
    assert cell.attempts(call_id) == []


@on(BASE)
def test_rule_13_a_copy_of_a_succeeded_call_returns_what_is_recorded_and_changes_nothing(cell):
    tail = procedures.double.s(by=5)
    result = chain(hostile.once.s(3), tail).apply_async()
    first = result.parent.id
    assert result_of(cell, procedures.double, result) == 15
    before = facts(cell, first), facts(cell, result.id)
    publish(cell, envelope_of(cell, first))
    until_ended(cell, first, 2)
    until_ended(cell, result.id, 2)
    assert cell.processes[0].log().count(f"[{first}] succeeded") == 2
    assert (facts(cell, first), facts(cell, result.id)) == before
    assert (cell.runs(first), cell.runs(result.id)) == (1, 1)


@on(BASE)
def test_rule_13_a_copy_of_a_failed_call_changes_nothing(cell):
    call_id = procedures.owned_fail.call("no")
    cell.wait_for(call_id)
    before = facts(cell, call_id)
    publish(cell, envelope_of(cell, call_id))
    until_ended(cell, call_id, 2)
    assert facts(cell, call_id) == before
    assert cell.runs(call_id) == 1


@on(BASE)
def test_rule_07_a_copy_of_an_older_turn_ends_quietly_while_the_next_waits_and_while_it_runs(cell):
    call_id = new_id()
    hostile.trap(cell.folder, call_id, "before-claim", "hold")
    hostile.held_in_turn.using(call_id=call_id).call(1, countdown=2.0, value=9)
    older = envelope_of(cell, call_id)
    cell.release(call_id)
    cell.wait_for(call_id, lambda row: row.status == "retrying")
    (cell.folder / f"{call_id}.go").unlink()
    before = facts(cell, call_id)
    publish(cell, older)
    until_ended(cell, call_id, 2)
    assert facts(cell, call_id) == before
    cell.until_running(call_id, runs=2)
    publish(cell, older)
    until_ended(cell, call_id, 3)
    cell.release(call_id)
    assert hostile.held_in_turn.get_result(call_id, wait=WAIT) == 9
    assert cell.runs(call_id) == 2


@on(BASE, SQLITE)
def test_rule_11_a_message_of_a_removed_call_does_not_run_and_revives_nothing(cell):
    call_id = hostile.once.call()
    cell.wait_for(call_id)
    message = envelope_of(cell, call_id)
    hostile.once.remove(call_id)
    before = facts(cell, call_id)
    publish(cell, message)
    until_ended(cell, call_id, 2)
    assert facts(cell, call_id) == before
    assert cell.runs(call_id) == 1
    with pytest.raises(CallNotFound):
        hostile.once.get_state(call_id)


@on(BASE)
def test_rule_11_a_message_of_an_earlier_generation_does_not_run_for_the_next(cell):
    call_id = hostile.once.call(1)
    cell.wait_for(call_id)
    message = envelope_of(cell, call_id)
    hostile.once.remove(call_id)
    again = hostile.once.using(call_id=call_id, countdown=1.0)
    assert again.call(2) == call_id
    publish(cell, message)
    until_ended(cell, call_id, 2)
    assert cell.find(call_id).status == "submitted"
    assert hostile.once.get_result(call_id, wait=WAIT) == 2
    assert cell.runs(call_id) == 2


@on(BASE)
def test_rule_11_a_message_whose_row_is_gone_does_not_run(cell):
    call_id = hostile.once.call()
    cell.wait_for(call_id)
    message = envelope_of(cell, call_id)
    Payload.objects.using(cell.alias).filter(pk=call_id).delete()
    Call.objects.using(cell.alias).filter(pk=call_id).delete()
    publish(cell, message)
    until_ended(cell, call_id, 2)
    assert cell.has_no_row(call_id)
    assert cell.runs(call_id) == 1


# --- Every road is owned


@on(BASE, SQLITE, SOLO)
def test_delay_canvas_and_a_name_only_make_owned_calls(cell):
    delayed = hostile.once.delay(1)
    named = cell.app.send_task("tests.once", (2,))
    linked = chain(hostile.once.s(3), procedures.double.s(by=2), procedures.double.s(by=3)).apply_async()
    several = group(hostile.once.s(number) for number in (4, 5)).apply_async()
    assert result_of(cell, procedures.double, linked) == 18
    assert [result_of(cell, hostile.once, one) for one in (delayed, named, *several)] == [1, 2, 4, 5]
    made = [delayed, named, linked, linked.parent, linked.parent.parent, *several]
    assert all(cell.find(one.id).owned for one in made)
    assert [cell.runs(one) for one in made] == [1] * len(made)
    assert linked.get(timeout=WAIT) == 18


@on(BASE)
def test_a_chord_of_procedures_comes_to_its_body(cell):
    result = chord([hostile.once.s(1), hostile.once.s(2)], cell.tasks.total.s()).apply_async()
    assert result.get(timeout=WAIT) == 3


@on(BASE)
def test_rule_13_a_retry_keeps_the_tail_of_its_chain(cell):
    result = chain(hostile.held_in_turn.s(2, value=4), procedures.double.s(by=10)).apply_async()
    first = result.parent.id
    cell.until_running(first, runs=3)
    # What brings the third turn, should it be lost, has the tail as well.
    assert envelope_of(cell, first).body[2]["chain"]
    cell.release(first)
    assert result_of(cell, procedures.double, result) == 40
    assert cell.find(first).retries == 2


# --- Retries in unusual ways


@on(BASE)
def test_rule_16_a_retry_much_later_waits_with_us_and_not_in_the_broker(cell):
    call_id = hostile.held_in_turn.call(1, countdown=500.0)
    row = cell.wait_for(call_id, lambda row: row.status == "retrying")
    until_ended(cell, call_id, 1)
    assert (row.published_at, row.send_at) == (None, row.due_at)
    # Any call that is published later is received later.
    marker = hostile.once.call()
    hostile.once.get_result(marker, wait=WAIT)
    assert cell.processes[0].log().count(f"[{call_id}] received") == 1
    hostile.held_in_turn.abort(call_id)
    with pytest.raises(CallAborted):
        hostile.held_in_turn.get_result(call_id, wait=0)


@on(BASE)
def test_a_retry_that_is_raised_by_hand_is_a_turn_too(cell):
    call_id = hostile.raises_retry.call()
    assert hostile.raises_retry.get_result(call_id, wait=WAIT) == 1
    assert cell.runs(call_id) == 2


@on(BASE)
def test_a_run_that_asks_for_a_retry_and_returns_leaves_the_outcome_to_its_next_turn(cell):
    call_id = hostile.retries_and_returns.call()
    assert hostile.retries_and_returns.get_result(call_id, wait=WAIT) == 1
    assert cell.runs(call_id) == 2


# --- Limits


@on(BASE)
def test_a_soft_time_limit_fails_a_call(cell):
    call_id = hostile.slow.using(soft_time_limit=0.5).call(60)
    row = cell.wait_for(call_id)
    assert (row.status, row.reason, row.error_type) == (
        "failed",
        "time_limit",
        "billiard.exceptions.SoftTimeLimitExceeded",
    )
    with pytest.raises(CallFailed):
        hostile.slow.get_result(call_id)


@on(BASE)
def test_a_soft_time_limit_that_strikes_before_the_claim_is_not_lost(cell):
    call_id = new_id()
    hostile.trap(cell.folder, call_id, "before-claim", "hold")
    hostile.slow.using(call_id=call_id, soft_time_limit=0.5).call(10)
    row = cell.wait_for(call_id)
    assert (row.status, row.reason) == ("failed", "time_limit")


@on(BASE)
def test_a_soft_time_limit_that_strikes_a_settlement_changes_nothing(cell):
    call_id = new_id()
    hostile.trap(cell.folder, call_id, "after-settle", "hold")
    hostile.once.using(call_id=call_id, soft_time_limit=0.5).call(3)
    assert hostile.once.get_result(call_id, wait=WAIT) == 3
    until_ended(cell, call_id, 1)
    assert f"[{call_id}] succeeded" in cell.processes[0].log()
    assert cell.find(call_id).status == "succeeded"


@on(BASE)
def test_a_hard_time_limit_fails_a_call(cell):
    call_id = hostile.slow.using(time_limit=1).call(60)
    row = cell.wait_for(call_id)
    assert (row.status, row.reason) == ("failed", "time_limit")
    assert [attempt.outcome for attempt in cell.attempts(call_id)] == ["failed"]


# --- Ended by others, and by the clock


@on(BASE)
def test_a_waiting_call_that_others_revoke_is_discarded(cell):
    call_id = hostile.once.using(countdown=1.5).call()
    cell.app.control.revoke(call_id)
    row = cell.wait_for(call_id)
    assert (row.status, row.reason, row.runs) == ("discarded", "revoked", 0)
    with pytest.raises(CallDiscarded):
        hostile.once.get_result(call_id)


@on(BASE)
def test_rule_16_a_call_that_nobody_takes_expires(cell):
    call_id = hostile.once.using(expires=0.5, queue=f"{cell.queue}-nobody").call()
    row = cell.wait_for(call_id)
    assert (row.status, row.reason, row.runs) == ("discarded", "expired", 0)


@on(BASE)
def test_a_call_that_is_taken_too_late_expires(cell):
    holders = [procedures.owned_hold.call() for _ in range(2)]
    for holder in holders:
        cell.until_running(holder)
    call_id = hostile.once.using(expires=0.5).call()
    cell.wait_for(call_id, lambda row: row.is_terminal)
    cell.release(*holders)
    marker = hostile.once.call()
    hostile.once.get_result(marker, wait=WAIT)
    assert (cell.find(call_id).reason, cell.runs(call_id)) == ("expired", 0)


@on(BASE, RABBITMQ)
def test_a_short_countdown_waits_in_the_broker_until_it_is_due(cell):
    call_id = hostile.once.using(countdown=1.0).call()
    row = cell.find(call_id)
    assert row.published_at is not None
    cell.wait_for(call_id)
    assert cell.find(call_id).started_at >= row.due_at - timedelta(seconds=0.05)
    assert cell.runs(call_id) == 1


@on(BASE)
def test_rule_16_a_long_countdown_waits_with_the_relay_until_it_is_due(cell, monkeypatch):
    monkeypatch.setattr(Options, "timing", property(lambda self: Timing(hand_over=0.5)))
    with override_settings(LRP_CELERY={"DATABASE": cell.alias}):
        call_id = hostile.once.using(countdown=3.0).call(5)
    row = cell.find(call_id)
    assert (row.published_at, row.send_at) == (None, row.due_at)
    marker = hostile.once.call()
    hostile.once.get_result(marker, wait=WAIT)
    assert timezone.now() < row.due_at
    assert f"[{call_id}] received" not in cell.processes[0].log()
    assert hostile.once.get_result(call_id, wait=WAIT) == 5
    sent = cell.find(call_id)
    assert (sent.sends, sent.started_at >= row.due_at) == (1, True)
    assert cell.runs(call_id) == 1


# --- Workers that cannot run it, and hooks that must not


@on(BASE)
def test_rule_01_a_worker_that_does_not_know_the_task_has_not_been_delivered_its_message(cell):
    with override_settings(LRP_CELERY={"DATABASE": cell.alias, "RESEND_AFTER": 0.5}):
        call_id = unknown.call()
    row = cell.wait_for(call_id, lambda row: row.sends >= 1)
    assert (row.status, row.runs) == ("submitted", 0)
    unknown.abort(call_id)
    assert cell.find(call_id).status == "aborted"


@on(BASE, THREADS, GEVENT)
def test_before_start_runs_after_the_claim_and_for_no_copy(cell):
    call_id = hostile.watched.call()
    cell.until_running(call_id)
    publish(cell, envelope_of(cell, call_id))
    until_ended(cell, call_id, 1)
    cell.release(call_id)
    assert hostile.watched.get_result(call_id, wait=WAIT) == 1
    publish(cell, envelope_of(cell, call_id))
    until_ended(cell, call_id, 3)
    assert [line.event for line in cell.truth(call_id)] == ["before_start", "started"]


@on(BASE)
def test_a_before_start_that_raises_fails_the_call(cell):
    call_id = hostile.watched.call(refuse=True)
    with pytest.raises(PermissionError, match="Monday"):
        hostile.watched.get_result(call_id, wait=WAIT)
    assert [line.event for line in cell.truth(call_id)] == ["before_start"]


@on(BASE)
def test_rule_28_a_message_whose_id_is_too_long_is_dropped_and_does_not_go_round_for_ever(cell):
    call_id = "x" * 201
    cell.expects_losses = True
    hostile.once.apply_async(task_id=call_id)
    until_ended(cell, call_id, 1)
    marker = hostile.once.call()
    hostile.once.get_result(marker, wait=WAIT)
    assert cell.processes[0].log().count(f"[{call_id}] received") == 1
    assert cell.runs(call_id) == 0
