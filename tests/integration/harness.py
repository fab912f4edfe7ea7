"""Real workers for tests: where they find their broker and database, and what became of a call.

A `Room` is a broker, a database and a truth file that publishers and workers share; the
test process publishes from it as any Django process would. A `Cell` is a room with one
worker that all tests share; tests that kill things make a room of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery._state import get_current_app
from celery.result import AsyncResult
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from django_app.models import Attempt, Call
from lrp_celery.tracking.recorder import losses
from tests import services
from tests.integration import history, truth
from tests.integration.app import READY, SETTINGS, make_app

ROOT = Path(__file__).resolve().parents[2]
HOST = socket.gethostname()

#: What a log holds where tracking failed, or raised.
TROUBLE = ("Tracking lost", "Signal handler")

#: Seconds that anything may take. Only a test that fails waits for so long.
WITHIN = 30.0
POLL = 0.02

Database = dict[str, Any]


class TooLate(AssertionError):
    """Something did not happen in time; the message says what was there instead."""


def eventually(
    what: str, look: Callable[[], Any], within: float = WITHIN, tell: Callable[[], str] = str, pause: float = POLL
) -> Any:
    """Return what `look` returns once it is true; `tell` says, when it never is, what was there instead."""
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TooLate(f"not within {within:g} s: {what}\n{tell()}")
        time.sleep(pause)


# --- Processes


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A Celery command in a process group of its own; what `environment` has as None is not set there."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str | None],
        folder: Path,
        app: str = "tests.integration.app",
    ) -> None:
        self.name = name
        self._app = app
        self.log_file = folder / f"{name}.log"
        self._arguments = arguments
        self._environment = environment
        self._ready_file = folder / f"{name}.ready"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the main process runs."""
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        """Return what is started."""
        return [sys.executable, "-m", "celery", "-A", self._app, *self._arguments]

    def start(self) -> None:
        """Start it; `wait_until_ready` before counting on it."""
        self._ready_file.unlink(missing_ok=True)
        environment = {**os.environ, **self._environment, READY: str(self._ready_file)}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={name: value for name, value in environment.items() if value is not None},
                start_new_session=True,
                # Nothing in between can take a lock: the function makes one system call.
                preexec_fn=_die_with_parent if _libc is not None else None,  # noqa: PLW1509
            )

    def wait_until_ready(self) -> None:
        """Return when it says that it is ready."""
        eventually(f"{self.name} is ready", lambda: self._ready_file.exists() or not self.is_alive, tell=self.log_end)
        assert self.is_alive, f"{self.name} ended at once:\n{self.log_end()}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process only."""
        os.kill(self.pid, number)

    def wait(self, within: float = WITHIN) -> int:
        """Return the exit status, once it has ended."""
        assert self._process is not None, f"{self.name} was not started"
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise TooLate(f"{self.name} did not end within {within:g} s:\n{self.log_end()}") from None

    def kill(self) -> None:
        """SIGKILL to the main process, as the kernel does when memory is short; its children follow."""
        self.signal(signal.SIGKILL)
        self.wait()
        self._sweep()

    def stop(self) -> None:
        """End it and its children at once; silent when they have ended."""
        if self._process is not None:
            self._sweep()
            self._process.wait()

    def log(self) -> str:
        """Return what it wrote."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_end(self) -> str:
        """Return the end of what it wrote, for a failure's message."""
        return self.log()[-4000:]

    def complaints(self) -> list[str]:
        """Return the lines in which tracking says that it failed."""
        return [line for line in self.log().splitlines() if any(words in line for words in TROUBLE)]

    def _sweep(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


# --- Rooms


class Room:
    """A broker, a database and a truth file, and the tasks to call there."""

    def __init__(self, *, name: str, alias: str, database: Database, settings: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.alias = alias
        self.database = database
        self.folder = folder
        self.queue = settings["task_default_queue"]
        self.settings = settings
        self.app = make_app(settings, current=False)
        self.processes: list[Process] = []
        #: Where the test's own calls come from, as `source_script` says it.
        self.script: str | None = None
        #: Set by a test that makes tracking fail on purpose.
        self.expects_losses = False
        self.publisher = f"gen{os.getpid()}@{HOST}"
        self._truth = truth.Reader(folder)
        self._checked: list[tuple[str, str, dict[str, Any]]] = []

    @property
    def tasks(self) -> Any:
        """The tasks of `tests.integration.tasks`, by their short names."""
        self.app.finalize()
        self.app.loader.import_default_modules()
        return SimpleNamespace(
            **{name.removeprefix("tests."): task for name, task in self.app.tasks.items() if name.startswith("tests.")}
        )

    @property
    def worker_name(self) -> str | None:
        """The name under which Celery knows the room's first worker."""
        return self.name_of(self.processes[0].name) if self.processes else None

    def name_of(self, name: str) -> str:
        """Return a worker's name as Celery shows it: RabbitMQ's rooms share a virtual host."""
        return f"{name}-{self.name}@{HOST}"

    def worker(
        self,
        pool: str = "prefork",
        *,
        name: str = "w1",
        concurrency: int = 2,
        options: Sequence[str] = (),
        tracking: Mapping[str, Any] | None = None,
        database: Database | None = None,
        **settings: Any,
    ) -> Process:
        """Start a worker, and return it when it is ready."""
        arguments = ["worker", "--pool", pool, "--concurrency", str(concurrency), "--hostname", self.name_of(name)]
        arguments += ["--without-gossip", "--without-mingle", "--loglevel", "INFO", *options]
        return self._run(name, arguments, settings, tracking or {}, database or self.database)

    def beat(self, *, name: str = "beat", **settings: Any) -> Process:
        """Start a beat, and return it when it is ready."""
        arguments = ["beat", "--schedule", str(self.folder / "schedule"), "--pidfile=", "--loglevel", "INFO"]
        return self._run(name, arguments, settings, {}, self.database)

    def _run(
        self,
        name: str,
        arguments: Sequence[str],
        settings: Mapping[str, Any],
        tracking: Mapping[str, Any],
        database: Database,
    ) -> Process:
        process = Process(name, arguments, self._environment(settings, tracking, database), self.folder)
        self.processes.append(process)
        process.start()
        process.wait_until_ready()
        return process

    def run_script(self, code: str, **environment: str) -> None:
        """Run a program of its own, in which `tests.integration.app.app` publishes into this room."""
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **self._environment({}, {}, self.database), **environment},
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=WITHIN,
        )

    def _environment(
        self, settings: Mapping[str, Any], tracking: Mapping[str, Any], database: Database
    ) -> dict[str, str]:
        return {
            **services.as_environment(database),
            "DJANGO_SETTINGS_MODULE": "tests.integration.settings",
            "LRP_TEST_TRACKING": json.dumps({"SPOOL_DIR": str(self.folder / "spools"), **tracking}),
            SETTINGS: json.dumps({**self.settings, **settings}),
            truth.FOLDER: str(self.folder),
        }

    def close(self) -> None:
        """Stop every process."""
        for process in self.processes:
            process.stop()
        self.app.close()

    # --- What became of a call

    def find(self, call_id: str) -> Call | None:
        """Return the row of a call."""
        return Call.objects.using(self.alias).filter(pk=call_id).first()

    def found(self, *conditions: Q, **more: Any) -> list[Call]:
        """Return the rows that meet Django's `conditions`."""
        return list(Call.objects.using(self.alias).filter(*conditions, **more).order_by("enqueued_at"))

    def wait_for(
        self,
        call: AsyncResult[Any] | str,
        condition: Callable[[Call], object] = lambda row: row.is_terminal,
        within: float = WITHIN,
    ) -> Call:
        """Return the row of a call once it meets `condition`: by default, once it is terminal."""
        call_id = id_of(call)

        def look() -> Call | None:
            row = self.find(call_id)
            return row if row is not None and condition(row) else None

        found: Call = eventually(
            f"the call {call_id} is as the test wants it", look, within, lambda: self.tell(call_id)
        )
        return found

    def expect(
        self,
        call: AsyncResult[Any] | str,
        status: str,
        reason: str | None = None,
        *,
        within: float = WITHIN,
        **expected: Any,
    ) -> Call:
        """Wait until a call is in `status`, and check everything that its row and its runs say.

        What `expected` does not name must be as it is for a first run that this test called.
        `attempts` lists the runs with a row of their own, e.g. "1 retried KeyError". The same
        is checked once more at the end of the session: nothing may have changed by then.
        """
        call_id = id_of(call)

        def wanted() -> dict[str, Any]:
            return self._defaults(call_id, status, reason, expected) | expected

        def look() -> Call | None:
            row = self.find(call_id)
            # First what is cheap: nearly always it is this that one waits for.
            if row is None or row.status != status:
                return None
            expectation = wanted()
            return row if self.seen(row, expectation) == expectation else None

        found: Call = eventually(
            f"{call_id} is {status}", look, within, lambda: self._differences(call_id, wanted()) + self.tell(call_id)
        )
        self._checked.append((os.environ.get("PYTEST_CURRENT_TEST", ""), call_id, wanted()))
        return found

    def _defaults(self, call_id: str, status: str, reason: str | None, expected: Mapping[str, Any]) -> dict[str, Any]:
        attempt = expected.get("attempt", 1)
        error = expected.get("error")
        bad = status in {"failed", "parked", "discarded"} and attempt > 0
        return {
            "status": status,
            "reason": reason,
            "retries": 0,
            "attempt": attempt,
            "attempts": [" ".join(filter(None, (str(attempt), status, error)))] if bad else [],
            "error": None,
            "worker": self.worker_name if attempt else None,
            "pid": self.last_pid(call_id) if attempt else None,
            "queue": self.queue,
            "root": call_id,
            "parent": None,
            "group": None,
            "schedule": None,
            "http_status": None,
            "late_runs": 0,
            "source": (HOST, self.script, self.publisher),
            "in_order": True,
            "true_pids": True,
        }

    def _differences(self, call_id: str, wanted: Mapping[str, Any]) -> str:
        row = self.find(call_id)
        if row is None:
            return "it has no row\n"
        seen = self.seen(row, wanted)
        lines = (f"{name}: {seen[name]!r}, not {wanted[name]!r}\n" for name in wanted if seen[name] != wanted[name])
        return "".join(lines)

    def seen(self, row: Call, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return what row and runs say, in the words of `expect`."""
        attempts = self.attempts(row.call_id)
        pids = {line.pid for line in self.truth(row.call_id)}
        everything = {
            "status": row.status,
            "reason": row.reason,
            "retries": row.retries,
            "attempt": row.attempt,
            "attempts": [describe(attempt) for attempt in attempts],
            "error": row.error_type,
            "message": row.last_error,
            "worker": row.worker,
            "pid": row.pid,
            "queue": row.queue,
            "root": row.root_id,
            "parent": row.parent_id,
            "group": row.group_id,
            "schedule": row.schedule,
            "http_status": row.http_status,
            "late_runs": row.late_runs,
            "source": (row.source_instance_id, row.source_script, row.source_node),
            "in_order": in_order(row) and all(map(in_order_too, attempts)),
            "true_pids": all(attempt.pid in pids for attempt in attempts),
            "summary": row.target_summary,
            "task": row.task,
            "published": row.published_at is not None,
        }
        return {name: everything[name] for name in wanted}

    def attempts(self, call_id: str) -> list[Attempt]:
        """Return the runs of a call that have a row of their own."""
        return list(Attempt.objects.using(self.alias).filter(call_id=call_id).order_by("number"))

    def has_no_row(self, call: AsyncResult[Any] | str) -> bool:
        """Whether a call is not tracked."""
        return self.find(id_of(call)) is None

    def tell(self, call_id: str) -> str:
        """Say all that is known of a call, for a failure's message."""
        states = history.show(history.read(connections[self.alias], call_id))
        runs = "\n".join(f"  {describe(attempt)}" for attempt in self.attempts(call_id))
        lines = "\n".join(f"  {line}" for line in self.truth(call_id))
        logs = "\n".join(f"--- {process.name}:\n{process.log_end()}" for process in self.processes)
        return f"states of {call_id}:\n{states}\nattempts:\n{runs}\ntruth:\n{lines}\n{logs}"

    # --- What really happened

    def truth(self, call: AsyncResult[Any] | str | None = None) -> list[truth.Line]:
        """Return what the tasks wrote: of one call, or of all."""
        lines = self._truth.lines()
        return list(lines) if call is None else [line for line in lines if line.call_id == id_of(call)]

    def runs(self, call: AsyncResult[Any] | str) -> int:
        """Return how often the body of a call's task began."""
        return sum(line.event == truth.STARTED for line in self.truth(call))

    def last_pid(self, call_id: str) -> int | None:
        """Return the process in which a call's body ran last."""
        return next((line.pid for line in reversed(self.truth(call_id)) if line.event == truth.STARTED), None)

    def until_running(self, call: AsyncResult[Any], runs: int = 1) -> AsyncResult[Any]:
        """Return the call, once its body has begun (for the `runs`-th time) and its row says so."""
        call_id = id_of(call)
        eventually(f"{call_id} runs", lambda: self.runs(call_id) >= runs, tell=lambda: self.tell(call_id))
        self.wait_for(call_id, lambda row: row.runs >= runs)
        return call

    def release(self, *calls: AsyncResult[Any] | str, at: Mapping[str, float] | None = None) -> None:
        """Let held calls go on; from the places named by `at` at these moments, by the clock that only counts on."""
        for call in calls:
            gate = self.folder / truth.gate_name(id_of(call))
            made = gate.with_suffix(".new")
            made.write_text(json.dumps(at or {}))
            made.rename(gate)

    # --- Using it in a test

    @contextlib.contextmanager
    def entered(self, blocker: DjangoDbBlocker) -> Iterator[None]:
        """Let this process publish into the room and read its database, as a Django project would."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(blocker.unblock())
            stack.enter_context(alias_of(self.alias, self.database))
            stack.enter_context(override_settings(LRP_CELERY={"DATABASE": self.alias}))
            stack.enter_context(current(self.app))
            yield

    def verify(self) -> None:
        """Check that nothing changed since the tests looked, and that no terminal row ever did."""
        problems = history.changed_after_the_end(history.read(connections[self.alias]))
        for test, call_id, wanted in self._checked:
            if differences := self._differences(call_id, wanted):
                problems.append(f"{test}: {differences}{self.tell(call_id)}")
        assert not problems, "\n".join(["after the tests had looked:", *problems])


@contextlib.contextmanager
def current(app: Celery) -> Iterator[None]:
    """Let `app` be the one that shared tasks belong to."""
    before = get_current_app()
    app.finalize()
    app.loader.import_default_modules()
    app.set_current()
    try:
        yield
    finally:
        before.set_current()


@contextlib.contextmanager
def alias_of(alias: str, database: Database) -> Iterator[None]:
    """Let Django know a database under this alias, only as long as a test uses it."""
    complete = connections.configure_settings({"default": {}, alias: {**database}})
    connections.settings[alias] = complete[alias]
    try:
        yield
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def id_of(call: AsyncResult[Any] | str) -> str:
    """Return the id of a call, given by itself or by Celery's result."""
    return call if isinstance(call, str) else str(call.id)


def describe(attempt: Attempt) -> str:
    """Say in one line how a run went, e.g. "2 late failed ValueError"."""
    words = [
        str(attempt.number),
        "late" if attempt.late else None,
        "redelivered" if attempt.redelivered else None,
        attempt.outcome or "open",
        attempt.error_type,
    ]
    return " ".join(filter(None, words))


def in_order(row: Call) -> bool:
    """Whether the times of a row follow each other."""
    times = [row.enqueued_at, row.started_at, row.terminal_at]
    known = [instant for instant in times if instant is not None]
    return known == sorted(known) and (row.terminal_at is None or row.terminal_at <= row.updated_at)


def in_order_too(attempt: Attempt) -> bool:
    """Whether a run did not end before it began."""
    return attempt.started_at is None or attempt.ended_at is None or attempt.started_at <= attempt.ended_at


# --- The workshop: rooms, shared and private


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cell is made of."""

    pool: str = "prefork"
    broker: str = "redis"
    database: str = "postgres"


@dataclass(kw_only=True)
class Workshop:
    """Makes rooms, each at its first use, and removes them all at the end."""

    folder: Path
    blocker: DjangoDbBlocker
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _databases: dict[str, Database] = field(default_factory=dict)
    _vhosts: list[str] = field(default_factory=list)
    _cells: dict[Plan, Room] = field(default_factory=dict)

    def cell(self, plan: Plan) -> Room:
        """Return the room of this plan, with its one worker running."""
        room = self._cells.get(plan)
        if room is None:
            room = self.room(plan.broker, plan.database, self.stack)
            self._cells[plan] = room
            room.worker(plan.pool)
            self.stack.callback(self._verify, room)
            self._warm_up(room)
        elif not room.processes[0].is_alive:
            # Its death is the failure of the test that caused it, not of all that follow.
            room.processes[0].start()
            room.processes[0].wait_until_ready()
            self._warm_up(room)
        return room

    def _warm_up(self, room: Room) -> None:
        """Wait until the worker's side process is there, which tells what happens: the worker itself is ready before."""
        with room.entered(self.blocker):
            room.wait_for(room.tasks.add.delay(1, 2))

    def room(
        self,
        broker: str,
        database: str | Database,
        stack: contextlib.ExitStack,
        *,
        transport: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Room:
        """Return a room without a worker; `stack` closes it. `transport`: more options for the broker's."""
        kind = database if isinstance(database, str) else "own"
        chosen = self._database(database) if isinstance(database, str) else database
        name = f"{broker}-{kind}-{secrets.token_hex(3)}"
        folder = self.folder / name
        folder.mkdir()
        complete = self._settings(broker, name, stack) | settings
        complete["broker_transport_options"] |= transport or {}
        room = Room(
            name=name,
            alias=f"integration_{kind}",
            database=chosen,
            settings=complete,
            folder=folder,
        )
        stack.callback(room.close)
        return room

    def close(self) -> None:
        """Stop and remove everything."""
        self.stack.close()

    def _verify(self, room: Room) -> None:
        with room.entered(self.blocker):
            room.verify()

    def _settings(self, broker: str, name: str, stack: contextlib.ExitStack) -> dict[str, Any]:
        # Results are in Redis everywhere: chords need them.
        settings = services.celery_over_redis(stack.enter_context(services.redis_space()))
        settings["broker_transport_options"] = dict(settings["broker_transport_options"])
        if broker == "rabbitmq":
            settings |= {"broker_url": self._vhost(), "broker_transport_options": {"confirm_publish": True}}
        return settings | {
            "task_default_queue": name,
            "worker_prefetch_multiplier": 1,
            "worker_proc_alive_timeout": WITHIN,
            "broker_connection_retry_on_startup": True,
        }

    def _vhost(self) -> str:
        # One for all: making one takes seconds, and queues have names of their own.
        if not self._vhosts:
            self._vhosts.append(self.stack.enter_context(services.rabbitmq_vhost()))
        return self._vhosts[0]

    def _database(self, kind: str) -> Database:
        if kind not in self._databases:
            self._databases[kind] = self._make_database(kind)
        return self._databases[kind]

    def _make_database(self, kind: str) -> Database:
        makers: dict[str, Callable[[], contextlib.AbstractContextManager[Database]]] = {
            "postgres": services.postgres_database,
            "mysql": services.mysql_database,
            "sqlite": lambda: contextlib.nullcontext(services.sqlite_database(self.folder / "calls.sqlite3")),
        }
        database: Database = self.stack.enter_context(makers[kind]())
        migrate(f"integration_{kind}", database, self.blocker)
        return database


def migrate(
    alias: str,
    database: Database,
    blocker: DjangoDbBlocker,
    *also: Callable[[BaseDatabaseWrapper], None],
) -> None:
    """Make the tables, and have the database keep their history; and do what is to be done `also` with the connection."""
    with blocker.unblock(), services.database_alias(alias, database):
        for prepare in (history.install, *also):
            prepare(connections[alias])


def lost() -> int:
    """Return how much tracking has lost in this process so far."""
    return sum(losses.counts().values())
