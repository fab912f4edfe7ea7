"""What tracking costs: CPU, rates, log and commits per call, beside bare Celery and django-celery-results.

    python -m benchmarks.cost [--rounds 7] [--calls 3000] [--variants bare results spool ...]
                              [--pause-ms 1] [--prefetch 16] [--concurrency 2] [--fsync-us 1000] [--json FILE]

Starts a PostgreSQL and a Redis of its own, unless `BENCH_PG` and `BENCH_BROKER` name some (see `servers`).
In each round every variant runs once, one after the other; ratios are taken within a round, so that what
disturbs the machine meanwhile disturbs all alike, and their median is given with the least and the greatest.
CPU ratios are what to judge by: rates on two cores jump with whoever else uses them.

One run: empty tables and broker; a worker starts and runs 200 calls to get warm; a process publishes the
calls while the worker is idle; then the worker takes them, until the table shows the end of each. Counted is
the CPU of the publisher, of the worker and all it has started, and of both servers. `--fsync-us` makes each
wait for the disk of the private PostgreSQL so much longer (needs gcc), where the machine's own is too good.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars import BARS, Bar
from benchmarks.database import CommitCost, Meter, cost_of_commit
from benchmarks.machinery import Bench
from benchmarks.processes import cpu
from benchmarks.servers import Grounds, grounds
from benchmarks.tables import Spread, markdown, short, spread
from benchmarks.variants import VARIANTS

SHOWN = ("bare", "redis", "results-default", "results", "sync", "spool", "bulk")
WARM_UP = 200
#: Seconds in which what has been started settles down.
REST = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run has shown: rates in calls per second, CPU in microseconds per call."""

    publish_rate: float
    recorded_rate: float
    publish_cpu: float
    worker_cpu: float
    total_cpu: float
    wal: float
    commits: float
    missing: int
    """Calls whose end the table did not show within half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is run."""

    calls: int
    task: str = "nothing"
    concurrency: int = 2


def measure(bench: Bench, load: Load, ground: Grounds) -> Figures:
    """Run the load once."""
    table, calls = bench.variant.table, load.calls
    with Meter(ground.postgres) as meter:
        bench.flush()
        bench.notes.clear()
        if table is not None:
            meter.empty(table)
        at_first = meter.written()
        with bench.worker(load.concurrency, queue="warm") as worker:
            bench.publish("nothing", WARM_UP, "warm")
            bench.wait_for(WARM_UP)
            with bench.publisher(load.task, calls, "measured") as publisher:
                time.sleep(REST)
                meter.checkpoint()
                wal, spent = meter.written().wal, cpu(*ground.processes)
                published = publisher.go()
                publishing = published.cpu + cpu(*ground.processes) - spent
            time.sleep(REST)
            spent, began = cpu(worker.pid, *ground.processes, *bench.strays()), time.perf_counter()
            bench.consume("measured")
            bench.wait_for(WARM_UP + calls)
            missing = 0 if table is None else meter.wait_for_ended(table, WARM_UP + calls)
            seconds = time.perf_counter() - began
            working = cpu(worker.pid, *ground.processes, *bench.strays()) - spent
            wal = meter.written().wal - wal
        time.sleep(REST)
        commits = meter.written().commits - at_first.commits
    return Figures(
        publish_rate=calls / published.seconds,
        recorded_rate=calls / seconds,
        publish_cpu=publishing / calls * 1e6,
        worker_cpu=working / calls * 1e6,
        total_cpu=(publishing + working) / calls * 1e6,
        wal=wal / calls,
        # Over the whole run, for open connections tell of their commits late.
        commits=commits / (WARM_UP + calls),
        missing=missing,
    )


@dataclass(frozen=True, slots=True)
class Results:
    """The figures of all rounds: one mapping of variant to figures each."""

    rounds: Sequence[Mapping[str, Figures]]

    def figure(self, kind: str, name: str) -> Spread | None:
        """Return a figure of one variant."""
        return spread(getattr(each[kind], name) for each in self.rounds if kind in each)

    def ratio(self, kind: str, beside: str, name: str) -> Spread | None:
        """Return a figure of one variant divided by that of another, taken round by round."""
        pairs = ((each[kind], each[beside]) for each in self.rounds if kind in each and beside in each)
        both = ((getattr(ours, name), getattr(theirs, name)) for ours, theirs in pairs)
        return spread(ours / theirs for ours, theirs in both if theirs)

    def missing(self, kind: str) -> int:
        """Return how many ends the table never showed."""
        return sum(each[kind].missing for each in self.rounds if kind in each)

    def table(self) -> str:
        """Return what all cost, in one table."""
        kinds = [kind for kind in VARIANTS if any(kind in each for each in self.rounds)]
        return markdown([name for name, _ in COLUMNS], [[show(self, kind) for _, show in COLUMNS] for kind in kinds])

    def judged(self, bars: Sequence[Bar] = BARS) -> str:
        """Return what was promised beside what was measured."""
        rows = []
        for bar in bars:
            beside = bar.beside
            found = self.ratio(bar.kind, beside, bar.figure) if beside else self.figure(bar.kind, bar.figure)
            if found is not None:
                what = f"{bar.kind}: {bar.figure}" + (f" / {beside}" if beside else "")
                # What loses calls may well be cheap.
                held = bar.holds(found.median) and not self.missing(bar.kind)
                rows.append([what, bar.bound, found, "yes" if held else "**NO**"])
        return markdown(["bar", "promised", "measured", "held"], rows)


