"""Whoever is killed, server, worker or client: no call is lost, and none is made twice."""

import contextlib
import subprocess
import sys

import pytest

from lrp_celery import Caller, CallFailed, CallState, HttpProcedure
from lrp_celery.core.ids import new_id
from tests.conformance.grounds import WAIT, Ending
from tests.conformance.item_store import until
from tests.conformance.procedure_tasks import PREFIX
from tests.http.servers import served
from tests.http.test_callers import OverHttp, workshop  # noqa: F401 - a fixture
from tests.integration.harness import ROOT, eventually

pytestmark = pytest.mark.integration

#: A worker that is killed is missed soon.
HASTY = {"RESCUE_INTERVAL": 0.25, "LEASE": 2, "HEARTBEAT": 0.5}
EVE = {"Authorization": "Bearer eve"}


@pytest.fixture(scope="module")
def scene(workshop):  # noqa: F811 - the fixture
    """A room with a worker, a server under uvicorn, and the ground over both."""
    with contextlib.ExitStack() as stack:
        room = workshop.room("redis", "sqlite", stack)
        room.worker(concurrency=3, tracking=HASTY)
        server = served("uvicorn", room, HASTY)
        stack.enter_context(room.entered(workshop.blocker))
        yield room, server, stack.enter_context(contextlib.closing(OverHttp(room, server.base_url)))


@pytest.fixture(autouse=True)
def let_go(scene):
    yield
    scene[2].let_go()


def own_calls(room, name):
    return [each.call_id for each in room.found(task=PREFIX + name)]


def test_a_caller_outlives_the_server(scene):
    room, server, ground = scene
    before = len(own_calls(room, "hold"))
    waiter = ground.in_thread(Caller(ground.procedures.hold).call)
    (call_id,) = eventually("it is called", lambda: own_calls(room, "hold")[before:])
    ground.until_it(call_id, "started")
    server.kill()
    server.start()
    server.wait_until_ready()
    assert not waiter.is_over
    server.kill()
    ground.release(call_id)
    server.start()
    assert waiter.end() == "held"
    assert ground.count(call_id) == 1
    assert len(own_calls(room, "hold")) == before + 1


def test_a_call_is_made_once_however_often_the_server_dies(scene):
    _, server, ground = scene
    server.kill()
    call_id = new_id()
    give = ground.procedures.give.using(call_id=call_id)
    made = Ending(lambda: give.call("x"), lambda: None)
    server.start()
    server.wait_until_ready()
    assert made.end() == call_id
    assert give.call("y") == call_id
    assert give.get_result(call_id, wait=WAIT) == "x"
    assert ground.count(call_id) == 1


CLIENT = """
from lrp_celery import Caller, HttpProcedure
import sys
headers = {"Authorization": "Bearer ada"}
print(Caller(HttpProcedure(sys.argv[1], sys.argv[2], headers).using(call_id=sys.argv[3])).call())
"""


def test_a_client_that_is_killed_leaves_a_call_that_goes_on_and_can_be_taken_up(scene):
    _, server, ground = scene
    call_id = new_id()
    command = [sys.executable, "-c", CLIENT, server.base_url, f"{PREFIX}hold", call_id]
    client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    ground.until_it(call_id, "started")
    client.kill()
    client.communicate()
    again = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    hold = ground.procedures.hold
    assert hold.get_state(call_id) is CallState.PENDING
    ground.release(call_id)
    assert again.communicate()[0] == b"held\n"
    assert ground.count(call_id) == 1
    ground.until_gone(hold, call_id)


def test_a_worker_that_is_killed_fails_its_call_for_whoever_waits_elsewhere(scene):
    room, _, ground = scene
    hold = ground.procedures.hold
    call_id = ground.running(hold)
    waiter = ground.in_thread(lambda: hold.get_result(call_id, wait=2 * WAIT))
    room.processes[0].kill()
    room.processes[0].start()
    room.processes[0].wait_until_ready()
    until(lambda: waiter.is_over, 2 * WAIT)
    error = waiter.end()
    assert type(error) is CallFailed
    assert error.reason == "worker_lost"


def test_another_service_sees_nothing_of_it(scene):
    _, server, ground = scene
    call_id = ground.settled(ground.procedures.give, "secret")
    with HttpProcedure(server.base_url, f"{PREFIX}give", EVE) as eves:
        assert eves.get_call(call_id) is None
        eves.remove(call_id)
    assert ground.procedures.give.get_result(call_id) == "secret"


def test_any_id_that_a_path_can_hold_finds_its_way(scene):
    _, _, ground = scene
    for call_id in ("Bericht für 2026-10 %2F %", "a?b#c&d=e;f+g", "..a", "%", "~'\"<>|\\^`{}", "日本"):
        fixed = ground.procedures.give.using(call_id=f"{call_id} {new_id()}")
        made = ground.start(fixed, call_id)
        ground.until_settled(fixed, made)
        assert fixed.get_result(made) == call_id
        fixed.remove(made)
        assert fixed.get_call(made) is None
