"""What owning a call costs: CPU seconds per call of a procedure, beside a plain Celery call.

    python -m benchmarks.owning [--rounds 5] [--calls 2000]

Counted are publisher, worker, side process, PostgreSQL and Redis together, so nobody else may use
the two servers meanwhile: his share would be added to both and flatter us. The two take turns;
the ratio is taken round by round. Needs PostgreSQL and Redis on this machine (see `settings`, `shop`).
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.machinery import Bench, cpu, make_database, servers

PUBLISH = {
    "celery": "from benchmarks.shop import nothing\nfor n in range({calls}): nothing.delay(n)",
    "lrp_celery": "from benchmarks.shop import nothing\nfor n in range({calls}): nothing.call(n)",
}
WARM_UP = 100


def spent_per_call(kind: str, calls: int, folder: Path) -> float:
    """Return CPU seconds per call, without those of starting anything."""
    bench = Bench(kind, folder)
    serving = servers()
    _, starting = bench.run(PUBLISH[kind].format(calls=0))
    with bench.worker() as worker:
        bench.run(PUBLISH[kind].format(calls=WARM_UP))
        bench.wait_for(WARM_UP)
        before = cpu(worker.pid, *serving)
        _, publishing = bench.run(PUBLISH[kind].format(calls=calls))
        bench.wait_for(WARM_UP + calls)
        after = cpu(worker.pid, *serving)
    return (after - before + publishing - starting) / calls


def main() -> None:
    """Measure, and print one line for each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    chosen = parser.parse_args()
    make_database()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, chosen.rounds + 1):
            plain, owned = (spent_per_call(kind, chosen.calls, Path(folder)) for kind in ("celery", "lrp_celery"))
            ratios.append(owned / plain)
            print(
                f"round {number}: celery {plain * 1e3:.2f} ms, owned {owned * 1e3:.2f} ms, {owned / plain:.2f} times",
                flush=True,
            )
    print(
        f"CPU per call, owned / celery: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
