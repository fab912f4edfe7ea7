"""What a purge of many rows costs, and whether others notice it.

    python -m benchmarks.purge [--rows 2000000] [--share 0.5]

Fills a database, empty or private (see `fill`), and has `django_app.purge.purge` delete the older half. Meanwhile
another process makes rows as publishing does, one every 5 ms, and notes how long each took; it has done so alone
for a while before. Shown are the whole time, the longest single statement, which may take 50 ms, and p50 and p99
of the inserts before and meanwhile.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

from benchmarks.admin import Queries
from benchmarks.fill import have, set_up
from benchmarks.machinery import ROOT
from benchmarks.servers import grounds
from benchmarks.tables import markdown, percentile, short

#: Milliseconds that one statement may take.
BAR = 50.0
#: Seconds for which inserts are timed without a purge.
ALONE = 10.0
#: Prints [seconds since the epoch, milliseconds] of each insert once its input ends.
INSERTER = """
import json, sys, threading, time
from benchmarks.fill import set_up
set_up("sync")
from django_app.stores import DjangoTrackingStore
from django_app.stores.sessions import own_session
from lrp_celery.core.ids import new_id
store = DjangoTrackingStore(session=own_session("default"))
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("READY", flush=True)
took = []
while not ended.wait(0.005):
    began = time.perf_counter()
    store.record_enqueue(new_id(), "shop.tasks.send_order", "(17, 'user17@example.com'), flag=True")
    took.append([time.time(), (time.perf_counter() - began) * 1e3])
print(json.dumps(took))
"""


class Inserter:
    """The process beside the purge."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def took(self) -> list[tuple[float, float]]:
        """End it; return when each insert ended and how many milliseconds it took."""
        self._process.stdin.close()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def inserter() -> Iterator[Inserter]:
    """Start one; it inserts when this yields."""
    command = [sys.executable, "-c", INSERTER]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        yield Inserter(process)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def main() -> None:
    """Purge, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--alone", type=float, default=ALONE)
    chosen = parser.parse_args()
    with grounds() as ground:
        set_up()
        have(ground.postgres, chosen.rows)
        from django.db import connection

        from django_app.purge import purge

        queries = Queries()
        with inserter() as beside:
            time.sleep(chosen.alone)
            began = time.time()
            with connection.execute_wrapper(queries):
                age = timedelta(days=30) * (1 - chosen.share)
                purged = purge(older_than=age, budget=timedelta(hours=1))
            ended = time.time()
            took = beside.took()
    before = [lasted for when, lasted in took if when < began]
    meanwhile = [lasted for when, lasted in took if began <= when < ended]
    slowest = sorted(queries.asked, key=lambda asked: -asked.milliseconds)
    hardest = max(asked.at_work for asked in slowest)
    over = sum(asked.milliseconds > BAR for asked in slowest)
    head = ["deleted", "seconds", "statements", "longest, ms", "on the CPU, ms", f"over {BAR:g} ms"]
    inserts = [" / ".join(short(percentile(each, share)) for share in (50, 99)) for each in (before, meanwhile)]
    row = [
        purged.calls,
        short(ended - began),
        len(slowest),
        short(slowest[0].milliseconds),
        short(hardest),
        over,
        *inserts,
    ]
    print(markdown([*head, "insert alone p50 / p99, ms", "insert meanwhile p50 / p99, ms"], [row]))
    for asked in slowest[:5]:
        print(f"{asked.milliseconds:.1f} ms ({asked.at_work:.1f} on the CPU): {asked.sql[:200]}")


if __name__ == "__main__":
    main()
