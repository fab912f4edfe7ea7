"""Kills: of the pool process, the worker and its side process, at every boundary of a call.

Each accepted call comes to exactly one right outcome: one that is idempotent succeeds,
another one whose run was lost has failed, and none stays open.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from celery import chain
from django.db.models.functions import Now
from django.test import override_settings

from django_app.models import Call, Payload
from lrp_celery import CallAborted
from lrp_celery.core.ids import new_id
from lrp_celery.procedures import notices, workers
from lrp_celery.procedures.aborts import Board
from lrp_celery.procedures.notices import Noticeboard, Notices
from tests.integration import hostile, procedures
from tests.integration.crashes import (
    DONE,
    LEASE,
    LOST,
    QUICK,
    RIGHT,
    WAIT,
    call_and_die,
    call_at,
    kill_only,
    outcomes_of,
    processes_of,
    side_of,
    told,
    until_gone,
    until_held,
)
from tests.integration.harness import eventually
from tests.services.process import own_folder

pytestmark = [pytest.mark.integration, pytest.mark.services]


@pytest.fixture(scope="module")
def worked(workshop):
    """A room with one worker, for tests that leave it alive."""
    with contextlib.ExitStack() as stack:
        room = workshop.room("redis", "postgres", stack)
        room.worker(tracking=QUICK, concurrency=3)
        yield room


@pytest.fixture
def quick(worked, workshop):
    """The same, as this process sees it; nothing waits for long."""
    with worked.entered(workshop.blocker), override_settings(LRP_CELERY={"DATABASE": worked.alias, **QUICK}):
        yield worked


# --- At every boundary


def test_a_pool_process_that_is_killed_at_any_boundary_leaves_one_right_outcome(quick):
    room = quick
    calls = {boundary: call_at(room, boundary, "kill") for boundary in hostile.BOUNDARIES}
    found = outcomes_of(room, calls)
    assert found == RIGHT, told(room, calls, found, RIGHT)
    for boundary, (once, again) in calls.items():
        lost = boundary in {"after-claim", "body", "before-settle"}
        assert [attempt.outcome for attempt in room.attempts(once)] == (["failed"] if lost else [])
        assert [attempt.outcome for attempt in room.attempts(again)] == (["interrupted"] if lost else [])
        assert hostile.again.get_result(again) == 3


@pytest.mark.parametrize(("broker", "database"), [("redis", "postgres"), ("rabbitmq", "postgres"), ("redis", "sqlite")])
def test_a_worker_that_is_killed_at_any_boundary_leaves_one_right_outcome_and_nothing_else(
    quick_room, folders, broker, database
):
    room = quick_room(broker, database)
    first = room.worker(tracking=QUICK, concurrency=11)
    calls = {boundary: call_at(room, boundary, "hold") for boundary in hostile.BOUNDARIES}
    linked = chain(hostile.once.s(4), procedures.double.s(by=10)).freeze()
    head = linked.parent.id
    hostile.trap(room.folder, head, "after-settle", "hold")
    chain(hostile.once.s(4).set(task_id=head), procedures.double.s(by=10).set(task_id=linked.id)).apply_async()
    until_held(room, {**calls, "after-settle": (*calls["after-settle"], head)})
    assert len(folders()) == 1
    kill_only(first)
    until_gone(first)
    assert folders() == []

    second = room.worker(name="w2", tracking=QUICK)
    assert outcomes_of(room, calls) == RIGHT
    assert (room.wait_for(head).status, room.runs(head)) == ("succeeded", 1)
    if broker == "rabbitmq":
        # It delivers again what was not acknowledged; Redis does so after an hour.
        room.wait_for(linked.id)
        assert procedures.double.get_result(linked.id) == 40
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    until_gone(second)
    assert folders() == []


def test_a_worker_that_is_killed_as_it_acknowledges_leaves_one_right_outcome(quick_room):
    room = quick_room("rabbitmq")
    chains = []
    for boundary in ("before-acknowledge", "after-acknowledge"):
        worker = room.worker(name=boundary, tracking=QUICK, concurrency=1)
        head, tail = new_id(), new_id()
        hostile.trap(room.folder, head, boundary, "kill")
        chain(hostile.once.s(4).set(task_id=head), procedures.double.s(by=10).set(task_id=tail)).apply_async()
        chains.append((head, tail))
        assert worker.wait() == -signal.SIGKILL
        until_gone(worker)
    room.worker(name="last", tracking=QUICK)
    for _, tail in chains:
        room.wait_for(tail)
        assert procedures.double.get_result(tail) == 40
    # What was not acknowledged comes again, and goes on with its chain once more: that, too, runs once.
    (twice, its_tail), (once, _) = chains
    eventually("the tail has come twice", lambda: ends_in_logs(room, its_tail) == 2)
    assert [ends_in_logs(room, call_id) for call_id in (twice, once)] == [2, 1]
    assert [(room.find(call_id).status, room.runs(call_id)) for pair in chains for call_id in pair] == [
        (DONE[0], 1)
    ] * 4


def ends_in_logs(room, call_id):
    """Return how many deliveries of a call have ended, in all workers."""
    return sum(process.log().count(f"[{call_id}] succeeded") for process in room.processes)


def test_rule_13_a_pool_process_that_dies_after_its_end_goes_on_with_its_chain_if_its_message_is_to_come_again(quick):
    room, (head, tail) = quick, (new_id(), new_id())
    hostile.trap(room.folder, head, "after-settle", "kill")
    chain(hostile.comes_again.s(4).set(task_id=head), procedures.double.s(by=10).set(task_id=tail)).apply_async()
    room.wait_for(tail)
    assert procedures.double.get_result(tail) == 40
    assert [(room.find(call_id).status, room.runs(call_id)) for call_id in (head, tail)] == [(DONE[0], 1)] * 2


def test_what_a_worker_left_that_was_killed_with_its_side_process_is_cleared_away_by_the_next(quick_room, folders):
    room = quick_room()
    first = room.worker(tracking=QUICK, concurrency=1)
    hostile.once.get_result(hostile.once.call(), wait=WAIT)
    side_of(first)
    first.kill()
    (left,) = folders()
    place = Path(os.environ["TMPDIR"]) / left
    assert {path.suffix for path in place.iterdir()} == {".runs", ".sock"}
    long_ago = time.time() - 2 * workers._ABANDONED
    os.utime(place, (long_ago, long_ago))
    second = room.worker(name="w2", tracking=QUICK, concurrency=1)
    (living,) = folders()
    assert living != left
    # A living worker's is not touched, however old.
    os.utime(place.with_name(living), (long_ago, long_ago))
    workers._clear_away(place.parent)
    assert folders() == [living]
    second.signal(signal.SIGTERM)
    second.wait()
    assert folders() == []


def test_what_dead_pool_processes_left_is_cleared_away(monkeypatch):
    with own_folder("notices") as folder:
        child = os.fork()
        if not child:
            board = Board()
            Notices(folder, board)
            board.changed()
            os._exit(0)
        os.waitpid(child, 0)
        noticeboard = Noticeboard(folder)
        assert noticeboard.runs() == []
        assert noticeboard.is_dead(child)
        assert len(list(folder.iterdir())) == 2
        monkeypatch.setattr(notices, "_PROOF", 0.0)
        eventually("they are gone", lambda: noticeboard.runs() == [] and not list(folder.iterdir()))


# --- The side process


def test_a_side_process_that_is_killed_is_replaced_before_a_lease_is_over(quick):
    room, worker = quick, quick.processes[0]
    calls = procedures.owned_hold.call(), procedures.polite.call()
    for call_id in calls:
        room.until_running(call_id)
    side = side_of(worker)
    os.kill(side, signal.SIGKILL)
    eventually("another one runs", lambda: processes_of(worker)[1] not in {None, side}, within=LEASE)
    lease = room.find(calls[0]).lease_until
    eventually("it renews leases", lambda: (room.find(calls[0]).lease_until - lease).total_seconds() > LEASE)
    procedures.polite.abort(calls[1])
    assert room.wait_for(calls[1]).status == "aborted"
    room.release(calls[0])
    assert procedures.owned_hold.get_result(calls[0], wait=WAIT) == "held"
    assert room.runs(calls[0]) == 1


def test_a_side_process_that_is_killed_as_it_sends_a_message_again_leaves_one_right_outcome(quick_room):
    room = quick_room()
    boundaries = ("after-attend", "after-sending", "after-publish")
    calls = {new_id(): boundary for boundary in boundaries}
    # Their callers have not sent them.
    call_and_die(room, dict.fromkeys(calls, "before-publish"))
    for call_id, boundary in calls.items():
        hostile.trap(room.folder, call_id, boundary, "kill")
    for name in ("w1", "w2"):
        room.worker(name=name, tracking=QUICK, concurrency=1)
    assert {call_id: hostile.once.get_result(call_id, wait=WAIT) for call_id in calls} == dict.fromkeys(calls, 5)
    for call_id, boundary in calls.items():
        assert [line.event for line in room.truth(call_id) if line.event == f"kill@{boundary}"]
        assert room.runs(call_id) == 1


def test_a_message_that_cannot_be_sent_harms_nobody_else(quick):
    room, worker = quick, quick.processes[0]
    side = side_of(worker)
    calls = [hostile.once.using(queue=f"{room.queue}-nobody").call() for _ in range(3)]
    for call_id, what in zip(calls, ("{}", "no JSON"), strict=False):
        Payload.objects.using(room.alias).filter(pk=call_id).update(message=what)
    # As if none of them had got out.
    Call.objects.using(room.alias).filter(pk__in=calls).update(published_at=None, send_at=Now(), attend_at=Now())
    for call_id in calls[:2]:
        complaint = f"Call {call_id} could not be looked after"
        eventually(complaint, lambda complaint=complaint: complaint in worker.log(), tell=worker.log_end)
    assert room.wait_for(calls[2], lambda row: row.sends > 0).status == "submitted"
    assert processes_of(worker)[1] == side
    for call_id in calls:
        hostile.once.abort(call_id)
        assert room.find(call_id).status == "aborted"


# --- Frozen


def test_rule_07_a_worker_that_was_frozen_past_its_lease_cannot_settle_what_another_has_run(quick_room):
    room = quick_room()
    first = room.worker(tracking=QUICK)
    call_id = new_id()
    hostile.trap(room.folder, call_id, "body", "hold")
    hostile.again.using(call_id=call_id).call(5)
    until_held(room, {"body": [call_id]})
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        second = room.worker(name="w2", tracking=QUICK)
        row = room.wait_for(call_id)
        assert (row.status, row.worker, row.attempt) == ("succeeded", room.name_of("w2"), 2)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    room.release(call_id)
    eventually("the first run ends", lambda: f"[{call_id}] ignored" in first.log(), tell=first.log_end)
    after = room.find(call_id)
    assert (after.terminal_at, after.run, after.status, after.late_runs) == (row.terminal_at, row.run, "succeeded", 0)
    assert [(a.number, a.outcome) for a in room.attempts(call_id)] == [(1, "interrupted")]
    # It goes on as before.
    second.signal(signal.SIGTERM)
    assert hostile.once.get_result(hostile.once.call(), wait=WAIT) == 1


def test_rules_07_and_09_pool_processes_that_are_frozen_past_their_leases_lose_their_calls(quick):
    room, worker = quick, quick.processes[0]
    once, again = new_id(), new_id()
    for task, call_id in ((hostile.once, once), (hostile.again, again)):
        hostile.trap(room.folder, call_id, "body", "hold")
        task.using(call_id=call_id).call(5)
    until_held(room, {"body": [once, again]})
    frozen = [room.last_pid(call_id) for call_id in (once, again)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    # The one runs again in a third process, the other is given up, but not before three leases.
    done = room.wait_for(again)
    assert (done.status, done.pid in frozen) == ("succeeded", False)
    lost = room.wait_for(once)
    assert (lost.status, lost.reason) == LOST
    assert time.monotonic() - stopped > 2 * LEASE
    room.release(once, again)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    for row in (done, lost):
        quiet = f"[{row.call_id}] ignored"
        eventually("the frozen run ends", lambda quiet=quiet: quiet in worker.log(), tell=worker.log_end)
        after = room.find(row.call_id)
        assert (after.status, after.run, after.terminal_at) == (row.status, row.run, row.terminal_at)
    assert [room.runs(call_id) for call_id in (once, again)] == [1, 2]


# --- Asked to end, and lost


def test_a_call_that_was_asked_to_end_and_is_lost_is_aborted(quick):
    room = quick
    call_id = new_id()
    hostile.trap(room.folder, call_id, "body", "hold")
    hostile.again.using(call_id=call_id).call(5)
    room.until_running(call_id)
    hostile.again.abort(call_id, "enough")
    os.kill(room.last_pid(call_id), signal.SIGKILL)
    row = room.wait_for(call_id)
    assert (row.status, row.reason, room.runs(call_id)) == ("aborted", "aborted", 1)
    with pytest.raises(CallAborted, match="enough"):
        hostile.again.get_result(call_id)
