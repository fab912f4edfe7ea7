"""What tests that kill things share: where a process stands still, what becomes of a call, what is killed."""

import contextlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lrp_celery.core.ids import new_id
from tests.integration import hostile
from tests.integration.harness import eventually

WAIT = 30.0
LEASE = 2.0
QUICK = {"HEARTBEAT": 0.5, "LEASE": LEASE, "RESCUE_INTERVAL": 0.2, "RESEND_AFTER": 1}
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


def crash(postgres):
    """SIGKILL to a PostgreSQL server and all of its processes: none of them notices that another one is gone."""
    processes = children_of(postgres.pid)
    for pid in (postgres.pid, *processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    postgres.kill()


# --- Callers


CALLERS = """
import contextlib, json, os, time, django
django.setup()
from django.db import Error, connection, transaction
from lrp_celery import LrpError
from tests.integration.app import app
from tests.integration import hostile
app.finalize()

def call(call_id, is_atomic):
    with transaction.atomic() if is_atomic else contextlib.nullcontext():
        assert hostile.once.using(call_id=call_id).call(5) == call_id

children = []
for call_id, is_atomic in json.loads(os.environ["CALLS"]):
    child = os.fork()
    while not child:
        try:
            call(call_id, is_atomic)
            os._exit(0)
        except (Error, LrpError):
            # Whoever is not told that his call was made makes it again.
            connection.close()
            time.sleep(0.1)
        except BaseException:
            os._exit(1)
    children.append(child)
ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert ends == [int(os.environ["END"])] * len(children), ends
"""


def call_and_die(room, places, *, atomic=()):
    """Let a process for each call make it, and be killed there; those in `atomic` call in a transaction."""
    for call_id, boundary in places.items():
        hostile.trap(room.folder, call_id, boundary, "kill")
    _call(room, places, atomic, -signal.SIGKILL)


@contextlib.contextmanager
def calling(room, places, *, atomic=()):
    """Let a process for each call make it, and stand still there; at the end each of them must have made its call."""
    for call_id, boundary in places.items():
        hostile.trap(room.folder, call_id, boundary, "hold")
    with ThreadPoolExecutor(1) as thread:
        callers = thread.submit(_call, room, places, atomic, 0)
        yield
        callers.result(WAIT)


def _call(room, places, atomic, end):
    calls = json.dumps([(call_id, call_id in atomic) for call_id in places])
    # However long they stand still, they do not leave their messages to the relay meanwhile.
    tracking = json.dumps({**QUICK, "PUBLISH_WAIT": 10})
    room.run_script(CALLERS, CALLS=calls, END=str(int(end)), LRP_TEST_TRACKING=tracking)


# --- At every boundary


def call_at(room, boundary, what):
    """Call both procedures, and let `what` happen to each at `boundary`."""
    ids = new_id(), new_id()
    for task, call_id in zip((hostile.once, hostile.again), ids, strict=True):
        hostile.trap(room.folder, call_id, boundary, what)
        assert task.using(call_id=call_id).call(3) == call_id
    return ids


def until_held(room, calls):
    """Wait until every call stands still at its boundary."""
    for boundary, held in calls.items():
        for call_id in held:
            eventually(
                f"{call_id} stands still {boundary}",
                lambda call_id=call_id, noted=f"hold@{boundary}": noted in [line.event for line in room.truth(call_id)],
                tell=lambda: "".join(process.log_end() for process in room.processes),
            )


def outcomes_of(room, calls):
    return {
        boundary: tuple(
            (row.status, row.reason, room.runs(row.call_id))
            for row in (room.wait_for(call_id, within=WAIT) for call_id in pair)
        )
        for boundary, pair in calls.items()
    }


def told(room, calls, found, expected):
    """Return what is known of the calls that did not end as expected, for a failure's message."""
    wrong = [call_id for boundary in calls if found[boundary] != expected[boundary] for call_id in calls[boundary]]
    logs = [
        line for process in room.processes for line in process.log().splitlines() if any(each in line for each in wrong)
    ]
    return "\n".join([*(f"{call_id}\n{room.tell(call_id)}" for call_id in wrong), *logs])


#: What becomes of the two, and how often the function ran.
RIGHT = {
    "before-claim": ((*DONE, 1), (*DONE, 1)),
    "after-claim": ((*LOST, 0), (*DONE, 1)),
    "body": ((*LOST, 1), (*DONE, 2)),
    "before-settle": ((*LOST, 1), (*DONE, 2)),
    "after-settle": ((*DONE, 1), (*DONE, 1)),
}
