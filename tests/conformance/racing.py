"""Races: the same moves from two sides at the same moment, many times, each side on its own connection."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from lrp_celery.tracking.store import MergingStore

#: Rounds of each race, where somebody wants more or fewer than the suites: `LRP_RACE_ROUNDS=1000` for the full count.
ROUNDS = int(os.environ.get("LRP_RACE_ROUNDS", "0"))
#: Seconds that one side waits for the other before the test fails instead of hanging.
PATIENCE = 60

Opener = Callable[[], MergingStore]


@dataclass(frozen=True)
class Move:
    """One method call on a store: what one side does in one round."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def on(self, store: MergingStore) -> Any:
        return getattr(store, self.method)(*self.args, **self.kwargs)


def move(method: str, *args: Any, **kwargs: Any) -> Move:
    return Move(method, args, kwargs)


class Racers(Protocol):
    """Two sides that can run against each other."""

    def race(self, one: Sequence[Move], other: Sequence[Move]) -> list[tuple[Any, Any]]:
        """Make both sides' moves, round by round, each round at once; return both results of each round.

        What a move raises is its result.
        """
        ...


class ThreadRacers:
    """Two threads on one store: for a store that lives in this process."""

    def __init__(self, store: MergingStore) -> None:
        self._store = store

    def race(self, one: Sequence[Move], other: Sequence[Move]) -> list[tuple[Any, Any]]:
        start = threading.Barrier(2)
        sides: list[list[Any]] = [[], []]

        def run(side: int, moves: Sequence[Move]) -> None:
            sides[side].extend(_rounds(self._store, moves, start))

        threads = [threading.Thread(target=run, args=entry) for entry in enumerate((one, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return list(zip(*sides, strict=True))


def crowd(sides: Sequence[Sequence[Move]], store: MergingStore, leave: Callable[[], None]) -> list[tuple[Any, ...]]:
    """Make the moves of many sides, round by round, each round at once; return all results of each round.

    Each side is a thread, so on a server it has a connection of its own; `leave` is what it does at its end.
    """
    start = threading.Barrier(len(sides))
    results: list[list[Any]] = [[] for _ in sides]

    def run(side: int) -> None:
        try:
            results[side].extend(_rounds(store, sides[side], start))
        finally:
            leave()

    threads = [threading.Thread(target=run, args=(side,)) for side in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return list(zip(*results, strict=True))


class ProcessRacers:
    """Two processes, each with a store that `opener` opens there."""

    def __init__(self, opener: Opener) -> None:
        # Spawned, not forked: the test process has threads, and connections that must not be shared.
        context = multiprocessing.get_context("spawn")
        self._start = context.Barrier(2)
        self._pipes = []
        self._processes = []
        for _ in range(2):
            here, there = context.Pipe()
            process = context.Process(target=_side, args=(opener, there, self._start), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def race(self, one: Sequence[Move], other: Sequence[Move]) -> list[tuple[Any, Any]]:
        for pipe, moves in zip(self._pipes, (one, other), strict=True):
            pipe.send(list(moves))
        return list(zip(*[self._answer(pipe) for pipe in self._pipes], strict=True))

    def _answer(self, pipe: Any) -> list[Any]:
        if not pipe.poll(PATIENCE):
            raise TimeoutError("One side of the race does not answer.")
        answer: list[Any] = pipe.recv()
        return answer

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(PATIENCE)
            process.close()


@contextmanager
def process_racers(opener: Opener) -> Iterator[ProcessRacers]:
    racers = ProcessRacers(opener)
    try:
        yield racers
    finally:
        racers.close()


def _side(opener: Opener, pipe: Any, start: Any) -> None:
    store = opener()
    while True:
        try:
            moves = pipe.recv()
        except EOFError:
            return
        pipe.send(list(_rounds(store, moves, start)))


def _rounds(store: MergingStore, moves: Sequence[Move], start: Any) -> Iterator[Any]:
    for each in moves:
        start.wait(PATIENCE)
        try:
            result = each.on(store)
        except Exception as error:
            result = error
        yield result
