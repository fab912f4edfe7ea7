"""What owning a call costs: CPU seconds per call of a procedure, beside a plain Celery call.

    python -m benchmarks.owning [--rounds 5] [--calls 2000] [--results each|both] [--no-fsync]

Celery keeps no results; with `--results each` each call has its own kept, a plain one by Celery in Redis and
a procedure's in its row; with `--results both` Celery keeps in Redis what the row has already, too.
Counted are publisher, worker, side process, PostgreSQL and Redis together, so nobody else may use
servers that the environment names (see `servers`): his share would be added to both and flatter us.
All calls are published before the worker takes the first, for one that waits for messages spends more
on each, and we would be measuring who publishes faster. The two take turns; the ratio is taken round by
round. With `--no-fsync` PostgreSQL does not wait for its disk, and keeps no promise: the difference is what that costs.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.machinery import Bench
from benchmarks.processes import cpu
from benchmarks.servers import Grounds, grounds

PLAIN = """
from benchmarks.shop import nothing
for n in range({calls}):
    nothing.apply_async((n,), queue={queue!r})
"""
OWNED = """
from benchmarks.shop import nothing
queued = nothing.using(queue={queue!r})
for n in range({calls}):
    queued.call(n)
"""
WARM_UP = 100
#: Which set-ups are measured beside each other, by whose results Celery keeps.
_KINDS = {"none": ("bare", "owned"), "each": ("redis", "owned"), "both": ("redis", "procedures")}


def spent_per_call(bench: Bench, calls: int, ground: Grounds) -> float:
    """Return CPU seconds per call, without those of starting anything."""
    bench.notes.clear()

    def publish(number: int, queue: str) -> float:
        code = OWNED if bench.variant.procedures else PLAIN
        return bench.run(code.format(calls=number, queue=queue))[1]

    starting = publish(0, "warm")
    with bench.worker(queue="warm") as worker:
        publish(WARM_UP, "warm")
        bench.wait_for(WARM_UP)
        before = cpu(worker.pid, *ground.processes)
        publishing = publish(calls, "measured")
        bench.consume("measured")
        bench.wait_for(WARM_UP + calls)
        after = cpu(worker.pid, *ground.processes)
    return (after - before + publishing - starting) / calls


def main() -> None:
    """Measure, and print one line for each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--results", choices=_KINDS, default="none", help="whose results Celery keeps, in Redis")
    parser.add_argument("--no-fsync", action="store_true", help="PostgreSQL does not wait for its disk")
    chosen = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder, grounds(fsync_us=None if chosen.no_fsync else 0) as ground:
        benches = [Bench(kind, Path(folder)) for kind in _KINDS[chosen.results]]
        benches[1].migrate()
        for number in range(1, chosen.rounds + 1):
            plain, owned = (spent_per_call(bench, chosen.calls, ground) for bench in benches)
            ratios.append(owned / plain)
            print(
                f"round {number}: plain {plain * 1e3:.2f} ms, owned {owned * 1e3:.2f} ms, {owned / plain:.2f} times",
                flush=True,
            )
    print(
        f"CPU per call, owned / plain: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
