"""Every boundary of a call's life, times what the call is, times how often its message comes: whoever stands there is killed.

`ALL` has a case for each. Who is killed is a real process, and by SIGKILL; fresh ones go on.
"""

import itertools
import signal
from dataclasses import dataclass, field, replace

import pytest

from lrp_celery.core.ids import new_id
from tests.integration import hostile
from tests.integration.copies import ended, envelope_of, facts, publish, until_ended
from tests.integration.crashes import DONE, QUICK, RIGHT, WAIT, call_and_die, kill_only, until_gone, until_held
from tests.integration.harness import eventually

PROCEDURES = {"once": hostile.once, "again": hostile.again}
#: How many copies of its message come while it is under way, and how many after its end.
DELIVERIES = {"comes once": (0, 0), "comes twice": (1, 0), "comes again late": (0, 1)}
EARLY = ("comes once", "comes twice")
#: What a caller passes, in a transaction of its own or in none; those that leave no call behind.
OF_CALLERS = tuple(f"{when}-{name}" for name in ("insert", "publish", "send") for when in ("before", "after"))
NEVER = {"in a transaction": {"before-insert", "after-insert"}, "in none": {"before-insert"}}
#: What a side process passes that sends a message which nobody has sent.
OF_SIDE_PROCESSES = tuple(f"{when}-{name}" for name in ("attend", "sending", "publish") for when in ("before", "after"))
OF_WORKERS = ("before-acknowledge", "after-acknowledge")


@dataclass(frozen=True)
class Case:
    """One call, and where somebody is killed."""

    who: str
    boundary: str
    scenario: str
    delivery: str
    call_id: str = field(default="", compare=False)

    @property
    def meanwhile(self) -> int:
        return DELIVERIES[self.delivery][0]

    @property
    def afterwards(self) -> int:
        return DELIVERIES[self.delivery][1]

    @property
    def is_made(self) -> bool:
        return self.boundary not in NEVER.get(self.scenario, ())

    @property
    def can_be(self) -> bool:
        """A call that never was has no message."""
        return self.is_made or self.delivery == "comes once"


def cases(who, boundaries, scenarios, deliveries):
    return [Case(who, *case) for case in itertools.product(boundaries, scenarios, deliveries)]


def fresh(several):
    """Return the same cases, of calls that never were."""
    return [replace(case, call_id=new_id()) for case in several]


POOL = cases("pool process", hostile.BOUNDARIES, PROCEDURES, DELIVERIES)
WORKER = cases("worker", hostile.BOUNDARIES, PROCEDURES, EARLY)
ACKNOWLEDGING = cases("worker", OF_WORKERS, PROCEDURES, EARLY)
CALLER = [case for case in cases("caller", OF_CALLERS, NEVER, DELIVERIES) if case.can_be]
SIDE = cases("side process", OF_SIDE_PROCESSES, ["once"], EARLY)
ALL = [*POOL, *WORKER, *ACKNOWLEDGING, *CALLER, *SIDE]

integration = pytest.mark.integration
services = pytest.mark.services


def test_every_boundary_that_there_is_has_its_cases(record_property):
    assert {case.boundary for case in ALL} == hostile.ALL
    assert len(set(ALL)) == len(ALL) == 100
    record_property("crash points", f"{len(ALL)} cases at {len(hostile.ALL)} boundaries")


def call(room, case, what):
    """Call it, and let `what` happen at its boundary."""
    hostile.trap(room.folder, case.call_id, case.boundary, what)
    assert PROCEDURES[case.scenario].using(call_id=case.call_id).call(3) == case.call_id
    publish(room, envelope_of(room, case.call_id), case.meanwhile)


def outcome_of(room, case):
    row = room.wait_for(case.call_id, within=WAIT)
    return row.status, row.reason, room.runs(case.call_id)


def right(case):
    of_once, of_again = RIGHT[case.boundary]
    return of_again if case.scenario == "again" else of_once


