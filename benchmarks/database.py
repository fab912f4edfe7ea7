"""What PostgreSQL tells of its work, and what a commit costs on it."""

import statistics
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import psycopg

from benchmarks.variants import Table


@dataclass(frozen=True, slots=True)
class Written:
    """How much was written so far: bytes of log, and commits in the measured database."""

    wal: int
    commits: int


class Meter:
    """Reads what a database has written and recorded, over a connection whose own commits count elsewhere."""

    def __init__(self, url: str) -> None:
        self._url, self._name = url, urlsplit(url).path.lstrip("/")
        self._connection = psycopg.connect(urlsplit(url)._replace(path="/postgres").geturl(), autocommit=True)
        #: Commits in the measured database that were our own.
        self.looks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def checkpoint(self) -> None:
        """Write everything out now, so that it does not happen in the middle of a measurement."""
        self._connection.execute("CHECKPOINT")

    def written(self) -> Written:
        """Return what was written so far; what connections that are open have committed last may be missing."""
        wal, commits = self._connection.execute(
            "SELECT pg_current_wal_lsn() - '0/0', sum(xact_commit) FROM pg_stat_database WHERE datname = %s",
            [self._name],
        ).fetchone()
        return Written(wal=int(wal), commits=int(commits) - self.looks)

    def empty(self, table: Table) -> None:
        """Delete all calls."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {table.name} CASCADE")
            self.looks += 1

    def wait_for_ended(self, table: Table, count: int, within: float = 30.0) -> int:
        """Return once so many calls have their outcome, or when it takes too long: how many have not."""
        end = time.monotonic() + within
        with psycopg.connect(self._url, autocommit=True) as connection:
            while True:
                found = connection.execute(f"SELECT count(*) FROM {table.name} WHERE {table.ended}").fetchone()[0]
                self.looks += 1
                if found >= count or time.monotonic() > end:
                    return max(count - found, 0)
                time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class CommitCost:
    """Microseconds of one commit: with the wait for the disk, and without."""

    waiting: float
    asynchronous: float

    def __str__(self) -> str:
        return (
            f"A commit of one row takes {self.waiting:.0f} µs here (median), of which the wait for the disk is "
            f"{max(self.waiting - self.asynchronous, 0):.0f} µs."
        )


def cost_of_commit(url: str, commits: int = 400) -> CommitCost:
    """Measure it: single inserts, one by one, which wait for the disk and which do not."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE lrp_bench_commit (n int)")
        try:
            lags: dict[str, list[float]] = {"on": [], "off": []}
            for number in range(commits):
                for mode, found in lags.items():
                    connection.execute(f"SET synchronous_commit = {mode}")
                    began = time.perf_counter()
                    connection.execute("INSERT INTO lrp_bench_commit VALUES (%s)", [number])
                    found.append((time.perf_counter() - began) * 1e6)
        finally:
            connection.execute("DROP TABLE lrp_bench_commit")
    return CommitCost(statistics.median(lags["on"]), statistics.median(lags["off"]))
