"""Races at a real worker: abort, claim, settle, timeout and remove, any two of them at the same moment.

The run stands still at a boundary until a moment that the test names, and the test makes its
own move about then: so much earlier or later that each side comes first about as often. What
became of it is read from the history that the database itself has kept.
"""

import contextlib
import os
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.test import override_settings

from django_app.models import Call, Payload
from django_app.stores import sessions
from lrp_celery import CallPending
from lrp_celery.core.ids import new_id
from lrp_celery.procedures.envelope import Envelope
from tests.integration import history, hostile, truth
from tests.integration.harness import eventually

pytestmark = [pytest.mark.integration, pytest.mark.services]

ROUNDS = int(os.environ.get("LRP_TEST_ROUNDS", "50"))
#: Nothing but what races ends a call.
QUICK = {"HEARTBEAT": 0.5, "LEASE": 10, "RESCUE_INTERVAL": 0.1}
WAIT = 20.0
#: Seconds from naming a moment to it: who stands at a boundary looks for it a hundred times a second.
LEAD = 0.025
FAR = 3600
ENOUGH = "enough"
#: Seconds by which a side that came first is later in the next round.
STEP, SMALLEST, LARGEST = 0.004, 0.0003, 0.03


class Arena:
    """A room with a worker of two processes, and threads that wait for calls."""

    def __init__(self, room):
        self.room = room
        self.threads = ThreadPoolExecutor(6, initializer=room.app.set_current)
        self.wins = Counter()
        self.delay = 0.0
        self.meetings = []
        self._step = STEP
        self._last = None

    def rounds(self, boundary, *, fails=False, ahead=1):
        """Yield meetings: each is a call that stands at `boundary`, or comes there soon.

        The next one is on its way meanwhile, to the other process.
        """
        waiting = deque()
        for number in range(ROUNDS):
            while len(waiting) < min(1 + ahead, ROUNDS - number):
                waiting.append(Meeting(self, boundary, fails=fails))
            meeting = waiting.popleft()
            self.meetings.append(meeting)
            meeting.until(f"hold@{boundary}")
            yield meeting

    def won(self, side, *, by_test):
        """Note which side came first; `by_test`: the one whose moment is `delay` later than the other's."""
        self.wins[side] += 1
        if self._last is not None:
            self._step = self._step * 1.4 if by_test is self._last else self._step / 2
            self._step = min(max(self._step, SMALLEST), LARGEST)
        self._last = by_test
        self.delay += self._step if by_test else -self._step

    def check(self, sides, runs=1):
        """Check every round once all deliveries are over, and that each side has won some."""
        for meeting in self.meetings:
            meeting.check(runs)
        print(dict(self.wins), f"the test's move came {self.delay * 1000:.1f} ms later")
        assert set(self.wins) == set(sides)
        assert min(self.wins.values()) >= ROUNDS // 10, self.wins


