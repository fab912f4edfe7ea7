"""How soon a result wakes its waiter: `get_result` on PostgreSQL and on Redis, beside `AsyncResult.get` with Redis.

    python -m benchmarks.latency [--calls 100] [--seconds 0.2]

The task returns the moment at which it ended; measured is from there to the waiter having the
value, both on this machine. They take turns.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.machinery import Bench
from benchmarks.servers import grounds
from benchmarks.variants import VARIANTS

OWNED = "wait_a_little.get_result(wait_a_little.call({seconds}), wait=30)"
WAIT = {"redis": "wait_a_little.delay({seconds}).get(timeout=30)", "procedures": OWNED, "redis-procedures": OWNED}
CODE = """
import json, time
from benchmarks.shop import wait_a_little
lags = []
for n in range({calls} + 5):
    ended = {wait}
    lags.append(time.time() - ended)
print(json.dumps(lags[5:]))
"""


def main() -> None:
    """Measure, and print each median, and how it compares to Celery's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    lags: dict[str, list[float]] = {kind: [] for kind in WAIT}
    with tempfile.TemporaryDirectory() as folder, grounds(), contextlib.ExitStack() as stack:
        benches = {kind: Bench(kind, Path(folder)) for kind in lags}
        benches["procedures"].migrate()
        for bench in benches.values():
            stack.enter_context(bench.worker())
        for number in range(1, chosen.rounds + 1):
            for kind, bench in benches.items():
                code = CODE.format(calls=chosen.calls // chosen.rounds, wait=WAIT[kind].format(seconds=chosen.seconds))
                found = json.loads(bench.run(code)[0])
                lags[kind] += found
                print(f"round {number}: {kind} {statistics.median(found) * 1e3:.2f} ms", flush=True)
    medians = {kind: statistics.median(found) for kind, found in lags.items()}
    for kind, median in medians.items():
        print(
            f"{VARIANTS[kind].title}: {median * 1e3:.2f} ms from end to waiter, {median / medians['redis']:.2f} times"
        )


if __name__ == "__main__":
    main()
