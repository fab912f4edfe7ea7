"""What is lost when workers are killed: the table beside what the tasks themselves have written down.

    python -m benchmarks.loss [--variants results sync spool] [--targets child parent all]
                              [--calls 2500] [--pause-ms 2] [--kills 3] [--rounds 1]

Each task appends to a file when it begins and when it ends. In the middle of the run a process of the pool,
the worker's main process, or all of the worker's processes at once get SIGKILL, several times, and another
worker goes on where one is gone. When all have run that a worker can still get hold of, it is ended in
order and one more is started; after that one has been up for five seconds the table is compared with the file:

- starts lost, ends lost: bodies that began, or ended, of which the table does not know it;
- rows missing: calls that were published and have no row;
- left STARTED: bodies that were cut off, and the table still shows them as running;
- told otherwise: bodies that ended, and the table says something else than success. Between a body's end and
  its being written down there is a moment in which nobody can know better.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psycopg

from benchmarks.database import Meter
from benchmarks.machinery import Bench
from benchmarks.processes import children_of, descendants_of, kill, parent_of
from benchmarks.servers import Grounds, grounds
from benchmarks.tables import markdown
from benchmarks.variants import VARIANTS, Table

SHOWN = ("results", "sync", "spool")
#: Seconds that the next worker gets to find out what has become of what was cut off.
SUCCESSOR = 5.0
#: Celery waits so long for the result of a child that is gone.
LOST_WORKER = 11.0
#: Seconds in which nothing happens, after which nothing more is expected to.
QUIET = 5.0
PREFETCH = "4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What one run has lost, in calls."""

    begun: int
    cut_off: int
    starts: int
    ends: int
    missing: int
    left_started: int
    otherwise: int

    def __add__(self, other: "Lost") -> "Lost":
        return Lost(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Row:
    """What the table knows of a call."""

    started: bool
    ended: bool
    succeeded: bool
    running: bool


def compare(ids: Sequence[str], begun: set[str], ended: set[str], rows: Mapping[str, Row]) -> Lost:
    """Hold the table against the truth."""
    none = Row(started=False, ended=False, succeeded=False, running=False)
    cut_off = begun - ended
    return Lost(
        begun=len(begun),
        cut_off=len(cut_off),
        starts=sum(not rows.get(call_id, none).started for call_id in begun),
        ends=sum(not rows.get(call_id, none).ended for call_id in ended),
        missing=sum(call_id not in rows for call_id in ids),
        left_started=sum(rows.get(call_id, none).running for call_id in cut_off),
        otherwise=sum(rows[call_id].ended and not rows[call_id].succeeded for call_id in ended if call_id in rows),
    )


def rows_of(url: str, table: Table) -> dict[str, Row]:
    """Return what the table knows of each call."""
    wanted = f"{table.id}, {table.started}, {table.ended}, {table.succeeded}, {table.running}"
    with psycopg.connect(url) as connection:
        return {call_id: Row(*known) for call_id, *known in connection.execute(f"SELECT {wanted} FROM {table.name}")}


# --- who is killed


def kill_child(worker: subprocess.Popen[bytes], turn: int) -> bool:
    """Kill a process of the pool; the worker lives on."""
    pool = [pid for pid in children_of(worker.pid) if _is_pool(pid)]
    os.kill(pool[turn % len(pool)], signal.SIGKILL)
    return False


def kill_parent(worker: subprocess.Popen[bytes], turn: int) -> bool:
    """Kill the worker's main process."""
    worker.kill()
    worker.wait()
    return True


def kill_all(worker: subprocess.Popen[bytes], turn: int) -> bool:
    """Kill all of the worker's processes at once, its helpers too, as a container that runs out of memory."""
    everybody = descendants_of(worker.pid)
    os.killpg(worker.pid, signal.SIGKILL)
    # Who is in a group or session of his own is in the container all the same.
    kill(everybody)
    worker.wait()
    return True


def _is_pool(pid: int) -> bool:
    """Whether a child of a worker was forked from it: others were started with a command of their own."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return command == Path(f"/proc/{parent_of(pid)}/cmdline").read_bytes()


#: Each kills, and tells whether a new worker is needed.
TARGETS: Mapping[str, Callable[[subprocess.Popen[bytes], int], bool]] = {
    "child": kill_child,
    "parent": kill_parent,
    "all": kill_all,
}


# --- one run


def lose(bench: Bench, target: str, ground: Grounds, *, calls: int, kills: int) -> Lost:
    """Publish, kill in between, and compare."""
    with Meter(ground.postgres) as meter:
        meter.empty(bench.variant.table)
    bench.flush()
    bench.notes.clear()
    ids = bench.publish("witness", calls, "witness").ids
    worker = bench.start_worker(queue="witness")
    try:
        for turn in range(kills):
            _wait_for_progress(bench, calls // (kills + 2))
            if TARGETS[target](worker, turn):
                worker = bench.start_worker(queue="witness")
        _wait_for_quiet(bench)
        if target == "child":
            time.sleep(max(LOST_WORKER - QUIET, 0))
    finally:
        bench.stop_worker(worker)
    began = time.monotonic()
    with bench.worker(queue="witness"):
        time.sleep(max(began + SUCCESSOR - time.monotonic(), 0))
        rows = rows_of(ground.postgres, bench.variant.table)
    return compare(ids, set(bench.notes.marks("B")), set(bench.notes.marks("E")), rows)


def _wait_for_progress(bench: Bench, more: int) -> None:
    wanted = len(bench.notes.marks("E")) + more
    bench.wait_until(
        lambda: len(bench.notes.marks("E")) >= wanted,
        within=120,
        what=lambda: f"{len(bench.notes.marks('E'))} of {wanted} runs",
        interval=0.02,
    )


def _wait_for_quiet(bench: Bench) -> None:
    size, since = -1, time.monotonic()
    while time.monotonic() < since + QUIET:
        if bench.notes.size != size:
            size, since = bench.notes.size, time.monotonic()
        time.sleep(0.1)


# --- the table

HEAD = ["variant", "killed", "begun", "cut off", "starts lost", "ends lost", "rows missing", "left STARTED"]
HEAD += ["told otherwise"]


def main() -> None:
    """Kill, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=SHOWN, choices=SHOWN, metavar="VARIANT")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="TARGET")
    parser.add_argument("--calls", type=int, default=2500)
    parser.add_argument("--pause-ms", type=float, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    variables = {"BENCH_PAUSE": str(chosen.pause_ms / 1000), "BENCH_PREFETCH": PREFETCH}
    lines = []
    with tempfile.TemporaryDirectory() as folder, grounds() as ground:
        for kind in chosen.variants:
            bench = Bench(kind, Path(folder), variables)
            bench.migrate()
            for target in chosen.targets:
                runs = []
                for number in range(1, chosen.rounds + 1):
                    runs.append(lose(bench, target, ground, calls=chosen.calls, kills=chosen.kills))
                    print(f"{kind}, {target}, round {number}: {runs[-1]}", flush=True)
                lines.append([VARIANTS[kind].title, target, *astuple(sum(runs[1:], runs[0]))])
    total = f"{chosen.kills} kills in each of {chosen.rounds} rounds of {chosen.calls} calls of {chosen.pause_ms:g} ms"
    print(f"\n{total}, summed.\n\n{markdown(HEAD, lines)}")


if __name__ == "__main__":
    main()
