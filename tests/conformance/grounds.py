"""Where the procedures of the suite are called and run: what a test needs to know of that place, and may do to it."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from celery import Celery, _state, signals
from celery.contrib.testing.worker import start_worker
from celery.worker import state

from lrp_celery import AbortSignal, CallNotFound, CallState, StoreError
from lrp_celery.procedures.stores import MemoryStore, RedisStore, Store
from lrp_celery.tracking import messages
from lrp_celery.tracking.callstore import OwningStore
from lrp_celery.tracking.steps import Merged
from tests.conformance import procedure_tasks
from tests.conformance.item_store import until
from tests.conformance.procedure_tasks import OVER, here
from tests.integration import truth
from tests.integration.truth import STARTED

#: Seconds that anything may take. Only a test that fails waits for so long.
WAIT = 20.0
PAST = datetime(1970, 1, 1, tzinfo=UTC)


class Ground:
    """A place with the procedures of the suite; `folder` is where they note what they do."""

    #: Whether `call` returns only when the call has settled.
    settles_in_call: ClassVar[bool] = False
    #: Whether an abort reaches a call that runs in another process.
    reaches_across: ClassVar[bool] = True
    #: How often whoever waits for a result looks before he waits.
    looks: ClassVar[int] = 2
    #: So many calls run at once, each in a process of its own; 1: they share a process.
    processes: int = 1

    def __init__(self, procedures: SimpleNamespace, folder: Path) -> None:
        self.procedures = procedures
        self.folder = folder
        self._truth = truth.Reader(folder)
        self._made: list[str] = []

    # --- calling, and what calls do

    def start(self, procedure: Any, *args: Any, **kwargs: Any) -> str:
        """Make a call and return its id, without waiting for the function."""
        call_id: str = procedure.call(*args, **kwargs)
        self._made.append(call_id)
        return call_id

    def ask(self, procedure: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a call and return its result."""
        return procedure.get_result(self.start(procedure, *args, **kwargs), wait=WAIT)

    def running(self, procedure: Any, *args: Any) -> str:
        """Make a call and return its id once its function has begun."""
        call_id = self.start(procedure, *args)
        self.until_it(call_id, STARTED)
        return call_id

    def settled(self, procedure: Any, *args: Any) -> str:
        """Make a call and return its id once it has settled."""
        call_id = self.start(procedure, *args)
        self.until_settled(procedure, call_id)
        return call_id

    def until_it(self, call_id: str, event: str) -> None:
        """Return once the function has noted something."""
        until(lambda: self.count(call_id, event) > 0, WAIT)

    def until_settled(self, procedure: Any, call_id: str) -> None:
        """Return once the call has settled."""
        until(lambda: procedure.get_state(call_id) is CallState.SETTLED, WAIT)

    def until_gone(self, procedure: Any, call_id: str) -> None:
        """Return once the call is not found any more."""
        until(lambda: not self.is_known(procedure, call_id), WAIT)

    def until_over(self, call_id: str) -> None:
        """Return once whatever ran the function is done with it, its outcome included."""
        self.until_it(call_id, OVER)

    @staticmethod
    def is_known(procedure: Any, call_id: str) -> bool:
        """Whether there is such a call."""
        try:
            procedure.get_state(call_id)
        except CallNotFound:
            return False
        return True

    def count(self, call_id: str, event: str = STARTED) -> int:
        """Return how often the function has noted something: by default, that it began."""
        return sum(line.event == event for line in self.lines(call_id))

    def lines(self, call_id: str | None = None) -> list[truth.Line]:
        """Return what one call's function has noted, or all."""
        return [line for line in self._truth.lines() if call_id in {None, line.call_id}]

    def release(self, *call_ids: str) -> None:
        """Let held calls go on."""
        for call_id in call_ids:
            (self.folder / truth.gate_name(call_id)).touch()

    def let_go(self) -> None:
        """Let go on whatever is held, or will be once it has begun."""
        self.release(*self._made, *{line.call_id for line in self.lines()})
        self._made.clear()

    def deliver_again(self, procedure: Any, call_id: str, *args: Any) -> None:
        """Let the message of a call come once more, where there are messages."""

    def meddle(self, procedure: Any, call_id: str, deed: str) -> Any:
        """Do something to a call from elsewhere: from another process, where there are several."""
        _, given = self.ask(self.procedures.meddle, name_of(procedure), call_id, deed)
        return given

    # --- the threads of this process

    def in_thread(self, work: Callable[[], Any]) -> Ending:
        """Do something in a thread."""
        return Ending(work, self.leave_thread)

    def leave_thread(self) -> None:
        """Give back what a thread has opened."""

    async def leave_loop(self) -> None:
        """Give back what async twins have opened."""

    # --- what is kept of a call, and how it may be spoiled

    def take_away(self, call_id: str) -> None:
        """Let a call vanish, whatever it is at."""
        raise NotImplementedError

    def spoil(self, call_id: str) -> None:
        """Let what is kept of a settled call be unreadable."""
        raise NotImplementedError

    def lives_for(self, procedure: Any, call_id: str) -> Any:
        """Return for how many seconds a settled call is kept; None: until somebody removes it."""
        raise NotImplementedError

    def traces(self, call_id: str) -> list[Any]:
        """Return what can still be read of a call."""
        raise NotImplementedError

    def sweep(self) -> None:
        """Do what the purge does now and then."""

    def refuse_new_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the store write no new call."""
        raise NotImplementedError

    def after_reading(self, monkeypatch: pytest.MonkeyPatch, nth: int, work: Callable[[], None]) -> None:
        """Do `work` when this thread has read for the n-th time what `get_result` waits for, before it knows what it read."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Return how many waits for calls this process knows of."""
        raise NotImplementedError

    def until_nothing_is_left(self, call_id: str) -> None:
        """Return once the process that ran the call knows neither calls nor timers any more."""
        pid, end = self.lines(call_id)[0].pid, time.monotonic() + WAIT
        while (left := self._look_around(pid)) != [[], []]:
            assert time.monotonic() < end, (left, [line for line in self.lines() if line.call_id in left[0]])

    def _look_around(self, pid: int) -> list[Any]:
        """Return the calls and timers that the process with this number knows."""
        ids = [self.start(self.procedures.look_around) for _ in range(self.processes)]
        for call_id in ids:
            self.until_it(call_id, STARTED)
        self.release(*ids)
        seen = [self.procedures.look_around.get_result(call_id, wait=WAIT) for call_id in ids]
        others = set(ids)
        found = [
            [[call for call in calls if call not in others], timers] for where, calls, timers in seen if where == pid
        ]
        assert found, f"{pid} was not met among {seen}"
        return list(found[0])


