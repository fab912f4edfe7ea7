"""How long after the end of a task its row shows it: at once and under load.

    python -m benchmarks.lag [--variants results sync spool] [--calls 200] [--load 3000] [--pause-ms 2]

The task writes down when its body ends; meanwhile the table is asked for the calls whose end it does not show
yet, again and again. Idle: one call after the other, each when the one before is over. Under load: all are
published before the worker takes the first, and every tenth is watched. Shown are p50 and p99 in milliseconds,
to which asking adds about one.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from benchmarks.database import Meter
from benchmarks.machinery import Bench, Failed
from benchmarks.servers import Grounds, grounds
from benchmarks.tables import markdown, percentile, short
from benchmarks.variants import VARIANTS, Table

SHOWN = ("results", "sync", "spool")
#: Under load, of how many calls one is watched.
SAMPLE = 10
#: Seconds between two looks: half a millisecond of rest, so that looking is not the load.
INTERVAL = 0.0005
WITHIN = 60.0


class Watcher:
    """Sees the end of calls in the table, and when that was."""

    def __init__(self, url: str, table: Table) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._ended = f"SELECT {table.id} FROM {table.name} WHERE {table.id} = ANY(%s) AND {table.ended}"

    def watch(self, ids: Sequence[str]) -> dict[str, float]:
        """Return when the end of each was seen first; `Failed` if one is not to be seen."""
        seen: dict[str, float] = {}
        left = set(ids)
        end = time.monotonic() + WITHIN
        while left:
            if time.monotonic() > end:
                raise Failed(f"the end of {len(left)} of {len(ids)} calls was not to be seen within {WITHIN:g} s")
            found = self._connection.execute(self._ended, [list(left)]).fetchall()
            now = time.time()
            seen |= {call_id: now for (call_id,) in found}
            left.difference_update(call_id for (call_id,) in found)
            time.sleep(INTERVAL)
        return seen

    def close(self) -> None:
        """Be done."""
        self._connection.close()


def lags(bench: Bench, ground: Grounds, *, idle: int, load: int) -> tuple[list[float], list[float]]:
    """Return the lags in milliseconds, idle and under load."""
    with Meter(ground.postgres) as meter:
        meter.empty(bench.variant.table)
    bench.flush()
    bench.notes.clear()
    watcher = Watcher(ground.postgres, bench.variant.table)
    with bench.worker(queue="witness"):
        watcher.watch(bench.publish("witness", 20, "witness").ids)  # to get warm
        alone: dict[str, float] = {}
        with bench.publisher("witness", 1, "witness") as publisher:
            for _ in range(idle):
                alone |= watcher.watch(publisher.go().ids)
        sampled = bench.publish("witness", load, "loaded").ids[::SAMPLE]
        bench.consume("loaded")
        loaded = watcher.watch(sampled)
        ended = bench.notes.marks("E")
    watcher.close()
    return tuple([(when - ended[call_id]) * 1e3 for call_id, when in found.items()] for found in (alone, loaded))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=SHOWN, choices=SHOWN, metavar="VARIANT")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--load", type=int, default=3000)
    parser.add_argument("--pause-ms", type=float, default=2)
    chosen = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder, grounds() as ground:
        for kind in chosen.variants:
            bench = Bench(kind, Path(folder), {"BENCH_PAUSE": str(chosen.pause_ms / 1000)})
            bench.migrate()
            found = lags(bench, ground, idle=chosen.calls, load=chosen.load)
            cells = [short(percentile(each, share)) for each in found for share in (50, 99)]
            lines.append([VARIANTS[kind].title, *cells])
            print(f"{kind}: {' '.join(cells)}", flush=True)
    head = ["variant", "idle p50, ms", "idle p99, ms", "under load p50, ms", "under load p99, ms"]
    print(f"\n{markdown(head, lines)}")


if __name__ == "__main__":
    main()