class Meeting:
    """One call, and what meets in it."""

    def __init__(self, arena, boundary, *, fails):
        self.arena, self.room, self.boundary = arena, arena.room, boundary
        self.call_id = new_id()
        self.deliveries = 0
        self.trap(boundary, "hold")
        self.expect_delivery()
        hostile.meets.using(call_id=self.call_id, timeout=FAR).call(fails=fails)
        self.waiter = arena.threads.submit(self._wait)

    # --- to bring the sides there

    def trap(self, boundary, what):
        hostile.trap(self.room.folder, self.call_id, boundary, what)

    def expect_delivery(self):
        """The next delivery says how it was received."""
        self.trap("answer-claim", "tell")
        self.deliveries += 1

    def come_again(self):
        """Send the message once more; return when it stands before its claim."""
        self.verdicts(self.deliveries)
        self.trap("before-claim", "hold")
        self.expect_delivery()
        stored = Payload.objects.using(self.room.alias).get(pk=self.call_id)
        Envelope.from_json(stored.message).of_generation(0).publish(self.room.app)
        self.until("hold@before-claim")

    def events(self):
        return [line.event for line in self.room.truth(self.call_id)]

    def until(self, event):
        eventually(f"{event} of {self.call_id}", lambda: event in self.events(), tell=self.tell, pause=0.003)

    def verdicts(self, count):
        """Return how the first `count` deliveries were received."""

        def look():
            told = [event.partition("@")[0] for event in self.events() if event.endswith("@answer-claim")]
            return told if len(told) >= count else None

        return eventually(f"{count} deliveries of {self.call_id}", look, tell=self.tell, pause=0.003)

    def tell(self):
        return f"{self.events()}\n{self.room.tell(self.call_id)}"

    # --- to let them meet

    def meet(self, *moves, places=None):
        """Let the run go on, and make the moves; each is (seconds later, what to do), and returns its answer.

        `places`: where the run goes on, and how much later; none: not yet.
        """
        places = {self.boundary: 0.0} if places is None else places
        moment = (
            time.monotonic() + LEAD + max(0.0, *(-later for later, _ in moves), *(-each for each in places.values()))
        )
        if places:
            self.room.release(self.call_id, at={place: moment + later for place, later in places.items()})
        *others, (own, move) = moves
        answers = [self.arena.threads.submit(self._at, moment + later, other) for later, other in others]
        own_answer = _at(moment + own, move)
        return [*(answer.result(WAIT) for answer in answers), own_answer]

    def _at(self, moment, move):
        try:
            return _at(moment, move)
        finally:
            connections[self.room.alias].close()

    def abort(self):
        hostile.meets.abort(self.call_id, ENOUGH)

    def remove(self):
        hostile.meets.remove(self.call_id)

    def remove_when_settled(self):
        hostile.meets.remove(self.call_id, when_settled=True)

    def time_out(self):
        """Let its time be over now, and look: whoever looks ends what is overdue."""
        self.change(deadline_at=Now(), attend_at=Now())
        hostile.meets.get_call(self.call_id)

    def change(self, **columns):
        Call.objects.using(self.room.alias).filter(pk=self.call_id, terminal_at=None).update(**columns)

    def release(self):
        self.room.release(self.call_id)

    def unrelease(self):
        """Let the next delivery stand still, too."""
        (self.room.folder / truth.gate_name(self.call_id)).unlink()

    # --- what became of it

    def over(self):
        """Return the row, once it has ended."""
        return eventually(f"{self.call_id} is over", self._ended, tell=self.tell, pause=0.003)

    def _ended(self):
        row = self.room.find(self.call_id)
        return row if row.is_terminal else None

    def states(self):
        return history.read(connections[self.room.alias], self.call_id)

    def was_flagged(self):
        """Whether somebody asked for the removal of the call while it was still in its first status."""
        return any(state["remove_when_settled"] and state["status"] == "submitted" for state in self.states())

    def _wait(self):
        """Wait for the result, as a caller does; return it, or the name of what it raises."""
        try:
            return hostile.meets.get_result(self.call_id, wait=WAIT)
        except Exception as error:
            return type(error).__name__
        finally:
            connections[self.room.alias].close()

    def check(self, runs):
        self.verdicts(self.deliveries)
        row, states, events = self.room.find(self.call_id), self.states(), self.events()
        told = self.tell()
        # One end, which never changed; nothing was open again after it.
        assert history.changed_after_the_end(states) == [], told
        ends = [number for number, state in enumerate(states) if state["terminal_at"] is not None]
        assert ends, told
        assert ends == list(range(ends[0], len(states))), told
        assert (states[-1]["status"], states[-1]["reason"]) == (row.status, row.reason), told
        # What the body did is what the row says.
        begun = events.count("started")
        assert begun == row.runs == max(state["attempt"] for state in states) <= runs, told
        # Where a lease had lapsed, the message may have been sent again, and the answer to that copy noted instead.
        granted = events.count("granted@answer-claim")
        assert granted == begun or (row.losses and granted == begun - 1), told
        done = {"succeeded": "returns", "failed": "raises"}.get(row.status)
        assert done is None or done in events, told
        # Whoever waited was told so; or at once that its end was asked for.
        ended = {"succeeded": "met", "failed": "ValueError", "aborted": _aborted(row.reason)}[row.status]
        asked = {"CallAborted" if row.abort_reason == ENOUGH else "CallTimedOut"} if row.abort_requested_at else set()
        gone = {"CallNotFound"} if row.removed_at else set()
        assert self.waiter.result(WAIT) in {ended} | asked | gone, told
        assert self._wait() == ("CallNotFound" if gone else ended), told


def _aborted(reason):
    return "CallTimedOut" if reason == "timeout" else "CallAborted"


def _at(moment, move):
    time.sleep(max(0.0, moment - time.monotonic()))
    return move()


@pytest.fixture(scope="module")
def room(workshop):
    with contextlib.ExitStack() as stack:
        made = workshop.room("redis", "postgres", stack)
        made.worker(tracking=QUICK, concurrency=2)
        yield made
        with made.entered(workshop.blocker):
            made.verify()


@pytest.fixture
def arena(room, workshop, monkeypatch):
    # As anywhere but under test: a new connection for each look would only slow down whoever looks.
    monkeypatch.setattr(sessions, "under_test", lambda: False)
    with room.entered(workshop.blocker), override_settings(LRP_CELERY={"DATABASE": room.alias, **QUICK}):
        made = Arena(room)
        try:
            yield made
        finally:
            # Whatever a failed test still held.
            room.release(*{line.call_id for line in room.truth()})
            made.threads.shutdown()
            sessions.own_session(room.alias).close()


# --- A message that has just come


def test_race_of_claim_and_abort(arena):
    for meeting in arena.rounds("before-claim"):
        meeting.meet((arena.delay, meeting.abort))
        is_aborted = meeting.over().runs == 0
        arena.won("abort" if is_aborted else "claim", by_test=is_aborted)
    arena.check({"abort", "claim"})


def test_race_of_claim_and_timeout(arena):
    for meeting in arena.rounds("before-claim"):
        meeting.meet((arena.delay, meeting.time_out))
        row = meeting.over()
        assert (row.status, row.reason) in {("aborted", "timeout"), ("succeeded", None)}
        is_over = row.runs == 0
        arena.won("timeout" if is_over else "claim", by_test=is_over)
    arena.check({"timeout", "claim"})