class OverRows(Ground):
    """Calls of a Celery app; `store` is the one that this process reads them by."""

    def __init__(self, procedures: SimpleNamespace, folder: Path, store: OwningStore) -> None:
        super().__init__(procedures, folder)
        self.store = store

    def deliver_again(self, procedure: Any, call_id: str, *args: Any) -> None:
        procedure.apply_async(args, task_id=call_id, headers={messages.OWNED: 0})

    def take_away(self, call_id: str) -> None:
        self.store.take_out(call_id)

    def spoil(self, call_id: str) -> None:
        record = self.store._find(call_id, None).record
        assert record is not None
        assert self.store._write(Merged(record, payload={"result": "neither JSON nor anything"}), record)

    def lives_for(self, procedure: Any, call_id: str) -> Any:
        call = procedure.get_call(call_id)
        return None if call.purge_at is None else (call.purge_at - call.terminal_at).total_seconds()

    def traces(self, call_id: str) -> list[Any]:
        kept = (self.store.look(call_id), self.store.payload(call_id), *self.store.attempts(call_id))
        return [each for each in (*kept, *self.store.log(call_id)) if each is not None]

    def sweep(self) -> None:
        self.store.purge_terminal(PAST)

    def refuse_new_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self.store), "insert", away)

    def after_reading(self, monkeypatch: pytest.MonkeyPatch, nth: int, work: Callable[[], None]) -> None:
        interpose(monkeypatch, type(self.store), "look_with_result", nth, work)

    def waiting(self) -> int:
        return int(not self.store.newsroom.is_empty)


