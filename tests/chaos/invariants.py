"""What must hold, whatever was killed: pure checks of what the system says against what the ledger knows.

The numbers are those of the project's protocol: I1 to I3, I6 and I9 to I13, with I0 before them and I14 after. Each
check returns its violations in words; `tests/chaos/test_invariants.py` shows each of them a history that violates it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.chaos.ledger import Fact
from tests.chaos.terms import FORGOTTEN_AFTER, TOMBSTONE
from tests.chaos.work import ATTEMPTS, Nature, nature_of, right_value
from tests.integration.history import changed_after_the_end

Row = Mapping[str, Any]

OPEN = {"submitted", "started", "retrying"}
DONE = ("succeeded", None)
LOST = ("failed", "worker_lost")
#: Faults that may cost a run, as what freezes a process may.
HARMS = {"kill child", "kill worker"}
#: Faults after which callers publish plain tasks without a row, and for how many seconds they may: the worker makes it.
BLINDS = {"cut database", "restart database"}
BLIND = 10.0
#: Seconds that a statement may wait for a lock.
LOCK_WAIT = 5.0
#: Seconds by which the database's clock may differ from that of the processes: they share a machine.
CLOCKS = 0.05
#: Of what is wanted, what may be refused.
REFUSED = 0.15
#: How much more there may be at the end than at the start.
GROWTH = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What the workers hold while nothing is going on."""

    connections: int
    memory: int
    """In bytes, on average of their processes: some of them may have been killed a moment ago."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known at the end."""

    facts: Sequence[Fact]
    states: Sequence[dict[str, Any]]
    """Every state that a row ever had, in order."""
    rows: Mapping[str, Row]
    attempts: Mapping[str, Sequence[Row]]
    results: Mapping[str, Any]
    stored: Mapping[str, str]
    """What django-celery-results says of the calls whose results it keeps: its status, by id."""
    deletions: Sequence[Row]
    orphans: int
    before: Census
    after: Census

    @cached_property
    def wanted(self) -> Mapping[str, Fact]:
        """Return what callers wanted, by id."""
        return {str(fact.call): fact for fact in self.of("wanted")}

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Return the ids of the calls that callers were told about."""
        return frozenset(str(fact.call) for fact in self.of("accepted"))

    @cached_property
    def purged(self) -> frozenset[str]:
        """Return the ids of the calls that a purge has deleted."""
        return frozenset(row["call_id"] for row in self.deletions)

    @cached_property
    def began(self) -> Mapping[str, Sequence[Fact]]:
        """Return the runs whose body began, by call."""
        return self._by_call("began")

    @cached_property
    def ended(self) -> Mapping[str, Sequence[Fact]]:
        """Return the runs whose body came to its end, by call."""
        return self._by_call("ended")

    @cached_property
    def history(self) -> Mapping[str, Sequence[dict[str, Any]]]:
        """Return the states of each call."""
        found = defaultdict(list)
        for state in self.states:
            found[state["call_id"]].append(state)
        return found

    def of(self, what: str) -> Iterator[Fact]:
        """Yield the facts of one kind."""
        return (fact for fact in self.facts if fact.what == what)

    def nature(self, call_id: str) -> Nature:
        """Return what is right for a call."""
        return nature_of(self.wanted[call_id].more["task"])

    def owned(self) -> Iterator[str]:
        """Yield the ids of procedures' calls that have, or had, a row."""
        return (call_id for call_id in self.history if call_id in self.wanted and self.nature(call_id).owned)

    def _by_call(self, what: str) -> Mapping[str, Sequence[Fact]]:
        found = defaultdict(list)
        for fact in self.of(what):
            found[str(fact.call)].append(fact)
        return found


# --- That it proves anything


def i0_few_calls_were_refused(evidence: Evidence) -> Iterator[str]:
    """Callers are refused while a server is away, and that is seldom: else the other checks have little to look at."""
    refused = sum(1 for _ in evidence.of("refused"))
    if refused > len(evidence.wanted) * REFUSED:
        errors = Counter(str(fact.more["error"]) for fact in evidence.of("refused"))
        yield f"{refused} of {len(evidence.wanted)} calls were refused, most of them so: {errors.most_common(1)[0][0]}"


# --- I1, I2, I3


