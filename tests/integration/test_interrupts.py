"""An interrupt ends the run that it is meant for, or comes too late; it never hits what its process does next."""

import itertools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from lrp_celery.procedures.aborts import INTERRUPT, Interrupted, Reach, board, listen
from lrp_celery.procedures.signal import AbortController
from lrp_celery.tracking.record import CallRecord
from tests.integration import hostile
from tests.integration.harness import eventually

LONG = pytest.mark.skipif("LRP_TEST_LONG" not in os.environ, reason="takes long: set LRP_TEST_LONG")
ROUNDS = int(os.environ.get("LRP_TEST_ROUNDS", "100"))
NOW = datetime(2026, 10, 1, tzinfo=UTC)
#: Seconds by which a body ends earlier or later than it is interrupted, at most.
JITTER = 0.012


def play(room, procedures, rounds):
    """Let bodies end about when they are interrupted, each followed at once by a call that nobody asked to end.

    Return the outcomes of the former and the results of the latter.
    """
    jitter = random.Random(rounds)
    kinds = itertools.cycle(procedures)
    struck, spared = [], []
    for _ in range(rounds):
        struck.append(next(kinds).call(jitter.uniform(-JITTER, JITTER)))
        spared.append(hostile.census.call())
    eventually(
        "all have ended",
        lambda: not room.found(pk__in=struck + spared, terminal_at=None),
        within=60 + rounds,
        pause=0.2,
    )
    ends = Counter((row.task, row.status, row.reason) for row in room.found(pk__in=struck))
    return ends, [(row.status, hostile.census.get_result(row.call_id)) for row in room.found(pk__in=spared)]


def check(room, pool, procedures, rounds):
    worker = room.worker(pool, concurrency=1)
    ends, spared = play(room, procedures, rounds)
    print(pool, dict(ends))
    assert {(status, reason) for _, status, reason in ends} <= {("succeeded", None), ("aborted", "aborted")}
    # A race that one side always wins is none.
    for procedure in procedures:
        for status in ("succeeded", "aborted"):
            part = sum(count for (task, ended, _), count in ends.items() if (task, ended) == (procedure.name, status))
            assert part >= rounds / len(procedures) / 20, ends
    # One process for all of them, which is in one run at a time, and lives on.
    (pid,) = {found[0] for _, found in spared}
    assert spared == [("succeeded", [pid, 1])] * rounds
    assert (pid == worker.pid) is (pool != "prefork")
    assert hostile.census.get_result(hostile.census.call(), wait=20) == [pid, 1]


@pytest.mark.integration
@pytest.mark.services
def test_rule_24_an_interrupt_never_hits_the_next_call_of_a_pool_process(make_room):
    check(make_room(), "prefork", [hostile.ends_as_it_is_struck, hostile.catches_as_it_is_struck], ROUNDS)


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("pool", ["threads", pytest.param("solo", marks=[pytest.mark.slow, LONG])])
def test_rule_24_an_interrupt_never_hits_the_next_call_of_a_thread(make_room, pool):
    check(make_room(), pool, [hostile.ends_as_it_is_struck, hostile.catches_as_it_is_struck], ROUNDS * 3 // 10)


# --- The race alone, far more often


@pytest.fixture
def listening():
    before, interval = signal.getsignal(INTERRUPT), sys.getswitchinterval()
    listen()
    # Threads take turns so often that each step of one may meet each of the other.
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    signal.signal(INTERRUPT, before)


def one_race(number, jitter):
    """Return whether a function that ends about when it is struck was struck."""
    record = CallRecord(call_id=f"race-{number}", task="race", enqueued_at=NOW, updated_at=NOW, grace=60.0)
    reach = Reach(record, f"run-{number}", AbortController())
    begun = threading.Event()

    def strike():
        begun.wait()
        spin(0.0005)
        reach.strike()

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        try:
            with reach:
                begun.set()
                spin(0.0005 + jitter)
        finally:
            reach.leave()
    except Interrupted:
        was_struck = True
    else:
        was_struck = False
    # What follows is nobody's to interrupt.
    spin(0.0005)
    striker.join()
    spin(0.0002)
    assert board.runs() == []
    return was_struck


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def many_races(count, answers):
    jitter = random.Random(count)
    try:
        answers.append(Counter(one_race(number, jitter.uniform(-0.0004, 0.0008)) for number in range(count)))
    except BaseException as error:
        answers.append(error)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("place", ["main thread", "thread"])
def test_rule_24_thousands_of_interrupts_that_come_too_late_or_just_in_time_hit_nothing_else(place):
    answers = []
    if place == "thread":
        thread = threading.Thread(target=many_races, args=(1000, answers))
        thread.start()
        thread.join()
    else:
        many_races(1000, answers)
    (ends,) = answers
    assert isinstance(ends, Counter), ends
    assert min(ends[True], ends[False]) > 50, ends
