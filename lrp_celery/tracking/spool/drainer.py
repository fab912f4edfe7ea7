"""Brings what waits in the spools to the store.

A drainer reads the files of its own worker as they are written, and takes over those of workers that are
dead. Any number may run at once: what two of them tell, they tell twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from lrp_celery.core.errors import LrpError, StoreUnavailable
from lrp_celery.core.locks import hold, is_held, is_locked
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import Told
from lrp_celery.tracking.spool import stamps
from lrp_celery.tracking.spool.files import Entry, Name, Source, Unreadable
from lrp_celery.tracking.spool.verdicts import Begun, Unended, verdict

logger = logging.getLogger("lrp_celery.drainer")

#: Reports that are told at once.
BATCH: Final = 500
#: Seconds for which a worker's main process may still say what became of a child that has died.
PARENTS_WORD: Final = 10.0
#: Seconds between two looks for what dead workers have left, and for what dead processes of its own have.
LOOK: Final = 2.0
BURY: Final = 0.5
#: Bytes of reports that are kept although they cannot be told.
ASIDE: Final = 1024 * 1024
_WORKER: Final = ".worker"
#: Errors that one report may cause, however often it is told: everything else says nothing of it.
_OF_THE_REPORT: Final = (LrpError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class Listening(Protocol):
    """The store, as far as a drainer needs it: see `ReportStore.report_many`."""

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        """Merge many reports; return those whose rows others hold for now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits, and what was dropped, in the spools of one worker."""

    waiting: int = 0
    """Bytes that were not told yet."""
    dropped: int = 0
    """Reports that its processes had to drop."""


@dataclass(slots=True)
class _Worker:
    """The files of one worker, as far as this drainer has read them."""

    boot: str
    sources: dict[Name, Source] = field(default_factory=dict)
    unended: Unended = field(default_factory=Unended)
    dead_since: dict[int, float] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Item:
    """A report on its way, with the file that it comes from."""

    entry: Entry
    source: Source

    def told(self) -> Told:
        return Told(self.entry.report, stamps.age(self.entry.stamp, self.source.origin.boot))


class Drainer:
    """Drains `folder` into `store`; `boot` is its own worker's (None: it has none, and only takes over).

    `clock` counts seconds. Not safe for threads.
    """

    def __init__(
        self, store: Listening, folder: Path, boot: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._folder = folder
        self._boot = boot
        self._clock = clock
        self._workers: dict[str, _Worker] = {}
        self._put_off: list[_Item] = []
        self._foreign: set[Name] = set()
        self._look_at = self._bury_at = 0.0
        #: The file by which its own worker's main process proves that it lives.
        self._own: int | None = None
        self._lives(boot or "")

    def round(self) -> int:
        """Tell what is there, once; return how many reports were told. `StoreUnavailable`: nothing is lost, try again."""
        self._find()
        told = self._tell_put_off() + sum(map(self._drain, list(self._workers.values())))
        if self._clock() >= self._bury_at:
            self._bury_at = self._clock() + BURY
            told += sum(map(self._bury, list(self._workers.values())))
        return told

    def finish(self, within: float) -> bool:
        """Tell everything that there is, and take over at once; return whether all of it is gone after `within` seconds.

        `StoreUnavailable`: it waits for the next drainer.
        """
        until = self._clock() + within
        self._look_at = 0.0
        while True:
            self._bury_at = 0.0
            self.round()
            if not self._put_off and not self._has_to_do():
                return True
            if self._clock() > until:
                return False
            time.sleep(0.02)

    def _has_to_do(self) -> bool:
        """Whether anything is left but files that are another version's."""
        return any(
            not worker.sources or not all(source.is_foreign for source in worker.sources.values())
            for worker in self._workers.values()
        )

    def has_news(self) -> bool:
        """Whether its own worker has written something that was not told."""
        self._find()
        own = self._workers.get(self._boot or "")
        return own is not None and any(source.has_news for source in own.sources.values())

    def backlog(self) -> Backlog:
        """Return what waits in the spools of its own worker."""
        own = self._workers.get(self._boot or "")
        if own is None:
            return Backlog()
        dropped = {**own.dropped}
        for source in own.sources.values():
            dropped[source.name.pid] = max(dropped.get(source.name.pid, 0), source.dropped)
        return Backlog(waiting=sum(source.waiting for source in own.sources.values()), dropped=sum(dropped.values()))

    # --- finding

    def _find(self) -> None:
        """Open the files that are new: of its own worker, and now and then of those that are dead."""
        looks_around = self._clock() >= self._look_at
        if looks_around:
            self._look_at = self._clock() + LOOK
            self._keep_young()
        lives: dict[str, bool] = {}
        names, workers = self._names()
        if looks_around:
            for boot in workers - {name.boot for name in names} - self._workers.keys():
                self._clear(boot)
        for name in names:
            worker = self._workers.get(name.boot)
            if worker is not None and name in worker.sources:
                continue
            is_known = name.boot == self._boot or worker is not None
            if is_known or (looks_around and not lives.setdefault(name.boot, self._lives(name.boot))):
                self._open(name)

    def _keep_young(self) -> None:
        """Let nobody who tidies up temporary files take those of its own worker for forgotten ones."""
        own = self._workers.get(self._boot or "")
        paths = [] if own is None else [source.path for source in own.sources.values()]
        for path in (self._path_of(self._boot or ""), *paths):
            with contextlib.suppress(OSError):
                os.utime(path)

    def _names(self) -> tuple[list[Name], set[str]]:
        """Return the files that there are, in their order, and the boot ids of the workers that there are or were."""
        found: list[str] = []
        # Somebody may have tidied the folder away; what was written until then is still open.
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            found = [entry.name for entry in entries]
        names = [name for each in found if (name := Name.of(each)) is not None]
        return sorted(names), {each.removesuffix(_WORKER) for each in found if each.endswith(_WORKER)}

    def _open(self, name: Name) -> None:
        try:
            source = Source(self._folder / str(name), name)
        except OSError:
            # Removed meanwhile, or a link, or somebody else's: he has no say in our store.
            return
        self._workers.setdefault(name.boot, _Worker(name.boot)).sources[name] = source

    def _lives(self, boot: str) -> bool:
        """Whether a worker's main process lives; of its own also when somebody has tidied away the file that says so."""
        path = self._path_of(boot)
        if boot != self._boot:
            return is_held(path)
        if self._own is None:
            with contextlib.suppress(FileNotFoundError):
                self._own = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return self._own is not None and is_locked(self._own)

    # --- telling

    def _drain(self, worker: _Worker) -> int:
        told, found = 0, self._next(worker)
        while found:
            news = [(entry, source) for entry, source in found if not source.was_told(entry.end)]
            self._tell([_Item(entry, source) for entry, source in news if isinstance(entry, Entry)])
            for entry, source in found:
                source.told(entry.end)
                if isinstance(entry, Entry):
                    worker.unended.hear(entry.report, entry.stamp, source.name.pid)
                elif not source.was_told(entry.end):
                    self._set_aside(source, entry.said, "it is no report that this version knows")
            told += len(news)
            # What comes meanwhile is told next time, and more of it together.
            found = self._next(worker) if len(found) >= BATCH else []
        if not self._put_off:
            for source in worker.sources.values():
                source.note()
        return told

    def _next(self, worker: _Worker) -> list[tuple[Entry | Unreadable, Source]]:
        """Return what is to be told next, in the order in which it was written, and from which file."""
        found: list[tuple[Entry | Unreadable, Source]] = []
        for source in worker.sources.values():
            if len(found) >= BATCH:
                break
            found += [(entry, source) for entry in source.read(BATCH - len(found))]
        return sorted(found, key=lambda each: each[0].stamp.since_boot if isinstance(each[0], Entry) else 0)

    def _tell_put_off(self) -> int:
        items, self._put_off = self._put_off, []
        try:
            self._tell(items)
        except BaseException:
            self._put_off = items
            raise
        return len(items) - len(self._put_off)

    def _tell(self, items: Sequence[_Item]) -> None:
        """Tell all of them; one that the store refuses by itself, or cannot make sense of, is set aside."""
        if not items:
            return
        try:
            told = [item.told() for item in items]
            held = {id(each) for each in self._store.report_many(told)}
        except StoreUnavailable:
            raise
        except _OF_THE_REPORT as error:
            if len(items) == 1:
                item = items[0]
                self._set_aside(item.source, repr(item.entry.report).encode(), f"{type(error).__name__}: {error}")
                return
            middle = len(items) // 2
            self._tell(items[:middle])
            self._tell(items[middle:])
        else:
            self._put_off += [item for item, each in zip(items, told, strict=True) if id(each) in held]

    def _set_aside(self, source: Source, said: bytes, why: str) -> None:
        """Keep what cannot be told for a person to look at, and go on."""
        losses.add("report that the store refuses")
        logger.error("A report in %s was set aside: %s", source.path.name, why)
        # Where the disk is full, those that can be told must not wait for one that cannot.
        with contextlib.suppress(OSError), (self._folder / f"{source.name.boot}.aside").open("ab") as file:
            if file.tell() < ASIDE:
                file.write(said + b"\n")

    # --- burying

    def _bury(self, worker: _Worker) -> int:
        """Remove the files of processes that are dead, when all was told and judged; return how many runs were judged."""
        judged = 0
        parent_lives = worker.boot == self._boot and self._lives(worker.boot)
        if worker.boot != self._boot and self._lives(worker.boot):
            # Somebody has only just come: it is not ours.
            self._let_go(worker)
            return 0
        for pid, sources in _by_process(worker).items():
            if any(source.is_written_to for source in sources):
                worker.dead_since.pop(pid, None)
                self._remove_told(worker, sources, but_last=True)
                continue
            if any(source.has_news for source in sources):
                continue
            judged += self._bury_process(worker, pid, sources, parent_lives=parent_lives)
        if not worker.sources and not self._lives(worker.boot):
            self._forget(worker)
        return judged

    def _bury_process(self, worker: _Worker, pid: int, sources: Sequence[Source], *, parent_lives: bool) -> int:
        since = worker.dead_since.setdefault(pid, self._clock())
        judged: list[Begun] = []
        if worker.unended.has(pid):
            if parent_lives and self._clock() - since < PARENTS_WORD:
                return 0
            judged = worker.unended.take(pid)
            self._judge(worker, pid, sources[-1], judged, parent_lives=parent_lives)
        if not self._put_off:
            self._remove_told(worker, sources, but_last=False)
            worker.dead_since.pop(pid, None)
        return len(judged)

    def _judge(self, worker: _Worker, pid: int, source: Source, runs: Sequence[Begun], *, parent_lives: bool) -> None:
        may_have_ended = any(each.dropped for each in _by_process(worker)[pid])
        told = [verdict(begun, parent_lives=parent_lives, may_have_ended=may_have_ended) for begun in runs]
        now = stamps.now()
        verdicts = [Entry(report, now, 0) for report in told]
        try:
            self._tell([_Item(entry, source) for entry in verdicts])
        except BaseException:
            for begun in runs:
                worker.unended.hear(begun.started, begun.stamp, pid)
            raise

    def _remove_told(self, worker: _Worker, sources: Sequence[Source], *, but_last: bool) -> None:
        """Remove files that nobody writes to any more."""
        if self._put_off:
            return
        for source in sources[:-1] if but_last else sources:
            if source.is_foreign:
                self._complain_of(source)
                continue
            dropped = source.dropped
            if source.remove():
                pid = source.name.pid
                worker.dropped[pid] = max(worker.dropped.get(pid, 0), dropped)
                source.close()
                del worker.sources[source.name]

    def _complain_of(self, source: Source) -> None:
        if source.name not in self._foreign:
            self._foreign.add(source.name)
            logger.error("%s was written by another version of lrp_celery; it is kept.", source.path)

    def _let_go(self, worker: _Worker) -> None:
        for source in worker.sources.values():
            source.close()
        del self._workers[worker.boot]

    def _forget(self, worker: _Worker) -> None:
        """Forget a worker of which nothing is left."""
        self._clear(worker.boot)
        del self._workers[worker.boot]

    def _clear(self, boot: str) -> None:
        """Remove the file by which a worker's main process proved that it lived, if it is dead."""
        path = self._path_of(boot)
        held = hold(path)
        if held is not None:
            path.unlink(missing_ok=True)
            held.let_go()

    def _path_of(self, boot: str) -> Path:
        return self._folder / f"{boot}{_WORKER}"


def _by_process(worker: _Worker) -> dict[int, list[Source]]:
    """Return the files of each process, in their order."""
    processes: dict[int, list[Source]] = {}
    for name in sorted(worker.sources):
        processes.setdefault(name.pid, []).append(worker.sources[name])
    return processes