def i1_each_accepted_call_ends_once_and_right(evidence: Evidence) -> Iterator[str]:
    """Every accepted id is in one right terminal state, or was purged from one; none that nobody wanted."""
    for call_id in evidence.history.keys() - evidence.wanted.keys():
        yield f"{call_id}: nobody wanted it"
    for call_id in evidence.accepted:
        if call_id not in evidence.history:
            if _may_be_unknown(evidence, call_id):
                continue
            yield f"{call_id}: accepted, and no row was ever there"
        elif call_id not in evidence.rows and call_id not in evidence.purged:
            yield f"{call_id}: its row has gone, and no purge took it"
    for call_id in evidence.owned():
        last = evidence.history[call_id][-1]
        end = (last["status"], last["reason"])
        if last["status"] not in OPEN and end not in set(_right_ends(evidence, call_id)):
            yield f"{call_id} of {evidence.wanted[call_id].more['task']}: ended {end}"
        if end == LOST and not evidence.nature(call_id).poison and not _was_harmed(evidence, last):
            yield f"{call_id}: given up, though no process was killed or frozen since it was called"
        if end == DONE:
            yield from _true_success(evidence, call_id, last)


def _may_be_unknown(evidence: Evidence, call_id: str) -> bool:
    """Whether a plain task's call was published while its caller could not reach the database, and nobody could make its row.

    Its message was lost, or its worker told of it only when it would have been purged again.
    """
    nature = evidence.nature(call_id)
    if nature.owned or (call_id in evidence.began and nature.kept is None):
        return False
    at = evidence.wanted[call_id].at
    faults = (fact for fact in evidence.of("fault") if fact.more["kind"] in BLINDS)
    return any(0 <= at - fact.at <= BLIND for fact in faults)


def _right_ends(evidence: Evidence, call_id: str) -> Iterator[tuple[str, str | None]]:
    nature = evidence.nature(call_id)
    row = evidence.rows.get(call_id)
    if nature.times_out:
        yield ("aborted", "timeout")
    elif nature.raises:
        yield ("failed", None)
    elif not nature.poison:
        yield DONE
    if not nature.idempotent or row is None or row["losses"] >= ATTEMPTS:
        yield LOST
    if any(fact.call == call_id for fact in evidence.of("asked")):
        yield ("aborted", "aborted")


def _was_harmed(evidence: Evidence, last: Row) -> bool:
    since, until = last["enqueued_at"].timestamp(), last["terminal_at"].timestamp()
    kills = (fact for fact in evidence.of("fault") if fact.more["kind"] in HARMS)
    return any(since <= fact.at <= until for fact in (*kills, *evidence.of("froze")))


def _true_success(evidence: Evidence, call_id: str, last: Row) -> Iterator[str]:
    ends = [fact for fact in evidence.ended.get(call_id, ()) if fact.more["attempt"] == last["attempt"]]
    if len(ends) != 1:
        yield f"{call_id}: succeeded in attempt {last['attempt']}, of which the body ended {len(ends)} times"
    elif ends[0].at > last["terminal_at"].timestamp() + CLOCKS:
        yield f"{call_id}: succeeded before the body of attempt {last['attempt']} had ended"
    result = evidence.results.get(call_id)
    if result is not None and result != right_value(evidence.wanted[call_id].more["value"]):
        yield f"{call_id}: its result is {result}"


def i2_no_end_ever_changes(evidence: Evidence) -> Iterator[str]:
    """No transition out of a terminal state, and whoever looked saw what is there at the end."""
    owned = set(evidence.owned())
    for call_id, states in evidence.history.items():
        for life in _lives(states, may_return=call_id in evidence.purged - owned):
            yield from changed_after_the_end(life)
    for fact in evidence.of("saw"):
        last = evidence.history.get(str(fact.call), [{"status": None}])[-1]["status"]
        if fact.more["status"] not in OPEN and fact.more["status"] != last:
            yield f"{fact.call}: somebody saw {fact.more['status']}, and it is {last}"
    for fact in evidence.of("got"):
        right = right_value(evidence.wanted[str(fact.call)].more["value"])
        if fact.more["value"] != right:
            yield f"{fact.call}: somebody got {fact.more['value']}, not {right}"


