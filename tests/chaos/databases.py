"""The databases that chaos is played on: a server or file of its own, how it is cut, and what it says of itself."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tests import services
from tests.services import PrivateServer, mysql_server
from tests.services.databases import Database, mysql_settings, postgres_settings

#: By what PostgreSQL knows the workers' connections.
OURS = "chaos-worker"
#: The longest that a server is down, in seconds.
DOWN = 1.5
_OF_SERVERS = ("cut database", "cut database", "restart database")
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_WAITING = """
SELECT extract(epoch FROM clock_timestamp() - query_start)::float, left(query, 200) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '1 second'
"""
_MYSQL_WAITING = """
SELECT TIMESTAMPDIFF(SECOND, trx_wait_started, NOW()), LEFT(trx_query, 200) FROM information_schema.innodb_trx
WHERE trx_wait_started IS NOT NULL
"""


class ChaosDatabase(Protocol):
    """A database that belongs to one run."""

    settings: Database

    def cut(self) -> None:
        """End every connection."""
        ...

    def restart(self, chance: random.Random) -> None:
        """Kill the server; start it again on the same data after a while."""
        ...

    def waits(self) -> Iterator[tuple[float, str]]:
        """Yield for how many seconds statements have waited for a lock, and which ones; those that have for a second."""
        ...

    def connections(self) -> int:
        """Return how many connections the workers hold; 0: it cannot tell whose they are."""
        ...


def bring_down(server: PrivateServer, chance: random.Random, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill a server; start it again on the same data after a while."""
    server._end(how)
    time.sleep(chance.uniform(0, DOWN))
    server.launch()


class _Postgres:
    def __init__(self, server: PrivateServer) -> None:
        self._server = server
        self.settings = postgres_settings(server.url, "postgres")
        with self._asked() as connection:
            # What is committed survives the server, if not a power cut.
            connection.execute("ALTER DATABASE postgres SET synchronous_commit = on")

    def cut(self) -> None:
        with self._asked() as connection:
            connection.execute(_CUT)

    def restart(self, chance: random.Random) -> None:
        # As `pg_ctl -m immediate` does.
        bring_down(self._server, chance, signal.SIGQUIT)

    def waits(self) -> Iterator[tuple[float, str]]:
        with self._asked() as connection:
            yield from connection.execute(_WAITING).fetchall()

    def connections(self) -> int:
        with self._asked() as connection:
            mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            return int(connection.execute(mine, [OURS]).fetchone()[0])

    @contextlib.contextmanager
    def _asked(self) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(self._server.url, connect_timeout=2, autocommit=True) as connection:
            yield connection


class _MySQL:
    def __init__(self, server: PrivateServer) -> None:
        self._server = server
        # What is committed survives the server, if not a power cut: now, and when it comes back.
        server.command = [*server.command, "--innodb-flush-log-at-trx-commit=2"]
        self._ask("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
        self._ask("CREATE DATABASE chaos CHARACTER SET utf8mb4")
        self.settings = mysql_settings(server.url, "chaos")

    def cut(self) -> None:
        others = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'root'"
        for (number,) in self._ask(others):
            # It may have gone by itself.
            with contextlib.suppress(Exception):
                self._ask(f"KILL {int(number)}")

    def restart(self, chance: random.Random) -> None:
        bring_down(self._server, chance)

    def waits(self) -> Iterator[tuple[float, str]]:
        return ((float(seconds), query) for seconds, query in self._ask(_MYSQL_WAITING))

    def connections(self) -> int:
        return 0

    def _ask(self, statement: str) -> list[Any]:
        connected = contextlib.closing(mysql_server.connect(self._server.url, 5))
        with connected as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


class _SQLite:
    def __init__(self, folder: Path) -> None:
        self.settings = services.sqlite_database(folder / "chaos.sqlite3")

    def cut(self) -> None:
        raise NotImplementedError

    def restart(self, chance: random.Random) -> None:
        raise NotImplementedError

    def waits(self) -> Iterator[tuple[float, str]]:
        return iter(())

    def connections(self) -> int:
        return 0


@contextlib.contextmanager
def _on(
    server: Callable[[], contextlib.AbstractContextManager[PrivateServer]],
    kind: Callable[[PrivateServer], ChaosDatabase],
) -> Iterator[ChaosDatabase]:
    with server() as started:
        yield kind(started)


#: By name: what opens one, whose files stay in a folder.
DATABASES: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[ChaosDatabase]]] = {
    "postgres": lambda _: _on(services.private_postgres, _Postgres),
    "mysql": lambda _: _on(services.private_mysql, _MySQL),
    "sqlite": lambda folder: contextlib.nullcontext(_SQLite(folder)),
}
#: The blows that each can take.
DECKS: Mapping[str, tuple[str, ...]] = {"postgres": _OF_SERVERS, "mysql": _OF_SERVERS, "sqlite": ()}
