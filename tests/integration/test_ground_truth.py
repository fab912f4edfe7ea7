"""A thousand calls on a worker that is killed five times: each row agrees with what the tasks themselves wrote."""

import itertools
import random
from collections import defaultdict
from functools import partial

import pytest
from django.core import mail

from tests.integration.crashes import QUICK
from tests.integration.harness import eventually

pytestmark = [pytest.mark.integration, pytest.mark.services, pytest.mark.chaos, pytest.mark.slow]

CALLS = 1000
KILLS = 5
CONCURRENCY = 2
#: Seconds that some calls last, so that kills find them at work.
SLOW = 0.3
KINDS = ["succeeds"] * 5 + ["fails", "ignores", "rejects", "retries", "parks"]


class Told:
    """What the truth file says, by call."""

    def __init__(self, room):
        self.began, self.outcomes, self.last = defaultdict(int), defaultdict(set), {}
        self.last_of_pid = {}
        for line in room.truth():
            kind, _, detail = line.event.partition(":")
            if kind == "began":
                self.began[line.call_id] += 1
            else:
                self.outcomes[line.call_id].add(detail)
            self.last[line.call_id] = line
            self.last_of_pid[line.pid] = line.call_id

    def excuses(self, call_id, killed):
        """Whether an early-acknowledged call may stay open, or count as lost: it was the last of a process that was killed.

        It runs again if the broker had not got its acknowledgement yet, but then it has been given up already (RULES 21).
        """
        line = self.last.get(call_id)
        # Without a line, or with a retry that has none yet: acknowledged, and killed before it could write one.
        if line is None or line.event == "ended:retried":
            return True
        return call_id in {self.last_of_pid[pid] for pid in killed}

    def has_outlived(self, call_id, killed):
        """Whether a call's last run ended in a process that nobody killed."""
        line = self.last.get(call_id)
        return line is not None and line.event.startswith("ended:") and line.pid not in killed


def test_every_row_agrees_with_the_truth_after_five_kills(make_room, monkeypatch):
    # Under test our connections are closed after each use; a real publisher keeps its own.
    monkeypatch.delattr(mail, "outbox")
    room = make_room("rabbitmq")
    dice = random.Random(5)
    tasks = itertools.cycle([room.tasks.played, room.tasks.played_late])
    late, slow = {}, set()
    for number in range(CALLS):
        task = next(tasks)
        lasts = SLOW if number % 50 < 2 else dice.uniform(0, 0.005)
        call = task.delay(KINDS[number // 2 % len(KINDS)], lasts)
        late[call.id] = task.acks_late
        slow |= {call.id} if lasts == SLOW else set()

    def amid_a_slow_call(runs):
        lines = room.truth()
        # Each run writes two.
        return len(lines) > 2 * runs and lines[-1].call_id in slow

    for kill in range(1, KILLS + 1):
        worker = room.worker(name=f"w{kill}", concurrency=CONCURRENCY)
        eventually(
            f"the worker is in the middle of things for the {kill}. time",
            partial(amid_a_slow_call, CALLS * kill // (KILLS + 1)),
            within=90.0,
            tell=worker.log_end,
            pause=0.05,
        )
        worker.kill()
    killed = {line.pid for line in room.truth()}
    room.worker(name="last", concurrency=CONCURRENCY, tracking=QUICK)

    def unexcused():
        told = Told(room)
        waiting = [row.call_id for row in room.found() if row.call_id in late and is_lost(row)]
        return [call_id for call_id in waiting if late[call_id] or not told.excuses(call_id, killed)]

    def hanging():
        # One that was acknowledged, and whose process was killed before it began, waits for SILENT_AFTER.
        return [row.call_id for row in room.found(status="started") if row.call_id in late]

    eventually(
        "every call has ended that could",
        lambda: idle(room) and not unexcused(),
        within=90.0,
        tell=lambda: "\n".join(map(room.tell, unexcused())),
        pause=0.2,
    )
    eventually("no run hangs", lambda: not hanging(), within=90.0, tell=lambda: str(hanging()))
    assert unexcused() == []

    told, rows = Told(room), {row.call_id: row for row in room.found() if row.call_id in late}
    assert set(rows) == set(late)
    lost = [row for row in rows.values() if is_lost(row)]
    assert len(lost) <= KILLS * CONCURRENCY
    for call_id, row in rows.items():
        # A start is recorded before the body begins; a kill may come in between.
        assert told.began[call_id] <= row.runs <= told.began[call_id] + KILLS, room.tell(call_id)
        if not is_lost(row):
            assert row.status in told.outcomes[call_id], room.tell(call_id)
        elif told.has_outlived(call_id, killed):
            # It was given up and ran all the same: what became of that is kept beside the row.
            assert any(attempt.late and attempt.outcome for attempt in room.attempts(call_id)), room.tell(call_id)
    # The kills did hit calls at work: they were lost, or ran again.
    assert lost or any(attempt.outcome is None for row in rows.values() for attempt in room.attempts(row.call_id))
    kinds = {row.status for row in rows.values()}
    assert kinds >= {"succeeded", "failed", "discarded", "parked"}
    assert any(row.redelivered for row in rows.values())
    assert [complaint for process in room.processes for complaint in process.complaints()] == []
    print(f"{len(rows)} calls, {sum(told.began.values())} runs, {len(lost)} lost with their worker, as expected")


def is_lost(row):
    """Whether nobody knows how the call ended: it was given up, or has not begun."""
    return row.terminal_at is None or row.reason == "worker_lost"


def idle(room):
    """Whether the queue is empty and the worker has nothing left."""
    with room.app.connection_for_read() as connection:
        _, waiting, _ = connection.default_channel.queue_declare(room.queue, passive=True)
    if waiting:
        return False
    inspect = room.app.control.inspect(timeout=5, limit=1, destination=[room.name_of("last")])
    return not any((inspect.active() or {"": [1]}).values()) and not any((inspect.reserved() or {"": [1]}).values())