def _lives(states: Sequence[dict[str, Any]], *, may_return: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield what belongs to one row: a late copy of a plain task's message runs again after a purge, and is a new one."""
    life: list[dict[str, Any]] = []
    for state in states:
        if may_return and life and state["is_new"]:
            yield life
            life = []
        life.append(state)
    yield life


def i3_no_stale_holder_writes(evidence: Evidence) -> Iterator[str]:
    """Fences only rise, no two runs have one fence, and what is not idempotent begins once a turn."""
    for call_id in evidence.owned():
        numbers = [state["attempt"] for state in evidence.history[call_id]]
        if numbers != sorted(numbers):
            yield f"{call_id}: its attempts go back: {numbers}"
        runs = evidence.began.get(call_id, ())
        for attempt, count in Counter(fact.more["attempt"] for fact in runs).items():
            if count > 1:
                yield f"{call_id}: attempt {attempt} began {count} times"
        if not evidence.nature(call_id).idempotent:
            for turn, count in Counter(fact.more["retries"] for fact in runs).items():
                if count > 1:
                    yield f"{call_id}: is not idempotent, and its turn {turn} began {count} times"


def refused_writes(evidence: Evidence) -> int:
    """Return how many runs came to their end when their call was no longer theirs: without any, I3 proves little."""
    return sum(
        fact.more["attempt"] != evidence.history[call_id][-1]["attempt"]
        or evidence.history[call_id][-1]["status"] != "succeeded"
        for call_id in evidence.owned()
        for fact in evidence.ended.get(call_id, ())
    )


def fates(evidence: Evidence) -> dict[str, Counter[str]]:
    """Return, by task, what became of the calls that callers were told about: how many were lost, run twice, open."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for call_id in evidence.accepted:
        counts = found[evidence.wanted[call_id].more["task"]]
        last = evidence.history.get(call_id, [{"status": "submitted"}])[-1]
        ends = len(evidence.ended.get(call_id, ()))
        counts["accepted"] += 1
        counts["finished"] += ends > 0
        counts["finished twice"] += ends > 1
        counts["without an outcome"] += last["status"] in OPEN
    return dict(found)


def beside(evidence: Evidence) -> dict[str, Counter[str]]:
    """Return, by who says it, what is said of the calls whose results django-celery-results keeps, where that is not so."""
    found: dict[str, Counter[str]] = {"lrp_celery": Counter(), "django-celery-results": Counter()}
    for call_id in evidence.accepted:
        if evidence.wanted[call_id].more["task"] != "tests.chaos.stored":
            continue
        ours = evidence.history.get(call_id, [{"status": None}])[-1]["status"]
        has_ended = bool(evidence.ended.get(call_id))
        for name, status, open_ones in (
            ("lrp_celery", ours, OPEN),
            ("django-celery-results", evidence.stored.get(call_id), {"PENDING", "STARTED", "RETRY"}),
        ):
            counts = found[name]
            counts["accepted"] += 1
            counts["no row"] += status is None
            counts["left open"] += status in open_ones
            counts["failed, though its body had ended"] += has_ended and status in {"failed", "FAILURE"}
            counts["no word of its success"] += has_ended and status not in {"succeeded", "SUCCESS"}
    return found


# --- I6


def i6_what_was_aborted_never_succeeds(evidence: Evidence) -> Iterator[str]:
    """An abort that settled the row is the end; and what was aborted before it was claimed never runs."""
    for call_id in evidence.owned():
        states = evidence.history[call_id]
        statuses = [state["status"] for state in states]
        if "aborted" in statuses and "succeeded" in statuses:
            yield f"{call_id}: aborted, and succeeded"
        end = states[-1]
        if end["status"] == "aborted" and end["attempt"] == 0 and evidence.began.get(call_id):
            yield f"{call_id}: aborted before its first attempt, and ran"


# --- I9


def i9_purges_take_only_what_may_go(evidence: Evidence) -> Iterator[str]:
    """Only terminal rows past what keeps them, and with all that hangs on them."""
    for row in evidence.deletions:
        task, gone = row["task"], row["deleted_at"]
        nature = nature_of(task)
        if row["terminal_at"] is None:
            yield f"{row['call_id']}: purged while it was open"
        elif nature.kept is None:
            yield f"{row['call_id']} of {task}: purged, though it is kept"
        else:
            kept = TOMBSTONE if nature.owned else FORGOTTEN_AFTER
            since = (gone - row["terminal_at"]).total_seconds()
            if since < kept:
                yield f"{row['call_id']} of {task}: purged after {since:.1f} s"
    if evidence.orphans:
        yield f"purges left {evidence.orphans} rows that belong to no call"


# --- I10


def i10_racing_starts_are_one_call(evidence: Evidence) -> Iterator[str]:
    """Starts that race for one id get the same handle, and one row was inserted."""
    for fact in evidence.of("raced"):
        call_id = str(fact.call)
        if set(fact.more["handles"]) != {call_id}:
            yield f"{call_id}: starts that raced got {sorted(set(fact.more['handles']))}"
        inserted = {state["enqueued_at"] for state in evidence.history.get(call_id, ())}
        if len(inserted) != 1:
            yield f"{call_id}: starts that raced inserted {len(inserted)} rows"


# --- I11


def i11_nothing_is_left_open(evidence: Evidence) -> Iterator[str]:
    """No lease that has run out, nothing undelivered, no attempts beyond the limit, and each run is known."""
    for call_id, row in evidence.rows.items():
        if row["terminal_at"] is None and not may_come_again(row):
            yield f"{call_id} of {row['task']}: is still {row['status']}"
        if row["owned"] and row["losses"] > max(row["max_attempts"], 1):
            yield f"{call_id}: lost {row['losses']} workers, of {row['max_attempts']}"
        known = {row["attempt"], *(each["number"] for each in evidence.attempts.get(call_id, ()))}
        pids = {row["pid"], *(each["pid"] for each in evidence.attempts.get(call_id, ()))}
        # A purge takes the attempts along, also where it leaves a tombstone or a late copy comes back.
        is_emptied = row["removed_at"] is not None or call_id in evidence.purged
        for fact in () if is_emptied else evidence.began.get(call_id, ()):
            if (fact.more["attempt"] not in known) if row["owned"] else (fact.pid not in pids):
                yield f"{call_id} of {row['task']}: nothing is known of a run that began in {fact.pid}"


def may_come_again(row: Row) -> bool:
    """Whether its broker may yet deliver a call again whose run was interrupted: that takes minutes to know."""
    return not row["owned"] and row["acks_late"] and row["run_outcome"] == "interrupted"


# --- I12


def i12_what_was_rolled_back_never_was(evidence: Evidence) -> Iterator[str]:
    """A rolled-back transaction leaves no row and no run; what was committed ran, or has an end that says why not."""
    for fact in evidence.of("rolled back"):
        if fact.call in evidence.history or fact.call in evidence.began:
            yield f"{fact.call}: rolled back, and there"
    for call_id in evidence.accepted & set(evidence.owned()):
        last = evidence.history[call_id][-1]
        if not evidence.began.get(call_id) and last["status"] in OPEN | {"succeeded"}:
            yield f"{call_id}: committed, never run, and {last['status']}"


# --- I13


def i13_nothing_leaks(evidence: Evidence) -> Iterator[str]:
    """Connections and memory at the end as at the start, and nobody waited long for a lock."""
    for name in ("connections", "memory"):
        before, after = getattr(evidence.before, name), getattr(evidence.after, name)
        if after > math.ceil(before * GROWTH):
            yield f"{name}: {before} at the start, {after} at the end"
    for fact in evidence.of("waits"):
        if fact.more["seconds"] > LOCK_WAIT:
            yield f"a statement waited {fact.more['seconds']:.1f} s for a lock: {fact.more['query']}"


# --- I14


def i14_whoever_listens_is_told_of_each_end(evidence: Evidence) -> Iterator[str]:
    """`call_ended` was sent of every call that has ended, and said how; only a purge may have been faster."""
    told = {(fact.call, fact.more["status"]) for fact in evidence.of("heard")}
    for call_id, states in evidence.history.items():
        status = states[-1]["status"]
        if status not in OPEN and (call_id, status) not in told and call_id not in evidence.purged:
            yield f"{call_id}: {status}, and nobody was told"
    for told_of, said in told:
        if said not in {state["status"] for state in evidence.history.get(str(told_of), ())}:
            yield f"{told_of}: somebody was told {said}, and it never was"


INVARIANTS: Mapping[str, Callable[[Evidence], Iterator[str]]] = {
    "I0": i0_few_calls_were_refused,
    "I1": i1_each_accepted_call_ends_once_and_right,
    "I2": i2_no_end_ever_changes,
    "I3": i3_no_stale_holder_writes,
    "I6": i6_what_was_aborted_never_succeeds,
    "I9": i9_purges_take_only_what_may_go,
    "I10": i10_racing_starts_are_one_call,
    "I11": i11_nothing_is_left_open,
    "I12": i12_what_was_rolled_back_never_was,
    "I13": i13_nothing_leaks,
    "I14": i14_whoever_listens_is_told_of_each_end,
}


def violations(evidence: Evidence) -> dict[str, list[str]]:
    """Return what each invariant has against a run; those that hold are not named."""
    found = {name: sorted(check(evidence)) for name, check in INVARIANTS.items()}
    return {name: said for name, said in found.items() if said}