def told(room, wrong):
    return "\n".join(f"{case}: {found}, not {expected}\n{room.tell(case.call_id)}" for case, found, expected in wrong)


def assert_right(room, played, expected=right):
    """Each call has its one right outcome, which no copy that comes late changes."""
    found = [(case, outcome_of(room, case), expected(case)) for case in played]
    wrong = [each for each in found if each[1] != each[2]]
    assert not wrong, told(room, wrong)
    late = [case for case in played if case.afterwards]
    before = {case: facts(room, case.call_id) for case in late}
    dealt = {case: ended(room, case.call_id) for case in late}
    for case in late:
        publish(room, envelope_of(room, case.call_id), case.afterwards)
    for case in late:
        until_ended(room, case.call_id, dealt[case] + case.afterwards)
    assert {case: facts(room, case.call_id) for case in late} == before
    assert not (ran := [case for case in late if room.runs(case.call_id) != expected(case)[2]]), ran


@integration
@services
def test_a_pool_process_is_killed(quick_room):
    room = quick_room()
    room.worker(tracking=QUICK, concurrency=4)
    played = fresh(POOL)
    for case in played:
        call(room, case, "kill")
    assert_right(room, played)


@integration
@services
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_worker_is_killed(quick_room, broker):
    room = quick_room(broker)
    # Those that stand still, and two for the copies.
    first = room.worker(tracking=QUICK, concurrency=len(WORKER) + 2)
    played = fresh(WORKER)
    for case in played:
        call(room, case, "hold")
    for case in played:
        until_held(room, {case.boundary: [case.call_id]})
    kill_only(first)
    until_gone(first)
    room.worker(name="w2", tracking=QUICK, concurrency=2)
    assert_right(room, played)


@integration
@services
def test_a_worker_is_killed_as_it_acknowledges(quick_room):
    room = quick_room("rabbitmq")
    played = fresh(ACKNOWLEDGING)
    for number, case in enumerate(played):
        worker = room.worker(name=f"w{number}", tracking=QUICK, concurrency=1)
        call(room, case, "kill")
        assert worker.wait() == -signal.SIGKILL
        until_gone(worker)
    room.worker(name="last", tracking=QUICK)
    assert_right(room, played, lambda _: (*DONE, 1))


@integration
@services
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_caller_is_killed(quick_room, broker):
    room = quick_room(broker)
    room.worker(tracking=QUICK, concurrency=2)
    played = fresh(CALLER)
    made, never = ([case for case in played if case.is_made is wanted] for wanted in (True, False))
    atomic = {case.call_id for case in played if case.scenario == "in a transaction"}
    call_and_die(room, {case.call_id: case.boundary for case in played}, atomic=atomic)
    for case in made:
        publish(room, envelope_of(room, case.call_id), case.meanwhile)
    assert_right(room, made, lambda _: (*DONE, 1))
    for case in never:
        assert (case, room.has_no_row(case.call_id), room.runs(case.call_id)) == (case, True, 0)


@integration
@services
def test_a_side_process_is_killed(quick_room):
    room = quick_room()
    # Their callers have not sent them.
    played = fresh(SIDE)
    call_and_die(room, dict.fromkeys((case.call_id for case in played), "before-publish"))
    for case in played:
        hostile.trap(room.folder, case.call_id, case.boundary, "kill")
    for name in ("w1", "w2"):
        room.worker(name=name, tracking=QUICK, concurrency=1)
    for case in played:
        until_killed(room, case)
        publish(room, envelope_of(room, case.call_id), case.meanwhile)
    assert_right(room, played, lambda _: (*DONE, 1))


def until_killed(room, case):
    noted = f"kill@{case.boundary}"
    # Its caller was killed before, too.
    times = 2 if case.boundary == "before-publish" else 1
    eventually(
        f"{case}: {noted}",
        lambda: [line.event for line in room.truth(case.call_id)].count(noted) == times,
        tell=lambda: room.tell(case.call_id),
    )