def _against(beside: str, name: str) -> Callable[[Results, str], Spread | None]:
    return lambda results, kind: results.ratio(kind, beside, name)


def _median(name: str) -> Callable[[Results, str], str]:
    return lambda results, kind: short(results.figure(kind, name).median)


def _title(results: Results, kind: str) -> str:
    missing = results.missing(kind)
    return VARIANTS[kind].title + (f", **{missing} ends missing**" if missing else "")


COLUMNS: Sequence[tuple[str, Callable[[Results, str], object]]] = (
    ("variant", _title),
    ("publish rate / bare", _against("bare", "publish_rate")),
    ("recorded rate / bare", _against("bare", "recorded_rate")),
    ("CPU publish, µs", _median("publish_cpu")),
    ("/ bare", _against("bare", "publish_cpu")),
    ("CPU worker side, µs", _median("worker_cpu")),
    ("/ bare", _against("bare", "worker_cpu")),
    ("CPU total, µs", _median("total_cpu")),
    ("/ bare", _against("bare", "total_cpu")),
    ("/ django-celery-results at its best", _against("results", "total_cpu")),
    ("log per call, bytes", _median("wal")),
    ("commits per call", _median("commits")),
)


def rounds_of(
    kinds: Sequence[str], load: Load, ground: Grounds, number: int, folder: Path, **environment: str
) -> Results:
    """Run every variant once in each round; one that fails is said so, and left out from then on."""
    benches = {kind: Bench(kind, folder, environment) for kind in kinds}
    for bench in list(benches.values()):
        if bench.variant.table is not None:
            _try(benches, bench, bench.migrate)
    rounds: list[dict[str, Figures]] = []
    for count in range(1, number + 1):
        rounds.append({})
        for kind, bench in list(benches.items()):
            found = _try(benches, bench, lambda bench=bench: measure(bench, load, ground))
            if found is not None:
                rounds[-1][kind] = found
                shown = f"publish {found.publish_rate:.0f}/s, recorded {found.recorded_rate:.0f}/s, CPU {found.publish_cpu:.0f} + {found.worker_cpu:.0f} µs"
                print(
                    f"round {count}: {kind}: {shown}" + f", {found.missing} missing" * bool(found.missing), flush=True
                )
    return Results(rounds)


def _try(benches: dict[str, Bench], bench: Bench, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever it was, the others can still be measured
        print(f"{bench.kind} FAILED, and is left out: {error!r}"[:3000], flush=True)
        benches.pop(bench.kind, None)
        return None


def conditions(chosen: argparse.Namespace, commit: CommitCost) -> str:
    """Return what must be known of a table to understand it."""
    task = f"a task that sleeps {chosen.pause_ms:g} ms" if chosen.pause_ms else "a task that does nothing"
    return (
        f"{chosen.rounds} rounds of {chosen.calls} calls of {task}, concurrency {chosen.concurrency}, "
        f"prefetch {chosen.prefetch}. {commit}"
    )


def main() -> None:
    """Measure, and print the table and what was promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--variants", nargs="+", default=SHOWN, choices=SHOWN, metavar="VARIANT")
    parser.add_argument("--pause-ms", type=float, default=0)
    parser.add_argument("--prefetch", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--fsync-us", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every round's figures to this file, too")
    chosen = parser.parse_args()
    load = Load(calls=chosen.calls, task="pause" if chosen.pause_ms else "nothing", concurrency=chosen.concurrency)
    variables = {"BENCH_PAUSE": str(chosen.pause_ms / 1000), "BENCH_PREFETCH": str(chosen.prefetch)}
    with tempfile.TemporaryDirectory() as folder, grounds(fsync_us=chosen.fsync_us) as ground:
        commit = cost_of_commit(ground.postgres)
        results = rounds_of(chosen.variants, load, ground, chosen.rounds, Path(folder), **variables)
    if chosen.json:
        chosen.json.write_text(json.dumps([{k: asdict(f) for k, f in each.items()} for each in results.rounds]))
    print(f"\n{conditions(chosen, commit)}\n\n{results.table()}\n\n{results.judged()}")


if __name__ == "__main__":
    main()
