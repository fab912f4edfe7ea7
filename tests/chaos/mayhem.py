"""The nemesis: what is killed, frozen and cut, and when. The same seed gives the same schedule."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import ledger
from tests.chaos.databases import ChaosDatabase, bring_down
from tests.chaos.work import nature_of, seconds
from tests.integration.crashes import LEASE, processes_of
from tests.services import PrivateServer, rabbitmq_server

#: Each kind comes as often as it stands here before any of them comes once more; see `databases` for more.
DECK = (
    *("kill child", "kill child", "kill worker", "kill worker", "kill side process", "kill caller"),
    *("freeze worker", "freeze child"),
    *("kill broker", "cut broker", "cut broker"),
)
#: What comes on top where somebody calls over HTTP.
SERVERS_DECK = ("kill server", "kill server", "freeze server")
#: Seconds between two faults, on average.
PAUSE = 2.2
FROZEN = 3 * LEASE + 0.5
#: Seconds for which it looks for a run to freeze, and for which that must go on for it to be met.
AIM, REST = 3.0, 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One disturbance: when, in seconds from the start, what, and a number from which its victim follows."""

    at: float
    kind: str
    choice: int


def schedule(seed: int, deck: Sequence[str]) -> Iterator[Blow]:
    """Yield disturbances without end."""
    chance = random.Random(seed)
    at = 0.0
    while True:
        for kind in chance.sample(deck, len(deck)):
            at += chance.uniform(0.3, 2 * PAUSE - 0.3)
            yield Blow(at=at, kind=kind, choice=chance.randrange(1 << 30))


@dataclass(kw_only=True)
class Nemesis:
    """Strikes when the schedule says so, and brings back what must be there for the next blow."""

    folder: Path
    broker: PrivateServer
    database: ChaosDatabase
    workers: list[Any]
    callers: list[Any]
    blows: Iterator[Blow]
    reader: ledger.Reader
    servers: Sequence[Any] = ()
    """Those of the API, where somebody calls over HTTP."""
    _began: float = field(default_factory=time.monotonic)
    _next: Blow | None = None
    _frozen: dict[int, tuple[float, Callable[[], None]]] = field(default_factory=dict)

    def tick(self) -> None:
        """Do what is due, and return."""
        now = time.monotonic()
        for key in [key for key, (until, _) in self._frozen.items() if until <= now]:
            self._frozen.pop(key)[1]()
        self.revive()
        blow = self._next or next(self.blows)
        self._next = blow
        if now - self._began >= blow.at:
            self._next = None
            ledger.write("fault", folder=self.folder, kind=blow.kind, choice=blow.choice)
            getattr(self, "_" + blow.kind.replace(" ", "_"))(random.Random(blow.choice))

    def revive(self) -> None:
        """Start whatever has ended."""
        for process in (*self.workers, *self.callers, *self.servers):
            if not process.is_alive:
                # What is left of it must end by itself.
                process.start()

    def end(self) -> None:
        """Let go of all that is frozen."""
        for _, thaw in self._frozen.values():
            thaw()
        self._frozen.clear()

    # --- Workers and callers

    def _kill_child(self, chance: random.Random) -> None:
        self._kill(chance, children_of(chance.choice(self.workers)))

    def _kill_side_process(self, chance: random.Random) -> None:
        side = processes_of(chance.choice(self.workers))[1]
        self._kill(chance, [] if side is None else [side])

    def _kill_worker(self, chance: random.Random) -> None:
        self._kill(chance, [chance.choice(self.workers).pid])

    def _kill_caller(self, chance: random.Random) -> None:
        self._kill(chance, [chance.choice(self.callers).pid])

    def _kill_server(self, chance: random.Random) -> None:
        self._kill(chance, [chance.choice(self.servers).pid])

    def _freeze_server(self, chance: random.Random) -> None:
        pid = chance.choice(self.servers).pid
        self._freeze(pid, lambda number: os.kill(pid, number))

    def _kill(self, chance: random.Random, pids: list[int]) -> None:
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)

    def _freeze_worker(self, chance: random.Random) -> None:
        worker = chance.choice(self.workers)
        self._amid_a_run(worker)
        group = worker.pid
        self._freeze(group, lambda number: os.killpg(group, number))

    def _freeze_child(self, chance: random.Random) -> None:
        pid = self._amid_a_run(chance.choice(self.workers))
        if pid is not None:
            self._freeze(pid, lambda number: os.kill(pid, number))

    def _amid_a_run(self, worker: Any) -> int | None:
        """Return a child in the midst of a run that another one may repeat, once there is one; one that idles, if not."""
        children = children_of(worker)
        end = time.monotonic() + AIM
        while time.monotonic() < end:
            facts = self.reader.facts()
            over = {fact.call for fact in facts if fact.what == "ended"}
            orders = {fact.call: fact.more for fact in facts if fact.what == "wanted"}
            for fact in reversed(facts):
                if fact.what == "began" and fact.pid in children and fact.call not in over and _goes_on(fact, orders):
                    return fact.pid
            time.sleep(0.01)
        return children[0] if children else None

    def _freeze(self, key: int, send: Callable[[int], None]) -> None:
        def thaw() -> None:
            with contextlib.suppress(ProcessLookupError):
                send(signal.SIGCONT)

        # It may have looked for its victim for a while.
        ledger.write("froze", folder=self.folder)
        with contextlib.suppress(ProcessLookupError):
            send(signal.SIGSTOP)
            self._frozen[key] = (time.monotonic() + FROZEN, thaw)

    # --- Servers

    def _kill_broker(self, chance: random.Random) -> None:
        # Redis comes back empty.
        bring_down(self.broker, chance)

    def _cut_broker(self, chance: random.Random) -> None:
        if self.broker.name == "redis":
            import redis

            with redis.Redis.from_url(self.broker.url) as client:
                for kind in ("normal", "pubsub"):
                    client.client_kill_filter(_type=kind, skipme=True)
        else:
            rabbitmq_server.control("close_all_connections", "cut", environment=dict(self.broker.environment))

    def _cut_database(self, _: random.Random) -> None:
        self.database.cut()

    def _restart_database(self, chance: random.Random) -> None:
        self.database.restart(chance)


def _goes_on(fact: ledger.Fact, orders: Mapping[str | None, Mapping[str, Any]]) -> bool:
    """Whether a run that began may be repeated, and will go on for a while."""
    order = orders[fact.call]
    return nature_of(order["task"]).idempotent and fact.at + seconds(order["value"]) - time.time() > REST


def children_of(worker: Any) -> list[int]:
    """Return the pids of a worker's pool."""
    found, side = processes_of(worker)
    return sorted(found - {worker.pid, side})