class Eager(OverRows):
    """Each call runs where it is made."""

    settles_in_call = True

    def start(self, procedure: Any, *args: Any, **kwargs: Any) -> str:
        """Make the call in a thread: whoever has its id sees it run, although `call` has not returned it yet."""
        call_id = procedure._call_options.call_id or f"eager-{uuid.uuid4().hex}"
        self._made.append(call_id)
        made = self.in_thread(lambda: procedure.using(call_id=call_id).call(*args, **kwargs))
        until(lambda: self.is_known(procedure, call_id) or made.is_over, WAIT)
        return call_id

    def deliver_again(self, procedure: Any, call_id: str, *args: Any) -> None:
        """There is no message; but the task can be run by its id once more."""
        procedure.apply(args, task_id=call_id, throw=False)


class Local(Ground):
    """Calls in threads of this process, over a bare store."""

    reaches_across = False
    looks = 1

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__(procedure_tasks.declare_here(store), folder)
        self.store = store
        here.procedures, here.store = self.procedures, store

    def until_over(self, call_id: str) -> None:
        until(lambda: f"lrp_celery-call-{call_id}" not in {thread.name for thread in threading.enumerate()}, WAIT)

    def meddle(self, procedure: Any, call_id: str, deed: str) -> Any:
        """Only the store is shared with another process: so it is with procedures that are declared once more."""
        other = getattr(procedure_tasks.declare_here(self.store), name_of(procedure))
        deeds = {
            "state": lambda: str(other.get_state(call_id)),
            "abort": lambda: other.abort(call_id, "from elsewhere"),
            "result": lambda: other.get_result(call_id, wait=WAIT),
            "remove": lambda: other.remove(call_id),
        }
        return deeds[deed]()

    def take_away(self, call_id: str) -> None:
        self.store.delete(call_id)

    def spoil(self, call_id: str) -> None:
        if isinstance(self.store, RedisStore):
            self.store._redis.set(self.store._prefix + call_id, "neither JSON nor anything")
        else:
            assert isinstance(self.store, MemoryStore)
            self.store._items[call_id] = "neither JSON nor anything", None

    def lives_for(self, procedure: Any, call_id: str) -> Any:
        if isinstance(self.store, RedisStore):
            left: Any = self.store._redis.pttl(self.store._prefix + call_id)
            return None if left < 0 else left / 1000
        assert isinstance(self.store, MemoryStore)
        _, expires_at = self.store._items[call_id]
        return None if expires_at is None else (expires_at - datetime.now(UTC)).total_seconds()

    def traces(self, call_id: str) -> list[Any]:
        if isinstance(self.store, MemoryStore):
            return [item for known, item in self.store._items.items() if known == call_id]
        item = self.store.get(call_id)
        return [] if item is None else [item]

    def refuse_new_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self.store), "set", away)

    def after_reading(self, monkeypatch: pytest.MonkeyPatch, nth: int, work: Callable[[], None]) -> None:
        interpose(monkeypatch, type(self.store), "get", nth, work)

    def waiting(self) -> int:
        """Return the calls that somebody could wait for: there is no other register."""
        return sum(len(procedure._running) for procedure in vars(self.procedures).values())


# --- beside the grounds


def name_of(procedure: Any) -> str:
    """Return the name of a procedure's function."""
    name: str = procedure.__name__
    return name


def away(*_: Any, **__: Any) -> Any:
    raise StoreError("away")


