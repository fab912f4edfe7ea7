"""Each checker of chaos, shown a history that it must object to, and one that it must not."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos import ledger
from tests.chaos.invariants import INVARIANTS, Census, Evidence, beside, fates, refused_writes, violations
from tests.chaos.ledger import Fact
from tests.chaos.mayhem import DECK, schedule
from tests.chaos.work import right_value

START = datetime(2026, 1, 1, tzinfo=UTC)
CALM = Census(connections=6, memory=1000)


def at(seconds):
    return START + timedelta(seconds=seconds)


def fact(what, call="a", pid=7, **more):
    return Fact(what=what, call=call, pid=pid, at=at(1).timestamp(), more=more)


def state(status, call="a", *, attempt=1, reason=None, end=None, **more):
    made = dict.fromkeys(("worker", "pid", "last_error", "error_type", "http_status", "started_at", "removed_at"))
    made |= {"call_id": call, "status": status, "reason": reason, "retries": 0, "attempt": attempt}
    made["is_new"] = status == "submitted"
    return {**made, "enqueued_at": at(0), "terminal_at": None if end is None else at(end), **more}


def row(status="succeeded", *, task="again", **more):
    made = {"status": status, "task": f"tests.chaos.{task}", "terminal_at": at(2), "owned": True, "losses": 0}
    return {
        **made,
        "max_attempts": 3,
        "attempt": 1,
        "pid": 7,
        "acks_late": True,
        "run_outcome": None,
        "removed_at": None,
        **more,
    }


def wanted(task="again", call="a"):
    return [fact("wanted", call, task=f"tests.chaos.{task}", value=5), fact("accepted", call)]


def ran(call="a", attempt=1, retries=0, pid=7):
    facts = {"attempt": attempt, "retries": retries}
    return [fact("began", call, pid, **facts), fact("ended", call, pid, **facts, value=right_value(5))]


#: A call that went as it should.
LIFE = [state("submitted", attempt=0), state("started"), state("succeeded", end=2)]
#: What a late copy of its message makes of a plain task's call that has no row any more.
AGAIN = [LIFE[1] | {"pid": 8, "is_new": True}, LIFE[2] | {"pid": 8}]


def evidence(facts=None, states=LIFE, rows=None, told=None, **more):
    made = {"attempts": {}, "results": {"a": right_value(5)}, "deletions": [], "orphans": 0, "stored": {}}
    made |= {"before": CALM, "after": CALM, "states": states}
    facts = [*wanted(), *ran()] if facts is None else facts
    if told is None:
        told = [fact("heard", each["call_id"], status=each["status"]) for each in states if each["terminal_at"]]
    made |= {"facts": [*facts, *told]}
    return Evidence(**made | {"rows": {"a": row()} if rows is None else rows} | more)


def lost(task, fault="kill child", **more):
    end = state("failed", reason="worker_lost", end=2)
    harm = fact("froze", None) if fault == "froze" else fact("fault", None, kind=fault)
    return evidence(
        [*wanted(task), ran()[0], harm],
        [*LIFE[:2], end],
        {"a": row("failed", task=task, **more)},
    )


def aborted(task="stoppable", **more):
    return [*LIFE[:2], state("aborted", reason="aborted", end=2, **more)]


def deleted(task, *, end=2, gone=60):
    terminal_at = None if end is None else at(end)
    return {"call_id": "a", "task": f"tests.chaos.{task}", "terminal_at": terminal_at, "deleted_at": at(gone)}


def waiting(seconds):
    return fact("waits", None, seconds=seconds, query="UPDATE")


#: What holds, and what looks like a violation and is none.
RIGHT = {
    "a call that went as it should": evidence(),
    "nothing at all": evidence([], [], {}),
    "a call that nobody was told about, and that was never made": evidence(wanted()[:1], [], {}),
    "a call that nobody was told about, and that was made": evidence([*wanted()[:1], *ran()]),
    "one that is not idempotent was lost": lost("once"),
    "one that is not idempotent was frozen": lost("once", "froze"),
    "an idempotent one was lost too often": lost("again", losses=3),
    "one was lost, and ran again": evidence(
        [*wanted(), *ran(), *ran(attempt=2, pid=8)],
        [*LIFE[:2], state("started", attempt=2), state("succeeded", attempt=2, end=2)],
        {"a": row(attempt=2, pid=8, losses=1)},
        attempts={"a": [{"number": 1, "pid": 7}]},
    ),
    "one was aborted by request": evidence(
        [*wanted("stoppable"), ran()[0], fact("asked")], aborted(), {"a": row("aborted", task="stoppable")}
    ),
    "its purge waited": evidence(
        [*wanted("forgotten"), *ran()], rows={}, deletions=[deleted("forgotten", gone=6)], results={}
    ),
    "a purge has left its tombstone": evidence(
        [*wanted("brief"), ran()[0], *ran(attempt=2, pid=8)],
        [*LIFE[:2], state("succeeded", attempt=2, end=2)],
        {"a": row(task="brief", attempt=2, pid=8, losses=1, removed_at=at(3))},
        results={},
    ),
    "a late copy of its message ran after its purge": evidence(
        [*wanted("forgotten"), *ran(), *ran(pid=8)],
        [*LIFE, *AGAIN],
        {"a": row(task="forgotten", owned=False, pid=8)},
        deletions=[deleted("forgotten", gone=6)],
        results={},
    ),
    "it was told twice, for whoever told it was killed": evidence(
        told=[fact("heard", status="succeeded"), fact("heard", status="succeeded")]
    ),
    "it was purged before anybody could be told": evidence(
        [*wanted("forgotten"), *ran()], rows={}, told=[], deletions=[deleted("forgotten", gone=6)], results={}
    ),
    "its broker may deliver it again": evidence(
        wanted("late"),
        LIFE[:2],
        {"a": row("retrying", task="late", owned=False, terminal_at=None, run_outcome="interrupted")},
    ),
    "its caller could not reach the database, and its message was lost": evidence(
        [*wanted("early"), fact("fault", None, kind="cut database")], [], {}
    ),
    "its caller could not reach the database, and its worker not while it would be kept": evidence(
        [*wanted("forgotten"), *ran(), fact("fault", None, kind="restart database")], [], {}
    ),
    "one statement waited for a moment": evidence([*wanted(), *ran(), waiting(2.0)]),
}

#: Which invariants must object, and to what.
WRONG = {
    "nobody wanted it": ({"I1"}, evidence([])),
    "it was accepted, and is not there": ({"I1"}, evidence(wanted("early"), [], {})),
    "its caller could not reach the database, but it ran": (
        {"I1"},
        evidence([*wanted("early"), *ran(), fact("fault", None, kind="cut database")], [], {}),
    ),
    "a procedure's call was accepted without a database": (
        {"I1"},
        evidence([*wanted("again"), fact("fault", None, kind="cut database")], [], {}),
    ),
    "its row has gone, and no purge took it": ({"I1"}, evidence(rows={})),
    "an idempotent one was given up": ({"I1"}, lost("again", losses=1)),
    "it was refused": ({"I0"}, evidence([wanted()[0], fact("refused", error="OperationalError: no")], [], {})),
    "it was given up, and nothing had been killed": ({"I1"}, lost("once", "cut broker")),
    "it was given up, and something was to be frozen, but not yet": ({"I1"}, lost("once", "freeze worker")),
    "it was discarded": (
        {"I1"},
        evidence(states=[*LIFE[:2], state("discarded", reason="lost", end=2)], rows={"a": row("discarded")}),
    ),
    "nobody asked for its abort": (
        {"I1"},
        evidence([*wanted("stoppable"), ran()[0]], aborted(), {"a": row("aborted", task="stoppable")}),
    ),
    "it succeeded, and its body did not end": ({"I1"}, evidence([*wanted(), ran()[0]])),
    "it succeeded before its body had ended": (
        {"I1"},
        evidence(states=[*LIFE[:2], state("succeeded", end=0.5)]),
    ),
    "what always raises succeeded": ({"I1"}, evidence([*wanted("raises"), *ran()], rows={"a": row(task="raises")})),
    "its result is another one": ({"I1"}, evidence(results={"a": 3})),
    "its end changed": ({"I2"}, evidence(states=[*LIFE, state("succeeded", end=3)])),
    "a late copy of its message changed its end": (
        {"I2", "I11"},
        evidence(
            [*wanted("forgotten"), *ran(), *ran(pid=8)],
            [*LIFE, *AGAIN],
            {"a": row(task="forgotten", owned=False, pid=8)},
            results={},
        ),
    ),
    "somebody saw another end": ({"I2"}, evidence([*wanted(), *ran(), fact("saw", status="failed")])),
    "somebody got another result": ({"I2"}, evidence([*wanted(), *ran(), fact("got", value=3)])),
    "its fence fell": ({"I3"}, evidence(states=[LIFE[0], state("started", attempt=2), *LIFE[1:]])),
    "two runs had one fence": ({"I1", "I3"}, evidence([*wanted(), *ran(), *ran()])),
    "it is not idempotent, and began twice": (
        {"I3"},
        evidence(
            [*wanted("once"), ran()[0], *ran(attempt=2)],
            [*LIFE[:2], state("succeeded", attempt=2, end=2)],
            {"a": row(task="once", attempt=2)},
            attempts={"a": [{"number": 1, "pid": 7}]},
        ),
    ),
    "aborted, and then it succeeded": (
        {"I2", "I6"},
        evidence(states=[*LIFE[:2], state("aborted", reason="aborted", end=1), state("succeeded", end=2)]),
    ),
    "aborted before it was claimed, and it ran": (
        {"I6", "I11"},
        evidence(
            [*wanted("stoppable"), *ran(), fact("asked")],
            [LIFE[0], state("aborted", reason="aborted", attempt=0, end=2)],
            {"a": row("aborted", task="stoppable", attempt=0)},
        ),
    ),
    "an open row was purged": (
        {"I9"},
        evidence([*wanted("forgotten"), *ran()], rows={}, deletions=[deleted("forgotten", end=None)]),
    ),
    "a row was purged that is kept": ({"I9"}, evidence(rows={}, deletions=[deleted("again")])),
    "a row was purged too early": (
        {"I9"},
        evidence([*wanted("forgotten"), *ran()], rows={}, deletions=[deleted("forgotten", gone=3)]),
    ),
    "a tombstone was purged too early": (
        {"I9"},
        evidence([*wanted("brief"), *ran()], rows={}, deletions=[deleted("brief", gone=12)]),
    ),
    "a purge left something": ({"I9"}, evidence(orphans=1)),
    "starts that raced got two handles": ({"I10"}, evidence([*wanted(), *ran(), fact("raced", handles=["a", "b"])])),
    "starts that raced made two rows": (
        {"I10"},
        evidence(
            [*wanted(), *ran(), fact("raced", handles=["a"])],
            [state("submitted", attempt=0, enqueued_at=at(-1)), *LIFE],
        ),
    ),
    "a procedure's call is still open": (
        {"I11"},
        evidence(states=LIFE[:2], rows={"a": row("started", terminal_at=None)}),
    ),
    "it was lost more often than it may": ({"I11"}, evidence(rows={"a": row(losses=4)})),
    "nothing is known of a run": ({"I11"}, evidence([*wanted(), *ran(), ran(attempt=2)[0]])),
    "nothing is known of a plain task's run": (
        {"I11"},
        evidence([*wanted("early"), *ran(), ran(pid=8)[0]], rows={"a": row(task="early", owned=False)}),
    ),
    "it was rolled back, and is there": ({"I12"}, evidence([*wanted()[:1], *ran(), fact("rolled back")])),
    "it was rolled back, and ran": ({"I12"}, evidence([*wanted()[:1], ran()[0], fact("rolled back")], [], {})),
    "it was committed, and never ran": (
        {"I11", "I12"},
        evidence(wanted(), LIFE[:1], {"a": row("submitted", attempt=0, terminal_at=None)}),
    ),
    "connections were left": ({"I13"}, evidence(after=Census(connections=8, memory=1000))),
    "memory grew": ({"I13"}, evidence(after=Census(connections=6, memory=1101))),
    "nobody was told how it ended": ({"I14"}, evidence(told=[])),
    "it was told that it ended otherwise": (
        {"I14"},
        evidence(told=[fact("heard", status="succeeded"), fact("heard", status="failed")]),
    ),
    "a statement waited long for a lock": ({"I13"}, evidence([*wanted(), *ran(), waiting(5.5)])),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_violates_nothing(name):
    assert violations(RIGHT[name]) == {}


@pytest.mark.parametrize("name", WRONG)
def test_a_violation_is_seen_by_its_checker(name):
    expected, found = WRONG[name]
    assert violations(found).keys() == expected


def test_every_checker_objects_to_something():
    assert {name for expected, _ in WRONG.values() for name in expected} == INVARIANTS.keys()


def test_a_run_that_ends_when_its_call_is_no_longer_its_own_is_counted():
    assert refused_writes(evidence()) == 0
    assert refused_writes(RIGHT["one was lost, and ran again"]) == 1


def test_what_became_of_the_accepted_calls_is_counted_by_their_tasks():
    facts = [*wanted(), *ran(), *ran(attempt=2), *wanted(call="b"), *wanted("early", "c"), *ran("c"), *wanted()[:1]]
    assert fates(evidence(facts)) == {
        "tests.chaos.again": {"accepted": 2, "finished": 1, "finished twice": 1, "without an outcome": 1},
        "tests.chaos.early": {"accepted": 1, "finished": 1, "finished twice": 0, "without an outcome": 1},
    }


def test_what_others_say_of_the_same_calls_stands_beside_what_we_say():
    facts = [each for call in "abcd" for each in (*wanted("stored", call), *ran(call))] + wanted("stored", "e")
    states = [state("succeeded", call, end=2) for call in "abcd"] + [state("started", "e")]
    said = {"a": "SUCCESS", "b": "STARTED", "c": "FAILURE"}
    nothing = {"no row": 0, "left open": 0, "failed, though its body had ended": 0, "no word of its success": 0}
    assert beside(evidence(facts, states, stored=said)) == {
        "lrp_celery": {**nothing, "accepted": 5, "left open": 1},
        "django-celery-results": {
            "accepted": 5,
            "no row": 2,
            "left open": 1,
            "failed, though its body had ended": 1,
            "no word of its success": 3,
        },
    }


def test_the_same_seed_gives_the_same_schedule_in_which_every_fault_comes():
    first, second, other = (
        [blow for blow, _ in zip(schedule(seed, DECK), range(2 * len(DECK)), strict=False)] for seed in (1, 1, 2)
    )
    assert first == second != other
    assert sorted(blow.kind for blow in first) == sorted(2 * DECK)
    assert [blow.at for blow in first] == sorted(blow.at for blow in first)


def test_the_ledger_returns_what_was_written_and_no_torn_line(tmp_path):
    assert ledger.read(tmp_path) == []
    ledger.write("saw", "a", folder=tmp_path, status="started")
    ledger.write("fault", folder=tmp_path, kind="kill child")
    with (tmp_path / ledger.NAME).open("a") as file:
        file.write('{"what": "sa')
    found = ledger.read(tmp_path)
    assert [(each.what, each.call, dict(each.more)) for each in found] == [
        ("saw", "a", {"status": "started"}),
        ("fault", None, {"kind": "kill child"}),
    ]
    assert time.time() - 60 < found[0].at <= found[1].at <= time.time()