def test_race_of_claim_and_remove(arena):
    for meeting in arena.rounds("before-claim"):
        meeting.meet((arena.delay, meeting.remove_when_settled))
        row = meeting.over()
        assert (row.status, row.runs, row.removed_at is not None) == ("succeeded", 1, True)
        arena.won("remove" if meeting.was_flagged() else "claim", by_test=meeting.was_flagged())
    arena.check({"remove", "claim"})


def test_race_of_remove_and_a_copy_that_is_to_be_claimed(arena):
    for meeting in arena.rounds("body", ahead=0):
        meeting.release()
        meeting.over()
        meeting.unrelease()
        meeting.come_again()
        meeting.meet((arena.delay, meeting.remove), places={"before-claim": 0.0})
        _, copy = meeting.verdicts(2)
        assert copy in {"stale", "settled"}
        arena.won("remove" if copy == "stale" else "claim", by_test=copy == "stale")
    arena.check({"remove", "claim"})


def test_race_of_abort_and_remove(arena):
    for meeting in arena.rounds("before-claim"):
        meeting.meet((arena.delay, meeting.remove_when_settled), (0.0, meeting.abort), places={})
        assert meeting.over().status == "aborted"
        meeting.release()
        arena.won("remove" if meeting.was_flagged() else "abort", by_test=meeting.was_flagged())
    arena.check({"remove", "abort"}, runs=0)


def test_race_of_timeout_and_remove(arena):
    for meeting in arena.rounds("before-claim"):
        meeting.meet((arena.delay, meeting.remove_when_settled), (0.0, meeting.time_out), places={})
        row = meeting.over()
        assert (row.status, row.reason) == ("aborted", "timeout")
        meeting.release()
        arena.won("remove" if meeting.was_flagged() else "timeout", by_test=meeting.was_flagged())
    arena.check({"remove", "timeout"}, runs=0)


# --- A body that runs, or has just ended


def test_race_of_abort_and_timeout(arena):
    for meeting in arena.rounds("body", fails=True):
        meeting.meet((arena.delay, meeting.abort), (0.0, meeting.time_out), places={})
        meeting.release()
        row = meeting.over()
        assert row.status == "aborted"
        arena.won(row.reason, by_test=row.reason == "aborted")
    arena.check({"timeout", "aborted"})


@pytest.mark.parametrize("fails", [True, False])
def test_race_of_settle_and_abort(arena, fails):
    for meeting in arena.rounds("before-settle", fails=fails):
        meeting.meet((arena.delay, meeting.abort))
        row = meeting.over()
        is_asked = row.abort_requested_at is not None
        # LRP-17: what returns before it is interrupted has succeeded.
        assert row.status == (("aborted" if is_asked else "failed") if fails else "succeeded")
        arena.won("abort" if is_asked else "settle", by_test=is_asked)
    arena.check({"abort", "settle"})


def test_race_of_settle_and_timeout(arena):
    for meeting in arena.rounds("before-settle", fails=True):
        meeting.meet((arena.delay, meeting.time_out))
        row = meeting.over()
        is_over = (row.status, row.reason) == ("aborted", "timeout")
        assert is_over or row.status == "failed"
        arena.won("timeout" if is_over else "settle", by_test=is_over)
    arena.check({"timeout", "settle"})


def test_race_of_settle_and_remove(arena):
    for meeting in arena.rounds("before-settle"):
        try:
            meeting.meet((arena.delay, meeting.remove))
            is_pending = False
        except CallPending:
            is_pending = True
        row = meeting.over()
        assert (row.status, row.removed_at is None) == ("succeeded", is_pending)
        arena.won("remove" if is_pending else "settle", by_test=is_pending)
    arena.check({"remove", "settle"})


def test_race_of_settle_and_a_copy_that_is_to_be_claimed(arena):
    for meeting in arena.rounds("before-settle", ahead=0):
        meeting.come_again()
        meeting.meet((0.0, lambda: None), places={"before-settle": 0.0, "before-claim": arena.delay})
        meeting.over()
        _, copy = meeting.verdicts(2)
        assert copy in {"held", "settled"}
        arena.won("claim" if copy == "held" else "settle", by_test=copy == "held")
    arena.check({"claim", "settle"})


def test_race_of_settle_and_a_copy_that_takes_over_a_lapsed_lease(arena):
    for meeting in arena.rounds("before-settle", ahead=0):
        meeting.come_again()
        meeting.change(lease_until=Now() - timedelta(seconds=1))
        meeting.meet((0.0, lambda: None), places={"before-settle": 0.0, "before-claim": arena.delay})
        row = meeting.over()
        meeting.verdicts(2)
        assert (row.status, row.runs, row.losses) in {("succeeded", 1, 0), ("succeeded", 2, 1)}
        arena.won("claim" if row.losses else "settle", by_test=row.losses == 1)
    arena.check({"claim", "settle"}, runs=2)
