"""Random chaos with real processes: `python -m tests.chaos.run --seed 7 --calls 5000 --broker redis`.

Two workers and two callers of their own on a broker and a database of their own, all of which are
killed, frozen and cut by a schedule that follows from the seed, while calls are purged. With `--http` one of
the callers is another service, and the server over which it calls is killed, too; with `--clocks` one worker
lives an hour ahead, the other an hour behind. When all the calls are made
everything is left in peace; then the invariants are checked. Exits 1 if one is violated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

if __name__ == "__main__":
    # What follows has models.
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

from tests import services
from tests.chaos import ledger
from tests.chaos.clocks import wrong_clocks
from tests.chaos.databases import DATABASES, DECKS, OURS, ChaosDatabase
from tests.chaos.invariants import Census, Evidence, beside, fates, may_come_again, refused_writes, violations
from tests.chaos.mayhem import DECK, SERVERS_DECK, Nemesis, children_of, schedule
from tests.chaos.terms import RETENTION, SILENT_AFTER, TOMBSTONE
from tests.chaos.work import nature_of
from tests.integration import history
from tests.integration.crashes import QUICK, processes_of
from tests.integration.harness import ROOT, Process, Room, eventually, migrate
from tests.services.process import own_folder

WORKERS = CALLERS = 2
#: Calls a second, of all callers together.
PACE = 12.0
TICK = 0.05
#: How far apart the seeds of a caller's lives are.
LIVES = 1000
#: How often it is looked at what workers hold, at the start and at the end.
CENSUSES = 10
#: Seconds within which all must be calm, once nothing is disturbed any more.
CALM = 90.0
TRACKING: dict[str, Any] = {
    **QUICK,
    "SILENT_AFTER": SILENT_AFTER,
    "TOMBSTONE": TOMBSTONE,
    "PUBLISH_WAIT": 0.5,
}
REDIS = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1, "socket_timeout": 5}
RABBITMQ = {"confirm_publish": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played."""

    seed: int
    calls: int
    """This, and a blow of each kind, is what it takes at least, until it is over."""
    broker: str
    http: bool = False
    """Whether one of the callers calls over HTTP."""
    database: str = "postgres"
    clocks: bool = False
    """Whether the workers' clocks are wrong, each by an hour."""

    @property
    def deck(self) -> tuple[str, ...]:
        """The blows that come."""
        return (*DECK, *DECKS[self.database], *(SERVERS_DECK if self.http else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """How it went."""

    plan: Plan
    seconds: float
    evidence: Evidence
    violations: dict[str, list[str]]

    @property
    def refused_writes(self) -> int:
        """How many runs came to their end when their call was no longer theirs."""
        return refused_writes(self.evidence)

    def __str__(self) -> str:
        facts = self.evidence.facts
        lasts = [states[-1] for states in self.evidence.history.values()]
        counts = {
            "facts": Counter(fact.what for fact in facts),
            "faults": Counter(fact.more["kind"] for fact in facts if fact.what == "fault"),
            "ends": Counter(f"{last['status']} {last['reason'] or ''}".strip() for last in lasts),
            "purged": len(self.evidence.deletions),
            "stale runs refused": self.refused_writes,
        }
        lines = [f"{self.plan}: {self.seconds:.0f} s", f"{self.evidence.before} -> {self.evidence.after}"]
        lines += [f"{name}: {dict(count) if isinstance(count, Counter) else count}" for name, count in counts.items()]
        lines += ["what became of the calls that callers were told about:", *self._fates()]
        lines += ["what is said of the calls of tests.chaos.stored:", *self._beside()]
        for name, said in self.violations.items():
            lines += [f"{name} VIOLATED, {len(said)} times:", *(f"    {each}" for each in said[:20])]
        return "\n".join([*lines, "every invariant holds" if not self.violations else "NOT every invariant holds"])

    def _fates(self) -> Iterator[str]:
        found = {
            f"{task.rpartition('.')[2]}{'' if nature_of(task).owned else ' (plain Celery)'}": counts
            for task, counts in fates(self.evidence).items()
        }
        return _table(found, ("accepted", "finished", "finished twice", "without an outcome"))

    def _beside(self) -> Iterator[str]:
        columns = ("accepted", "no row", "left open", "no word of its success", "failed, though its body had ended")
        return _table(beside(self.evidence), columns)


def _table(rows: Mapping[str, Mapping[str, int]], columns: Sequence[str]) -> Iterator[str]:
    yield f"    {'':28}" + "".join(f"{column:>{len(column) + 4}}" for column in columns)
    for name, counts in sorted(rows.items()):
        yield f"    {name:28}" + "".join(f"{counts[column]:>{len(column) + 4}}" for column in columns)


class CallerProcess(Process):
    """A caller; each life of it has a seed of its own."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path, seed: int) -> None:
        super().__init__(name, [], environment, folder)
        self._seed = seed

    def command(self) -> list[str]:
        """Return what is started this time."""
        self._seed += LIVES
        return [sys.executable, "-m", "tests.chaos.caller", str(self._seed), str(CALLERS / PACE)]


class RemoteProcess(CallerProcess):
    """Such a caller of another service."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path, seed: int, url: str) -> None:
        super().__init__(name, environment, folder, seed)
        self._url = url

    def command(self) -> list[str]:
        """Return what is started this time."""
        python, flag, _, *more = super().command()
        return [python, flag, "tests.chaos.remote", *more, self._url]


@dataclass(kw_only=True)
class Purger:
    """Purges all the while, and looks whether anybody waits long for a lock."""

    room: Room
    database: ChaosDatabase
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Go on until `stop`; silent about a database that is away."""
        from django_app.purge import purge

        while not self._over.wait(0.5):
            try:
                purge(using=self.room.alias)
                for seconds, query in self.database.waits():
                    ledger.write("waits", folder=self.room.folder, seconds=seconds, query=query)
            except Exception:
                connections[self.room.alias].close()
        connections[self.room.alias].close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Purge meanwhile."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def play(plan: Plan, folder: Path, blocker: Any) -> Findings:
    """Play it in `folder`, where logs and ledger stay."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        # Workers keep their notices there, and whoever is killed leaves them.
        temporary = stack.enter_context(own_folder("chaos"))
        room, broker, database = _room(plan, folder, blocker, stack)
        environment = room._environment({}, TRACKING, room.database)
        environment |= {"DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "TMPDIR": str(temporary)}
        _make_tables_of_others(environment)
        clocks = wrong_clocks(folder) if plan.clocks else [{}] * WORKERS
        workers = [_worker(room, f"w{n + 1}", environment | {"PGAPPNAME": OURS} | clocks[n]) for n in range(WORKERS)]
        callers = [CallerProcess(f"caller{n + 1}", environment, folder, plan.seed + n) for n in range(CALLERS)]
        servers = [_server(room)] if plan.http else []
        if servers:
            callers[-1] = RemoteProcess("remote", environment, folder, plan.seed + CALLERS, servers[0].base_url)
        room.processes += [*workers, *callers]
        for process in room.processes:
            process.start()
        for worker in workers:
            worker.wait_until_ready()
        before = _warm(room, workers, database)
        nemesis = Nemesis(
            folder=folder,
            broker=broker,
            database=database,
            workers=workers,
            callers=callers,
            servers=servers,
            blows=schedule(plan.seed, plan.deck),
            reader=ledger.Reader(folder),
        )
        with Purger(room=room, database=database).running():
            while not _is_over(plan, nemesis.reader.facts()):
                nemesis.tick()
                time.sleep(TICK)
            nemesis.end()
            for caller in callers:
                caller.stop()
            nemesis.callers.clear()
            _calm(room, nemesis)
        evidence = _evidence(room, before, _least(workers, database))
    return Findings(plan=plan, seconds=time.monotonic() - began, evidence=evidence, violations=violations(evidence))


def _is_over(plan: Plan, facts: list[ledger.Fact]) -> bool:
    counts = Counter(fact.what for fact in facts)
    return counts["wanted"] >= plan.calls and counts["fault"] >= len(plan.deck)


# --- The grounds


def _room(plan: Plan, folder: Path, blocker: Any, stack: contextlib.ExitStack) -> tuple[Room, Any, ChaosDatabase]:
    database = stack.enter_context(DATABASES[plan.database](folder))
    alias = f"chaos_{plan.broker}_{plan.database}"
    migrate(alias, database.settings, blocker, history.install_deletions)
    maker = {"redis": services.private_redis, "rabbitmq": services.private_rabbitmq}[plan.broker]
    broker = stack.enter_context(maker())
    room = Room(
        name=f"chaos-{plan.broker}-{plan.seed}",
        alias=alias,
        database=database.settings,
        settings={
            "broker_url": broker.url,
            "broker_transport_options": REDIS if plan.broker == "redis" else RABBITMQ,
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,
            "task_default_queue": f"chaos-{plan.seed}",
            "task_ignore_result": True,
            "result_backend": "django-db",
            "worker_prefetch_multiplier": 1,
            "worker_proc_alive_timeout": 30,
            "include": ["tests.chaos.work"],
        },
        folder=folder,
    )
    stack.enter_context(room.entered(blocker))
    stack.enter_context(override_settings(LRP_CELERY={**TRACKING, "DATABASE": alias, "RETENTION": RETENTION}))
    stack.callback(room.close)
    return room, broker, database


def _worker(room: Room, name: str, environment: dict[str, str]) -> Process:
    arguments = ["worker", "--pool", "prefork", "--concurrency", "2", "--hostname", room.name_of(name)]
    arguments += ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    return Process(name, arguments, environment, room.folder)


def _make_tables_of_others(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "django", "migrate", "django_celery_results", "--verbosity", "0"]
    subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, check=True)


def _server(room: Room) -> Any:
    # Not installed where nobody calls over HTTP.
    from tests.http.servers import Server

    return Server("uvicorn", room, TRACKING, "tests.chaos.served")


# --- Start and end


def _warm(room: Room, workers: list[Process], database: ChaosDatabase) -> Census:
    """Return the most that workers hold once every process has had something to do."""
    reader = ledger.Reader(room.folder)

    def have_all_worked() -> bool:
        children = {pid for worker in workers for pid in children_of(worker)}
        return children <= {fact.pid for fact in reader.facts() if fact.what == "ended"}

    eventually("every child has worked", have_all_worked, 60)
    found = list(_censuses(workers, database))
    return Census(connections=max(each.connections for each in found), memory=max(each.memory for each in found))


def _least(workers: list[Process], database: ChaosDatabase) -> Census:
    """Return the least that workers hold: what leaks stays."""
    found = list(_censuses(workers, database))
    return Census(connections=min(each.connections for each in found), memory=min(each.memory for each in found))


def _censuses(workers: list[Process], database: ChaosDatabase) -> Iterator[Census]:
    for _ in range(CENSUSES):
        memories = [_memory(pid) for worker in workers for pid in processes_of(worker)[0]]
        yield Census(connections=database.connections(), memory=sum(memories) // max(len(memories), 1))
        time.sleep(0.2)


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _calm(room: Room, nemesis: Nemesis) -> None:
    """Wait until nothing is open any more, or still to be told; what is in the end is for the invariants to say."""
    from django_app.models import Call

    def is_calm() -> bool:
        nemesis.revive()
        try:
            calls = Call.objects.using(room.alias)
            rows = calls.filter(terminal_at=None).values("owned", "acks_late", "run_outcome")
            return all(map(may_come_again, rows)) and not calls.exclude(tell_at=None).exists()
        except Exception:
            connections[room.alias].close()
            return False

    with contextlib.suppress(AssertionError):
        eventually("everything has ended, and was told", is_calm, CALM, pause=0.2)


def _evidence(room: Room, before: Census, after: Census) -> Evidence:
    from django_app.models import Attempt, Call, LogLine, Payload

    connection = connections[room.alias]
    attempts: dict[str, list[Any]] = {}
    for attempt in Attempt.objects.using(room.alias).values():
        attempts.setdefault(attempt["call_id"], []).append(attempt)
    rows = {row["call_id"]: row for row in Call.objects.using(room.alias).values()}
    orphans = sum(
        model._default_manager.using(room.alias).exclude(call_id__in=list(rows)).count()
        for model in (Attempt, LogLine, Payload)
    )
    payloads = Payload.objects.using(room.alias).values_list("call_id", "result")
    return Evidence(
        facts=ledger.read(room.folder),
        states=history.read(connection),
        rows=rows,
        attempts=attempts,
        stored=_stored(connection),
        results={call_id: json.loads(result) for call_id, result in payloads if result is not None},
        deletions=history.deletions(connection),
        orphans=orphans,
        before=before,
        after=after,
    )


def _stored(connection: BaseDatabaseWrapper) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_id, status FROM django_celery_results_taskresult")
        return dict(cursor.fetchall())


def main(argv: list[str] | None = None) -> int:
    """Play what the command line says, and print how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--database", choices=list(DATABASES), default="postgres")
    parser.add_argument("--clocks", action="store_true", help="set the workers' clocks wrong, each by an hour")
    parser.add_argument("--http", action="store_true", help="let one of the callers call over HTTP")
    parser.add_argument("--folder", type=Path, help="where logs and ledger stay; a new one by default")
    asked = parser.parse_args(argv)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="lrp-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    blocker = SimpleNamespace(unblock=contextlib.nullcontext)
    plan = Plan(
        seed=asked.seed,
        calls=asked.calls,
        broker=asked.broker,
        database=asked.database,
        clocks=asked.clocks,
        http=asked.http,
    )
    print(f"{plan}, logs in {folder}", flush=True)
    findings = play(plan, folder, blocker)
    print(findings)
    return bool(findings.violations)


if __name__ == "__main__":
    sys.exit(main())
