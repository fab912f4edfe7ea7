"""How soon a call whose process was killed runs again: an `idempotent` procedure, with one more worker alive.

    python -m benchmarks.rerun [--targets child parent all] [--turns 10] [--calls 4]

In each turn a worker begins some calls, which hang; then the processes of its pool, or its main process, or
all of its processes at once get SIGKILL. Measured is, for each call, from the kill to its next run, which
notes when it begins. After a kill of the whole worker the other one takes over; its lease has its default.
"""

import argparse
import tempfile
import time
from pathlib import Path

import psycopg

from benchmarks.loss import TARGETS
from benchmarks.machinery import Bench
from benchmarks.processes import kill
from benchmarks.servers import grounds
from benchmarks.tables import markdown, percentile, short

CALL = """
from benchmarks.shop import survive
for _ in range({calls}):
    survive.using(queue={queue!r}).call()
"""
WITHIN = 120.0


def again(bench: Bench, target: str, queue: str, calls: int) -> list[float]:
    """Kill whoever runs these calls; return after how many seconds each of them ran again."""
    bench.notes.clear()
    victim = bench.start_worker(calls, queue)
    try:
        bench.run(CALL.format(calls=calls, queue=queue))
        _wait_for_runs(bench, "1", calls)
        # Only now, lest the other one begins some of them.
        bench.consume(queue)
        killed = time.time()
        if target == "child":
            kill(int(pid) for pid in bench.notes.marks("pid").values())
        else:
            TARGETS[target](victim, 0)
        _wait_for_runs(bench, "2", calls)
    finally:
        # A pool without its parent would hang for as long as its calls.
        kill(bench.strays())
        bench.stop_worker(victim)
    return [begun - killed for begun in bench.notes.marks("2").values()]


def _wait_for_runs(bench: Bench, attempt: str, calls: int) -> None:
    bench.wait_until(
        lambda: len(bench.notes.marks(attempt)) == calls,
        WITHIN,
        lambda: f"{len(bench.notes.marks(attempt))} of {calls} calls in their run number {attempt}",
        interval=0.02,
    )


def _wait_for_side_process(bench: Bench, postgres: str) -> None:
    """Wait until somebody is there to take over: a worker's side process starts a moment after its worker."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        bench.wait_until(
            lambda: connection.execute("SELECT count(*) FROM lrp_celery_worker").fetchone() != (0,),
            WITHIN,
            lambda: "no sign of life of the worker that is to take over",
            interval=0.1,
        )


def main() -> None:
    """Kill, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="TARGET")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--calls", type=int, default=4)
    chosen = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder, grounds() as ground:
        bench = Bench("owned", Path(folder))
        bench.migrate()
        with bench.worker(chosen.calls, "spare"):
            _wait_for_side_process(bench, ground.postgres)
            for target in chosen.targets:
                lags: list[float] = []
                for turn in range(chosen.turns):
                    lags += again(bench, target, f"{target}{turn}", chosen.calls)
                    print(f"{target}, turn {turn + 1}: at most {short(max(lags[-chosen.calls :]))} s", flush=True)
                shown = [short(percentile(lags, share)) for share in (50, 99)]
                lines.append([target, len(lags), *shown, short(max(lags))])
    print(f"\n{markdown(['killed', 'calls', 'p50 s', 'p99 s', 'longest s'], lines)}")


if __name__ == "__main__":
    main()