def interpose(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, nth: int, work: Callable[[], None]) -> None:
    """Do `work` after this thread has called a method for the n-th time, before that returns."""
    real, me, left = getattr(kind, method), threading.get_ident(), nth

    def slow(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        given = real(*args, **kwargs)
        if threading.get_ident() == me:
            left -= 1
            if left == 0:
                work()
        return given

    monkeypatch.setattr(kind, method, slow)


class Ending:
    """What becomes of something that is done in a thread."""

    def __init__(self, work: Callable[[], Any], leave: Callable[[], None]) -> None:
        self._work, self._leave = work, leave
        self._ends: list[Any] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ends.append(self._work())
        except BaseException as error:
            self._ends.append(error)
        finally:
            self._leave()

    @property
    def is_over(self) -> bool:
        return bool(self._ends)

    def end(self) -> Any:
        """Return what came of it, be it an exception."""
        self._thread.join(WAIT)
        assert self._ends, "it goes on and on"
        return self._ends[0]


class Counted:
    """A procedure that counts what is asked of another one: of its methods it has the five that callers know."""

    def __init__(self, ground: Ground, procedure: Any) -> None:
        self._ground, self._procedure = ground, procedure
        self.counts: Counter[str] = Counter()
        self.order: list[str] = []
        self.ids: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.after: dict[str, Callable[[], None]] = {}

    def call(self, *args: Any, **kwargs: Any) -> str:
        with self._noted("call"):
            self.ids.append(self._ground.start(self._procedure, *args, **kwargs))
        return self.ids[-1]

    def get_state(self, call_id: str) -> CallState:
        with self._noted("get_state"):
            state: CallState = self._procedure.get_state(call_id)
        return state

    def get_result(self, call_id: str) -> Any:
        with self._noted("get_result"):
            return self._procedure.get_result(call_id, wait=WAIT)

    def abort(self, call_id: str, reason: str | None = None) -> None:
        with self._noted("abort"):
            self._procedure.abort(call_id, reason)

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        with self._noted("remove"):
            self._procedure.remove(call_id, when_settled=when_settled)

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        self.counts[name] += 1
        self.order.append(name)
        if name in self.failing:
            raise self.failing[name]
        yield
        self.after.get(name, lambda: None)()


class Ticks(AbortSignal):
    """A signal whose waits take no time; `at` says what happens during the n-th."""

    def __init__(self, at: dict[int, Callable[[Ticks], object]] | None = None) -> None:
        super().__init__()
        self.at = at or {}
        self.waits: list[float | None] = []

    def wait(self, seconds: float | None = None) -> bool:
        self.waits.append(seconds)
        self.at.get(len(self.waits), lambda _: None)(self)
        return self.aborted

    def abort(self) -> None:
        self._raise("enough", timed_out=False)


@contextlib.contextmanager
def in_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder of a ground whose functions run here."""
    folder = tmp_path_factory.mktemp("ground")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(truth.FOLDER, str(folder))
        yield folder


@contextlib.contextmanager
def worker_in_thread(app: Celery, pool: str = "threads", concurrency: int = 8) -> Iterator[None]:
    """Run a worker of `app` in a thread of this process."""
    before = _state.get_current_app()
    terms: dict[str, Any] = {"pool": pool, "concurrency": concurrency}

    def as_it_is(**_: object) -> None:
        """Leave this process's logging to pytest: other tests read what is logged."""

    signals.setup_logging.connect(as_it_is)
    try:
        with start_worker(app, perform_ping_check=False, **terms):
            yield
            # Its loop looks for this after each message or two seconds, and then waits as long once more.
            state.should_terminate = 0  # type: ignore[assignment]  # always None, say its stubs
            for _ in range(2):
                app.control.broadcast("ping")
    finally:
        signals.setup_logging.disconnect(as_it_is)
        before.set_current()
        before.set_default()
