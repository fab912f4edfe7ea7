"""Kills: of the pool process, the worker, its side process, the broker and the database, at every boundary of a call.

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
from django.db import connections
from django.db.models.functions import Now
from django.test import override_settings

from django_app.models import Call, Payload, Worker
from lrp_celery import CallAborted
from lrp_celery.core.ids import new_id
from lrp_celery.procedures import notices, workers
from lrp_celery.procedures.aborts import Board
from lrp_celery.procedures.notices import Noticeboard, Notices
from tests.integration import hostile, procedures
from tests.integration.harness import eventually, migrate
from tests.services.databases import postgres_settings
from tests.services.process import own_folder

pytestmark = [pytest.mark.integration, pytest.mark.services]

WAIT = 30.0
LEASE = 2.0
QUICK = {"HEARTBEAT": 0.5, "LEASE": LEASE, "RESCUE_INTERVAL": 0.2, "RESEND_AFTER": 1}
LONG = pytest.mark.skipif("LRP_TEST_LONG" not in os.environ, reason="takes long: set LRP_TEST_LONG")
LOST = ("failed", "worker_lost")
DONE = ("succeeded", None)


# --- Processes


def processes_of(worker):
    """Return the pids of a worker's whole session, and of its side process."""
    found, side = set(), None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == worker.pid and fields[0] != "Z":
                found.add(int(entry.name))
                if b"lrp_celery.procedures.side" in (entry / "cmdline").read_bytes():
                    side = int(entry.name)
    return found, side


def children_of(parent):
    """Return the pids of a server's own processes, each of which may have a session of its own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def side_of(worker):
    return eventually("the side process runs", lambda: processes_of(worker)[1])


def until_gone(worker):
    eventually("every process has gone", lambda: not processes_of(worker)[0], tell=lambda: str(processes_of(worker)))


def kill_only(worker):
    """SIGKILL to the main process; whatever else there is must end by itself."""
    worker.signal(signal.SIGKILL)
    worker.wait()


@pytest.fixture
def folders(monkeypatch):
    """Where the workers of this test keep their notices."""
    with own_folder("kills") as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield lambda: sorted(path.name for path in folder.glob("lrp-*"))


@pytest.fixture
def quick_room(make_room, folders):
    """Makes a room in which nothing waits for long, here and in its workers."""
    with contextlib.ExitStack() as stack:

        def make(*args, **settings):
            room = make_room(*args, **settings)
            stack.enter_context(override_settings(LRP_CELERY={"DATABASE": room.alias, **QUICK}))
            return room

        yield make


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


def call_at(room, boundary, what):
    """Call both procedures, and let `what` happen to each at `boundary`."""
    ids = new_id(), new_id()
    for task, call_id in zip((hostile.once, hostile.again), ids, strict=True):
        hostile.trap(room.folder, call_id, boundary, what)
        assert task.using(call_id=call_id).call(3) == call_id
    return ids


def outcomes_of(room, calls):
    return {
        boundary: tuple(
            (row.status, row.reason, room.runs(row.call_id))
            for row in (room.wait_for(call_id, within=WAIT) for call_id in pair)
        )
        for boundary, pair in calls.items()
    }


#: What becomes of the two, and how often the function ran.
RIGHT = {
    "before-claim": ((*DONE, 1), (*DONE, 1)),
    "after-claim": ((*LOST, 0), (*DONE, 1)),
    "body": ((*LOST, 1), (*DONE, 2)),
    "before-settle": ((*LOST, 1), (*DONE, 2)),
    "after-settle": ((*DONE, 1), (*DONE, 1)),
}


def test_a_pool_process_that_is_killed_at_any_boundary_leaves_one_right_outcome(quick):
    room = quick
    calls = {boundary: call_at(room, boundary, "kill") for boundary in hostile.BOUNDARIES}
    assert outcomes_of(room, calls) == RIGHT
    for boundary, (once, again) in calls.items():
        lost = boundary in {"after-claim", "body", "before-settle"}
        assert [attempt.outcome for attempt in room.attempts(once)] == (["failed"] if lost else [])
        assert [attempt.outcome for attempt in room.attempts(again)] == (["interrupted"] if lost else [])
        assert hostile.again.get_result(again) == 3


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_worker_that_is_killed_at_any_boundary_leaves_one_right_outcome_and_nothing_else(quick_room, folders, broker):
    room = quick_room(broker)
    first = room.worker(tracking=QUICK, concurrency=11)
    calls = {boundary: call_at(room, boundary, "hold") for boundary in hostile.BOUNDARIES}
    linked = chain(hostile.once.s(4), procedures.double.s(by=10)).freeze()
    head = linked.parent.id
    hostile.trap(room.folder, head, "after-settle", "hold")
    chain(hostile.once.s(4).set(task_id=head), procedures.double.s(by=10).set(task_id=linked.id)).apply_async()
    held = {call_id: boundary for boundary, pair in calls.items() for call_id in pair} | {head: "after-settle"}
    for call_id, boundary in held.items():
        noted = f"hold@{boundary}"
        eventually(
            f"{call_id} stands still {boundary}",
            lambda call_id=call_id, noted=noted: noted in [line.event for line in room.truth(call_id)],
            tell=first.log_end,
        )
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
    room.until_running(call_id)
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
        room.until_running(call_id)
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


# --- Servers


def test_a_redis_that_is_killed_and_comes_back_empty_loses_no_call(quick_room, private_redis):
    room = quick_room(broker_url=private_redis.url, broker_transport_options={})
    room.worker(tracking=QUICK, concurrency=1)
    running = procedures.owned_hold.call()
    room.until_running(running)
    waiting = [hostile.once.call(number) for number in range(3)]
    later = hostile.once.using(countdown=2.0).call(9)
    private_redis.kill()
    private_redis.launch()
    # Celery's own worker may have given up for good; what it still runs, ends.
    room.worker(name="w2", tracking=QUICK)
    assert [hostile.once.get_result(call_id, wait=WAIT) for call_id in (*waiting, later)] == [0, 1, 2, 9]
    room.release(running)
    assert procedures.owned_hold.get_result(running, wait=WAIT) == "held"
    assert [room.runs(call_id) for call_id in (*waiting, later, running)] == [1] * 5


@pytest.mark.slow
@pytest.mark.chaos
@LONG
def test_a_rabbitmq_that_is_killed_and_comes_back_loses_no_call(quick_room, private_rabbitmq):
    room = quick_room("rabbitmq", broker_url=private_rabbitmq.url, broker_transport_options={"confirm_publish": True})
    room.worker(tracking=QUICK, concurrency=1)
    running = procedures.owned_hold.call()
    room.until_running(running)
    waiting = [hostile.once.call(number) for number in range(3)]
    private_rabbitmq.kill()
    down = [hostile.once.call(number) for number in range(3, 6)]
    private_rabbitmq.launch()
    room.worker(name="w2", tracking=QUICK)
    calls = [*waiting, *down]
    assert [hostile.once.get_result(call_id, wait=WAIT) for call_id in calls] == list(range(6))
    room.release(running)
    assert procedures.owned_hold.get_result(running, wait=WAIT) == "held"
    assert [room.runs(call_id) for call_id in (*calls, running)] == [1] * 7


@pytest.fixture
def private_room(private_postgres, quick_room, workshop):
    """A room whose database a test may kill."""
    database = postgres_settings(private_postgres.url, "postgres")
    migrate("integration_own", database, workshop.blocker)
    room = quick_room(database=database)
    room.expects_losses = True
    return room


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
