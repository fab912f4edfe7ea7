"""What every store of owned calls promises, method by method.

A store joins by a class that inherits `CallStoreConformance`, says its `store_name`, and has
three fixtures: `store` (a store under test; others may share its database), `racers`, and
`leave` (what a thread does that has used the store and ends). Where many rows can be written
at once, it does so in `lay_down`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from lrp_celery.core.clock import ManualClock
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import NOT_FOR_RUNS, CallStore, OwningStore, Payload, WorkerFacts
from lrp_celery.tracking.decisions import FAILURES
from lrp_celery.tracking.news import Watch
from lrp_celery.tracking.owned import (
    AbortRequest,
    Care,
    Delivery,
    Note,
    Order,
    Retry,
    Settlement,
    Terms,
    Timing,
    Verdict,
    is_held,
)
from lrp_celery.tracking.record import AttemptOutcome, AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import CallFacts, Ended, Enqueued, ErrorFacts, NotRun, Outcome, RunFacts, Started
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import TERMINAL, CallStatus, Reason
from lrp_celery.tracking.steps import Merged
from tests.conformance.racing import ROUNDS, Move, Racers, crowd, move
from tests.conformance.tracking_store import forget_old_rows
from tests.tracking.lives import Life, assert_sound

#: How many at once.
CROWD = 8
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
#: So long ago that no other test's rows are as old.
PAST = datetime(2002, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)

MESSAGE = json.dumps({"args": [1, "\x00\ud800 \U0001f40d"], "headers": {"id": "x"}})
RESULT = json.dumps(["any\x00text", None, 1.5, "\udfff"])
ERROR = json.dumps({"type": "ValueError", "message": "bad"})
BAD = ErrorFacts(type="ValueError", message="bad", traceback="Traceback …")
DONE = Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result=RESULT)
FAILED = Settlement(outcome=Outcome(status=CallStatus.FAILED, error=BAD), error=ERROR)
ABORT = AbortRequest(reason="wrong month", by="ada")

every_end = pytest.mark.parametrize("end", sorted(TERMINAL))


def fresh_id(name: str = "owned") -> str:
    return f"{name}-{uuid.uuid4().hex}"


def order_of(call_id: str, message: str = MESSAGE, *, facts: dict[str, Any] | None = None, **terms: Any) -> Order:
    said = CallFacts(**{"task": "tasks.report", "queue": "slow", "target_summary": "(1)", **(facts or {})})
    return Order(call_id=call_id, facts=said, terms=Terms(**terms), message=message)


def delivery_of(
    call_id: str,
    token: str = "a",
    retries: int = 0,
    generation: int | None = 0,
    message: str | None = None,
    pid: int = 7,
) -> Delivery:
    run = RunFacts(token=token, worker=f"worker-{token}", pid=pid, acks_late=True)
    facts = CallFacts(task="tasks.report", queue="slow")
    return Delivery(
        call_id=call_id,
        turn=Turn(0, retries),
        generation=generation,
        facts=facts,
        terms=Terms(),
        run=run,
        message=message,
    )


def refuse(order: Order, record: CallRecord) -> None:
    """Object to whoever has the id already."""
    raise ZeroDivisionError


def timeless(record: CallRecord) -> dict[str, Any]:
    """Return what does not depend on when a call was made, nor on its id."""
    return {
        name: value is None if isinstance(value, datetime) else value
        for name, value in record.values().items()
        if name != "call_id"
    }


def for_runs(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a run may ask of its call's row, of the values of one."""
    return {name: value for name, value in values.items() if name not in NOT_FOR_RUNS}


def settlement_of(end: CallStatus) -> Settlement:
    if end is CallStatus.SUCCEEDED:
        return DONE
    return Settlement(outcome=Outcome(status=end, error=BAD), error=ERROR)


def new(store: OwningStore, **more: Any) -> str:
    call_id = fresh_id()
    assert store.insert(order_of(call_id, **more)) is not None
    return call_id


def held(store: OwningStore, token: str = "a", **more: Any) -> str:
    call_id = new(store, **more)
    assert store.claim(delivery_of(call_id, token)).verdict is Verdict.GRANTED
    return call_id


def ended(store: OwningStore, end: CallStatus = CallStatus.SUCCEEDED, **more: Any) -> str:
    call_id = held(store, **more)
    assert store.settle(call_id, "a", settlement_of(end)) is not None
    return call_id


def removed(store: OwningStore, **more: Any) -> str:
    call_id = ended(store, **more)
    assert store.remove(call_id)
    return call_id


def row(store: OwningStore, call_id: str) -> CallRecord:
    """The row as it lies in the store, whether readers see it or not."""
    record = store._find(call_id, None).record
    assert record is not None
    return record


def rewrite(store: OwningStore, call_id: str, **values: Any) -> CallRecord:
    """Pretend that something happened at another time: the store's clock cannot be set."""
    record = row(store, call_id)
    assert store._write(Merged(replace(record, **values)), record)
    return row(store, call_id)


def shift(store: OwningStore, call_id: str, by: timedelta) -> None:
    """Let `by` pass, for this call."""
    record = row(store, call_id)
    instants = {field.name: getattr(record, field.name) for field in fields(record)}
    rewrite(
        store,
        call_id,
        **{name: instant - by for name, instant in instants.items() if isinstance(instant, datetime)},
    )


def is_waiting(store: OwningStore, call_id: str) -> bool:
    """Whether somebody must look after the call now."""
    return call_id in store.due(100_000)


def listen(store: OwningStore, *watches: Watch) -> None:
    """Return when the store tells its watches of what they wait for, and has said that it does."""
    end = time.monotonic() + 10
    while not store.tells:
        assert time.monotonic() < end, "it does not tell"
        watches[0].wait(0.05)
    for watch in watches:
        while watch.wait(0.05):
            pass


class CallStoreConformance:
    """The suite."""

    store_name: ClassVar[str]
    #: Whether it can tell who waits that a call has ended.
    can_tell: ClassVar[bool] = False
    #: Rounds of a race that need not be the full count.
    rounds: ClassVar[int] = 100

    @pytest.fixture(autouse=True)
    def _nothing_old(self, store: OwningStore) -> None:
        forget_old_rows(store)

    def many(self, store: OwningStore, live: Callable[[Life], object], count: int = 0) -> list[str]:
        """Write as many calls as a race has rounds, each as it is after `live`, without the way to there."""
        life = Life()
        life.now = store._now()
        live(life)
        records = [replace(life.record, call_id=fresh_id(), version=0) for _ in range(count or self.rounds // 2)]
        self.lay_down(store, records, tuple(life.runs.values()), life.payload)
        return [record.call_id for record in records]

    def lay_down(
        self,
        store: OwningStore,
        records: Sequence[CallRecord],
        attempts: tuple[AttemptRecord, ...],
        payload: dict[str, str | None],
    ) -> None:
        for record in records:
            assert store._write(Merged(record, attempts, payload), None)

    def test_it_is_a_call_store(self, store: OwningStore) -> None:
        promised: CallStore = store
        names = [name for name in dir(CallStore) if not name.startswith("_")]
        assert len(names) > 20
        assert [name for name in names if not hasattr(promised, name)] == []
        assert store.timing == Timing()

    # --- insert ----------------------------------------------------------------------

    def test_insert_makes_the_row_with_its_message(self, store: OwningStore) -> None:
        call_id, before = fresh_id(), store._now()
        due_at = store._now() + timedelta(hours=1)
        inserted = store.insert(
            order_of(call_id, facts={"due_at": due_at}, timeout=90.5, time_to_live=3.5, grace=0.5, idempotent=True)
        )
        assert inserted is not None
        record = store.look(call_id)
        assert record is not None
        assert replace(inserted, version=record.version) == record
        assert (record.status, record.owned, record.generation, record.queue) == ("submitted", True, 0, "slow")
        assert (record.time_to_live, record.grace, record.idempotent, record.max_attempts) == (3.5, 0.5, True, 3)
        assert before <= record.enqueued_at <= store._now()
        assert record.deadline_at == record.attend_at == record.enqueued_at + timedelta(seconds=90.5)
        assert (record.due_at, record.send_at, record.published_at) == (due_at, due_at, None)
        assert store.payload(call_id) == Payload(message=MESSAGE)
        snapshot = store.get_status(call_id)
        assert snapshot is not None
        assert (snapshot.status, snapshot.deadline_at) == ("submitted", record.deadline_at)

    def test_insert_of_an_id_that_has_a_row_changes_nothing(self, store: OwningStore) -> None:
        for call_id in (new(store), held(store), ended(store)):
            before, kept = row(store, call_id), store.payload(call_id)
            assert store.insert(order_of(call_id, "another", timeout=1)) is None
            assert (row(store, call_id), store.payload(call_id)) == (before, kept)
        observed = fresh_id()
        assert store.record_enqueue(observed, "t")
        assert store.insert(order_of(observed)) is None
        assert not row(store, observed).owned

    def test_insert_gives_the_id_of_a_removed_or_expired_call_to_the_next_generation(self, store: OwningStore) -> None:
        gone = removed(store, time_to_live=100)
        expired = ended(store, CallStatus.FAILED, time_to_live=100)
        rewrite(store, expired, purge_at=store._now())
        for number, call_id in enumerate((gone, expired), 1):
            assert store.look(call_id) is None
            assert store.insert(order_of(call_id, f"{number}")) is not None
            record = store.look(call_id)
            assert record is not None
            assert (record.generation, record.status, record.runs) == (1, "submitted", 0)
            assert (record.removed_at, record.purge_at, record.terminal_at) == (None, None, None)
            assert store.payload(call_id) == Payload(message=f"{number}")
            assert store.attempts(call_id) == ()
            assert store.claim(delivery_of(call_id, "late", generation=0)).verdict is Verdict.STALE
            assert store.claim(delivery_of(call_id, "b", generation=1)).verdict is Verdict.GRANTED
            assert store.settle(call_id, "b", DONE)
            assert store.remove(call_id)
            assert store.insert(order_of(call_id)) is not None
            assert row(store, call_id).generation == 2

    @pytest.mark.parametrize("call_id", ["", "x" * 201, "nul\x00"])
    def test_what_cannot_be_an_id_is_refused(self, store: OwningStore, call_id: str) -> None:
        refused: list[Callable[[], object]] = [
            lambda: store.insert(order_of(call_id)),
            lambda: store.claim(delivery_of(call_id)),
            lambda: store.request_abort(call_id, ABORT),
            lambda: store.remove(call_id),
            lambda: store.look(call_id),
        ]
        for attempt in refused:
            with pytest.raises(ConfigurationError):
                attempt()

    def test_insert_all_makes_each_row_as_insert_does(self, store: OwningStore) -> None:
        one, ids = fresh_id(), [fresh_id() for _ in range(3)]
        later = store._now() + timedelta(hours=1)
        orders = [
            order_of(ids[0], timeout=60, time_to_live=5, idempotent=True),
            order_of(ids[1], message=RESULT, facts={"owner": "ada", "due_at": later}),
            order_of(ids[2], facts={"expires_at": later, "target_summary": None}),
        ]
        made = store.insert_all(orders, refuse)
        assert [record.call_id for record in made if record is not None] == ids
        for order, record in zip(orders, made, strict=True):
            assert store.look(order.call_id) == record
            assert store.payload(order.call_id) == Payload(message=order.message)
            single = store.insert(replace(order, call_id=f"{one}-{order.call_id}"))
            assert single is not None
            assert record is not None
            assert timeless(record) == timeless(single)
            if record.deadline_at is not None:
                assert record.deadline_at - record.enqueued_at == timedelta(seconds=60)

    def test_insert_all_says_which_ids_are_taken_and_by_which_call(self, store: OwningStore) -> None:
        known, gone, fresh = new(store), removed(store), fresh_id()
        told: dict[str, str] = {}

        def note(order: Order, record: CallRecord) -> None:
            told[order.call_id] = record.task

        made = store.insert_all([order_of(each) for each in (known, gone, fresh, fresh)], note)
        assert [None if record is None else record.generation for record in made] == [None, 1, 0, None]
        assert told == {known: "tasks.report", fresh: "tasks.report"}
        assert store.claim(delivery_of(gone, generation=1)).verdict is Verdict.GRANTED
        assert store.insert_all([], refuse) == []

    def test_insert_all_writes_nothing_if_a_taken_id_is_refused(self, store: OwningStore) -> None:
        known, others = new(store), [fresh_id(), fresh_id()]
        with pytest.raises(ZeroDivisionError):
            store.insert_all([order_of(each) for each in (others[0], known, others[1])], refuse)
        assert [store.look(each) for each in others] == [None, None]
        with pytest.raises(ConfigurationError):
            store.insert_all([order_of(others[0]), order_of("x" * 201)], refuse)
        assert store.look(others[0]) is None

    def test_none_sent_makes_messages_due_but_of_calls_that_have_begun(self, store: OwningStore) -> None:
        waiting, begun, over = [new(store), new(store)], held(store), ended(store)
        soon = new(store, facts={"due_at": store._now() + timedelta(seconds=30)})
        store.none_sent([*waiting, begun, over, soon, fresh_id()])
        assert {*waiting} <= {*store.due(10_000)}
        rows = {each: store.look(each) for each in (*waiting, begun, over, soon)}
        assert [row is not None and row.published_at is None for row in rows.values()] == [
            True,
            True,
            False,
            False,
            True,
        ]
        assert store.claim(delivery_of(waiting[0])).verdict is Verdict.GRANTED
        assert soon not in store.due(10_000)
        store.none_sent([])

    def test_rule_30_arguments_are_kept_with_the_row_that_is_made_and_never_later(self, store: OwningStore) -> None:
        alone, among, known, bare = (fresh_id() for _ in range(4))
        kept = '{"body": [[1], {"name": "\\u00fc\\u0000"}, {}]}'

        def asked(call_id: str, message: str | None = kept) -> Enqueued:
            return Enqueued(call_id=call_id, facts=CallFacts(task="tasks.report"), message=message)

        assert store.report(asked(known, None))
        assert store.report(asked(alone))
        assert not store.report(asked(alone, "another"))
        assert not store.report(asked(known))
        store.enqueue_all([asked(among), asked(known), asked(alone, "another"), asked(bare, None)])
        for call_id in (alone, among):
            payload = store.payload(call_id)
            assert payload is not None
            assert payload.message == kept
        for call_id in (known, bare):
            assert (store.payload(call_id) or Payload()).message is None
        row = store.look(alone)
        assert row is not None
        assert (row.status, row.owned, row.version) == ("submitted", False, 0)
        assert store.record_terminal(alone, "failed")
        assert (store.payload(alone) or Payload()).message == kept
        assert store.remove(alone)
        assert (store.payload(alone) or Payload()).message is None

    def test_enqueue_all_makes_the_rows_of_observed_calls_that_have_none(self, store: OwningStore) -> None:
        known, ids = new(store), [fresh_id("observed") for _ in range(3)]
        facts = [CallFacts(task="t", target_summary=str(number), root_id=ids[0]) for number in range(3)]
        reports = [Enqueued(call_id=each, facts=said) for each, said in zip(ids, facts, strict=True)]
        # Doubled, of a call that has a row, and of another turn.
        odd = [reports[0], Enqueued(call_id=known, facts=facts[0])]
        turned = Enqueued(call_id=fresh_id(), facts=facts[0], turn=Turn(1, 0))
        store.enqueue_all([*reports, *odd, turned])
        store.enqueue_all([])
        for each, said in zip(ids, facts, strict=True):
            row = store.look(each)
            assert row is not None
            assert (row.status, row.target_summary, row.root_id) == (CallStatus.SUBMITTED, said.target_summary, ids[0])
            assert (row.owned, row.published_at is not None, row.version) == (False, True, 0)
        untouched, other = store.look(known), store.look(turned.call_id)
        assert untouched is not None
        assert (untouched.owned, untouched.version) == (True, 0)
        assert other is not None
        assert (other.status, other.nesting) == (CallStatus.RETRYING, 1)

    def test_of_many_that_insert_one_id_at_once_exactly_one_does(
        self, store: OwningStore, leave: Callable[[], None]
    ) -> None:
        gone = self.many(store, is_removed, self.rounds // 10)
        ids = [*gone, *(fresh_id() for _ in gone)]
        sides = [[move("insert", order_of(call_id, f"{side}")) for call_id in ids] for side in range(CROWD)]
        for call_id, results in zip(ids, crowd(sides, store, leave), strict=True):
            winners = [side for side, result in enumerate(results) if isinstance(result, CallRecord)]
            assert len(winners) == 1, results
            assert [result for result in results if not isinstance(result, CallRecord)] == [None] * (CROWD - 1)
            assert store.payload(call_id) == Payload(message=f"{winners[0]}")
            assert row(store, call_id).generation == (1 if call_id in gone else 0)

    # --- claim -----------------------------------------------------------------------

    def test_claim_grants_a_free_call_and_refuses_all_others(self, store: OwningStore) -> None:
        call_id = new(store)
        before = store._now()
        claim = store.claim(delivery_of(call_id, "a"))
        record = store.look(call_id)
        assert record is not None
        assert claim.record is not None
        assert claim.verdict is Verdict.GRANTED
        assert for_runs(claim.record.values()) == for_runs(replace(record, version=claim.record.version).values())
        assert (record.status, record.run, record.worker, record.pid) == ("started", "a", "worker-a", 7)
        assert record.lease_until is not None
        assert before <= record.lease_until - timedelta(seconds=10) <= store._now()
        assert store.claim(delivery_of(call_id, "a")).verdict is Verdict.GRANTED
        assert store.claim(delivery_of(call_id, "b")).verdict is Verdict.HELD
        assert store.claim(delivery_of(fresh_id(), "b")).verdict is Verdict.STALE
        assert store.settle(call_id, "a", DONE)
        claim = store.claim(delivery_of(call_id, "b"))
        assert (claim.verdict, claim.record) == (Verdict.SETTLED, row(store, call_id))
        assert store.remove(call_id)
        assert store.claim(delivery_of(call_id, "b")).verdict is Verdict.STALE

    def test_a_delivery_that_a_second_process_gets_is_a_run_of_its_own_for_the_first_has_died(
        self, store: OwningStore
    ) -> None:
        once, again = new(store), new(store, idempotent=True)
        for call_id in (once, again):
            assert store.claim(delivery_of(call_id, "a")).verdict is Verdict.GRANTED
        assert store.claim(delivery_of(once, "a", pid=8)).verdict is Verdict.SETTLED
        lost = row(store, once)
        assert (lost.status, lost.reason, lost.pid) == ("failed", Reason.WORKER_LOST, 7)
        assert store.claim(delivery_of(again, "a", pid=8)).verdict is Verdict.GRANTED
        assert store.claim(delivery_of(again, "a", pid=8)).verdict is Verdict.GRANTED
        second = row(store, again)
        assert (second.status, second.run, second.pid, second.attempt) == ("started", "a", 8, 2)
        assert [(each.pid, each.outcome) for each in store.attempts(again)] == [(7, "interrupted")]
        assert store.settle(again, "a", DONE) is not None
        assert [(each.pid, each.outcome) for each in store.attempts(again)] == [(7, "interrupted")]

    def test_claim_makes_the_row_of_a_plain_publish_with_its_message(self, store: OwningStore) -> None:
        unknown, observed = fresh_id(), fresh_id()
        assert store.record_enqueue(observed, "tasks.report", "(1)")
        for call_id in (unknown, observed):
            assert store.claim(delivery_of(call_id, generation=None, message=MESSAGE)).verdict is Verdict.GRANTED
            assert store.payload(call_id) == Payload(message=MESSAGE)
            assert store.settle(call_id, "a", DONE)
            assert store.payload(call_id) == Payload(message=MESSAGE, result=RESULT)

    def test_claim_of_what_is_not_due_keeps_it_for_the_relay(self, store: OwningStore) -> None:
        call_id = new(store, facts={"due_at": store._now() + MINUTE})
        assert store.claim(delivery_of(call_id)).verdict is Verdict.EARLY
        record = row(store, call_id)
        assert (record.status, record.send_at) == ("submitted", record.due_at)

    def test_claim_takes_over_from_a_worker_that_is_gone(self, store: OwningStore) -> None:
        again, never = held(store, idempotent=True), held(store)
        shift(store, again, timedelta(seconds=11))
        shift(store, never, timedelta(seconds=29))
        assert store.claim(delivery_of(again, "b")).verdict is Verdict.GRANTED
        assert [(kept.run, kept.outcome) for kept in store.attempts(again)] == [("a", "interrupted")]
        assert store.settle(again, "a", DONE) is None
        assert store.claim(delivery_of(never, "b")).verdict is Verdict.HELD
        shift(store, never, timedelta(seconds=2))
        assert store.claim(delivery_of(never, "b")).verdict is Verdict.SETTLED
        assert (row(store, never).status, row(store, never).reason) == ("failed", "worker_lost")

    def test_of_many_that_claim_one_call_at_once_exactly_one_may_run(
        self, store: OwningStore, leave: Callable[[], None]
    ) -> None:
        made = self.many(store, is_waiting_for_a_worker, self.rounds // 10)
        calls = [*((call_id, 0) for call_id in made), *((fresh_id(), None) for _ in made)]
        sides = [
            [move("claim", delivery_of(call_id, f"run-{side}", 0, generation, "m")) for call_id, generation in calls]
            for side in range(CROWD)
        ]
        for (call_id, _), claims in zip(calls, crowd(sides, store, leave), strict=True):
            verdicts = [getattr(claim, "verdict", claim) for claim in claims]
            assert sorted(verdicts) == [Verdict.GRANTED] + [Verdict.HELD] * (CROWD - 1), verdicts
            record = row(store, call_id)
            assert record.run == f"run-{verdicts.index(Verdict.GRANTED)}"
            assert (record.runs, store.attempts(call_id)) == (1, ())

    # --- renew -----------------------------------------------------------------------

    def test_renew_extends_what_its_runs_hold_and_nothing_else(self, store: OwningStore) -> None:
        mine, lapsed, taken, over, waiting = held(store), held(store), held(store, "b"), ended(store), new(store)
        for call_id in (mine, lapsed, taken):
            shift(store, call_id, timedelta(seconds=6 if call_id != lapsed else 25))
        others = {call_id: row(store, call_id) for call_id in (taken, over, waiting)}
        before = store._now()
        renewed = store.renew((call_id, "a") for call_id in (mine, lapsed, taken, over, waiting, fresh_id()))
        assert renewed.keys() == {mine, lapsed}
        for call_id in (mine, lapsed):
            record = row(store, call_id)
            assert replace(renewed[call_id], version=record.version) == record
            assert record.lease_until is not None
            assert record.lease_until == record.attend_at
            assert before <= record.lease_until - timedelta(seconds=10) <= store._now()
            assert record.updated_at >= before
        assert {call_id: row(store, call_id) for call_id in others} == others
        assert store.renew([]) == {}

    def test_renew_tells_of_an_abort(self, store: OwningStore) -> None:
        call_id = held(store, grace=3)
        assert store.request_abort(call_id, ABORT)
        record = store.renew([(call_id, "a")])[call_id]
        assert (record.stop_reason, record.abort_reason) == (Reason.ABORTED, "wrong month")
        assert record.abort_requested_at is not None
        assert record.attend_at == record.abort_requested_at + timedelta(seconds=4)

    def test_renew_of_very_many(self, store: OwningStore) -> None:
        ids = [held(store) for _ in range(60)]
        assert store.renew((call_id, "a") for call_id in ids).keys() == set(ids)

    def test_renewing_and_settling_at_once_lose_nothing(self, store: OwningStore, racers: Racers) -> None:
        ids = self.many(store, is_running)
        results = racers.race(
            [move("renew", [(call_id, "a")]) for call_id in ids],
            [move("settle", call_id, "a", DONE) for call_id in ids],
        )
        for call_id, (renewed, settled) in zip(ids, results, strict=True):
            assert isinstance(settled, CallRecord)
            assert set(renewed) <= {call_id}
            assert self.consistent(store, call_id).status is CallStatus.SUCCEEDED

    # --- settle ----------------------------------------------------------------------

    @every_end
    def test_settle_ends_the_call_and_keeps_what_readers_get(self, store: OwningStore, end: CallStatus) -> None:
        call_id = held(store)
        settled = store.settle(call_id, "a", settlement_of(end))
        record = store.look(call_id)
        assert record is not None
        assert settled == replace(record, version=settled.version)  # type: ignore[union-attr]
        assert (record.status, record.run_outcome, record.attend_at) == (end, AttemptOutcome(end), None)
        is_good = end is CallStatus.SUCCEEDED
        expected = Payload(message=MESSAGE, result=RESULT) if is_good else Payload(message=MESSAGE, error=ERROR)
        assert store.payload(call_id) == expected
        assert [kept.outcome for kept in store.attempts(call_id)] == ([] if is_good else [AttemptOutcome(end)])

    def test_settle_by_a_run_that_does_not_hold_it_is_refused(self, store: OwningStore) -> None:
        assert store.settle(fresh_id(), "a", DONE) is None
        for call_id in (new(store), held(store, "b"), ended(store, CallStatus.FAILED)):
            before, kept = row(store, call_id), store.payload(call_id)
            assert store.settle(call_id, "a", DONE) is None
            assert (row(store, call_id), store.payload(call_id)) == (before, kept)

    def test_settle_may_be_repeated(self, store: OwningStore) -> None:
        call_id = held(store)
        first, again = store.settle(call_id, "a", DONE), store.settle(call_id, "a", DONE)
        assert first is not None
        assert again == replace(first, version=again.version if again else 0) == row(store, call_id)

    def test_settle_keeps_no_result_that_nobody_wants(self, store: OwningStore) -> None:
        assert store.payload(ended(store, keep_result=False)) == Payload(message=MESSAGE)

    def test_settle_takes_any_text(self, store: OwningStore) -> None:
        large = json.dumps("x\U0001f40d" * 20_000)
        call_id = held(store, message=large)
        assert store.settle(call_id, "a", Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result=large))
        assert store.payload(call_id) == Payload(message=large, result=large)

    # --- retry -----------------------------------------------------------------------

    def test_retry_gives_the_call_up_for_a_turn_with_its_own_message(self, store: OwningStore) -> None:
        call_id = held(store)
        due_at = store._now() + timedelta(seconds=3)
        wish = Retry(retries=1, due_at=due_at, message="m1", error=BAD)
        assert not store.retry(call_id, "b", wish)
        assert store.retry(call_id, "a", wish)
        record = row(store, call_id)
        assert (record.status, record.retries, record.run, record.due_at) == ("retrying", 1, None, due_at)
        assert store.payload(call_id) == Payload(message="m1")
        assert [(kept.run, kept.outcome, kept.error_type) for kept in store.attempts(call_id)] == [
            ("a", "retried", "ValueError")
        ]
        assert not store.retry(call_id, "a", wish)
        assert store.settle(call_id, "a", DONE) is None
        assert store.claim(delivery_of(call_id, "c", 0)).verdict is Verdict.STALE
        assert store.claim(delivery_of(call_id, "c", 1)).verdict is Verdict.GRANTED
        assert store.retry(call_id, "c", replace(wish, retries=2, message=None))
        assert store.payload(call_id) == Payload(message="m1")

    def test_retry_after_an_abort_request_ends_the_call(self, store: OwningStore) -> None:
        call_id = held(store)
        assert store.request_abort(call_id, ABORT)
        assert not store.retry(call_id, "a", Retry(retries=1, due_at=None, message="m1", error=BAD))
        assert (row(store, call_id).status, row(store, call_id).retries) == ("aborted", 0)
        assert store.payload(call_id) == Payload(message=MESSAGE)

    # --- request_abort, aborts -------------------------------------------------------

    def test_request_abort_ends_a_call_at_once_that_no_run_holds(self, store: OwningStore) -> None:
        call_id = new(store)
        record = store.request_abort(call_id, ABORT)
        assert record is not None
        assert (record.status, record.reason, record.abort_by) == ("aborted", "aborted", "ada")
        assert replace(record, version=1) == row(store, call_id)
        assert store.request_abort(call_id, ABORT) is None

    def test_request_abort_only_asks_a_run_and_only_once(self, store: OwningStore) -> None:
        call_id = held(store)
        record = store.request_abort(call_id, ABORT)
        assert record is not None
        assert (record.status, record.abort_reason) == ("started", "wrong month")
        assert store.request_abort(call_id, AbortRequest(reason="second")) is None
        assert row(store, call_id).abort_reason == "wrong month"
        assert store.settle(call_id, "a", FAILED)
        assert (row(store, call_id).status, store.payload(call_id)) == ("aborted", Payload(message=MESSAGE))

    def test_request_abort_of_what_is_not_there_or_has_ended_is_silent(self, store: OwningStore) -> None:
        assert store.request_abort(fresh_id(), ABORT) is None
        for call_id in (ended(store), removed(store)):
            before = row(store, call_id)
            assert store.request_abort(call_id, ABORT) is None
            assert row(store, call_id) == before

    def test_request_abort_notes_it_on_an_observed_call(self, store: OwningStore) -> None:
        call_id = fresh_id()
        assert store.record_enqueue(call_id, "t")
        record = store.request_abort(call_id, ABORT)
        assert record is not None
        assert (record.status, record.abort_by, record.attend_at) == ("submitted", "ada", None)

    def test_request_abort_takes_texts_that_databases_refuse(self, store: OwningStore) -> None:
        call_id = held(store)
        record = store.request_abort(call_id, AbortRequest(reason="why\x00\ud800" * 1000, by="b\x00" * 1000))
        assert record is not None
        assert replace(record, version=row(store, call_id).version) == row(store, call_id)
        assert record.abort_reason is not None
        assert record.abort_by is not None
        assert (len(record.abort_reason), len(record.abort_by)) == (2000, 255)

    def test_request_abort_by_force_may_follow_one_without(self, store: OwningStore) -> None:
        call_id, waiting = held(store), new(store)
        plain, forced = AbortRequest(reason="first"), AbortRequest(reason="second", force=True)
        assert store.request_abort(call_id, plain) is not None
        record = store.request_abort(call_id, forced)
        assert record is not None
        assert (record.abort_force, record.abort_reason, record.status) == (True, "first", "started")
        assert row(store, call_id).abort_force
        assert store.request_abort(call_id, forced) is None
        assert store.request_abort(waiting, forced) is not None
        assert row(store, waiting).status == "aborted"

    def test_revoked_names_the_open_observed_calls_whose_end_was_asked_for(self, store: OwningStore) -> None:
        first, second, over, untouched = (fresh_id() for _ in range(4))
        for call_id in (first, second, over, untouched):
            store.record_enqueue(call_id, "t")
        for call_id in (first, second, over):
            assert store.request_abort(call_id, AbortRequest()) is not None
        store.record_terminal(over, "discarded")
        procedures = held(store)
        store.request_abort(procedures, AbortRequest())
        named = [call_id for call_id in store.revoked(1000) if call_id in {first, second, over, untouched, procedures}]
        assert named == [second, first]
        assert len(store.revoked(1)) == 1

    def test_family_names_all_that_stem_from_a_call(self, store: OwningStore) -> None:
        root, stranger, gone = new(store), new(store), removed(store)
        child = new(store, facts={"root_id": root, "parent_id": root})
        over = ended(store, facts={"root_id": root, "parent_id": child})
        new(store, facts={"root_id": gone, "parent_id": gone})
        assert {(each.call_id, each.parent_id) for each in store.family(root, 100)} == {
            (root, None),
            (child, root),
            (over, child),
        }
        assert [each.call_id for each in store.family(stranger, 100)] == [stranger]
        assert len(store.family(root, 2)) == 2
        assert store.family(fresh_id(), 100) == []

    def test_family_follows_what_becomes_of_its_calls(self, store: OwningStore) -> None:
        root, other = new(store), new(store)
        ids = {name: new(store, facts={"root_id": root, "parent_id": root}) for name in ("again", "gone", "stays")}
        for name in ("again", "gone"):
            assert store.request_abort(ids[name], ABORT)
            assert store.remove(ids[name])
        assert {each.call_id for each in store.family(root, 100)} == {root, ids["stays"]}
        assert store.insert(order_of(ids["again"], facts={"root_id": other}))
        rewrite(store, ids["gone"], removed_at=store._now() - 2 * DAY)
        assert store.purge_terminal(PAST) == 1
        assert {each.call_id for each in store.family(root, 100)} == {root, ids["stays"]}
        assert {each.call_id for each in store.family(other, 100)} == {other, ids["again"]}

    def test_aborts_names_the_open_ones_whose_end_was_asked_for(self, store: OwningStore) -> None:
        asked, quiet, over = held(store), held(store), new(store)
        assert store.request_abort(asked, ABORT)
        assert store.request_abort(over, ABORT)
        found = store.aborts([asked, quiet, over, fresh_id()])
        assert [record.call_id for record in found] == [asked]
        assert found[0] == row(store, asked)
        assert list(store.aborts([])) == []

    # --- remove, look, payload -------------------------------------------------------

    @every_end
    def test_remove_lets_an_ended_call_read_as_absent(self, store: OwningStore, end: CallStatus) -> None:
        call_id = ended(store, end)
        before = store._now()
        assert store.remove(call_id)
        record = row(store, call_id)
        assert record.removed_at is not None
        assert before <= record.removed_at <= store._now()
        assert (record.status, record.target_summary, record.last_error) == (end, None, None)
        assert (store.look(call_id), store.get_status(call_id)) == (None, None)
        assert (store.payload(call_id), store.attempts(call_id)) == (None, ())
        assert store.remove(call_id)
        assert row(store, call_id) == record

    def test_remove_of_what_was_never_there_is_silent(self, store: OwningStore) -> None:
        assert store.remove(fresh_id())

    def test_remove_of_an_open_call_is_refused_or_kept_in_mind(self, store: OwningStore) -> None:
        for call_id in (new(store), held(store)):
            before = row(store, call_id)
            assert not store.remove(call_id)
            assert row(store, call_id) == before
            assert not store.remove(call_id, when_settled=True)
            assert store.look(call_id) is not None
        call_id = held(store)
        assert not store.remove(call_id, when_settled=True)
        assert store.settle(call_id, "a", FAILED)
        assert (store.look(call_id), store.payload(call_id), store.attempts(call_id)) == (None, None, ())
        assert store.remove(call_id, when_settled=True)

    @every_end
    def test_handle_marks_failures_once_and_nothing_else(self, store: OwningStore, end: CallStatus) -> None:
        call_id = ended(store, end)
        before, is_failure = row(store, call_id), end in FAILURES
        assert store.handle(call_id, "ada") is is_failure
        after = row(store, call_id)
        assert (after.handled_at is not None, after.handled_by) == (is_failure, "ada" if is_failure else None)
        assert replace(after, handled_at=None, handled_by=None, version=before.version) == before
        assert not store.handle(call_id, "eve")
        assert row(store, call_id) == after

    def test_handle_leaves_open_removed_and_unknown_calls_alone(self, store: OwningStore) -> None:
        for call_id in (new(store), held(store), removed(store), fresh_id()):
            assert not store.handle(call_id, "ada")

    def test_no_report_and_no_record_revives_a_removed_call(self, store: OwningStore) -> None:
        call_id = removed(store)
        before = row(store, call_id)
        facts = CallFacts(task="t")
        assert not store.report(Started(call_id=call_id, run=RunFacts(token="z"), facts=facts))
        assert not store.record_enqueue(call_id, "t")
        assert not store.record_attempt(call_id, "started", 1)
        assert not store.record_terminal(call_id, "failed")
        assert row(store, call_id) == before

    def test_a_call_past_its_time_to_live_reads_as_absent_although_no_purge_has_run(self, store: OwningStore) -> None:
        call_id = ended(store, time_to_live=60)
        record = row(store, call_id)
        assert record.terminal_at is not None
        assert record.purge_at == record.terminal_at + MINUTE
        assert store.look(call_id) == record
        rewrite(store, call_id, purge_at=store._now())
        assert (store.look(call_id), store.get_status(call_id)) == (None, None)
        assert store.claim(delivery_of(call_id, "b")).verdict is Verdict.STALE
        assert store.request_abort(call_id, ABORT) is None
        assert store.remove(call_id)
        assert store.payload(call_id) is None

    def test_an_open_call_never_reads_as_absent(self, store: OwningStore) -> None:
        call_id = held(store)
        rewrite(store, call_id, purge_at=PAST)
        assert store.look(call_id) is not None
        assert store.get_status(call_id) is not None

    def test_payload_of_an_unknown_call_is_none(self, store: OwningStore) -> None:
        assert store.payload(fresh_id()) is None
        observed = fresh_id()
        assert store.record_enqueue(observed, "t")
        assert store.payload(observed) is None
        assert store.look(observed) == row(store, observed)
        assert store.look(fresh_id()) is None

    def test_look_with_result_shows_what_a_call_ended_with(self, store: OwningStore) -> None:
        calls = {
            held(store): Payload(),
            ended(store): Payload(result=RESULT),
            ended(store, CallStatus.FAILED): Payload(error=ERROR),
            ended(store, keep_result=False): Payload(),
        }
        for call_id, expected in calls.items():
            assert store.look_with_result(call_id) == (row(store, call_id), expected)
        for absent in (fresh_id(), removed(store)):
            assert store.look_with_result(absent) is None
        with pytest.raises(ConfigurationError):
            store.look_with_result("")

    # --- due, attend -----------------------------------------------------------------

    def test_due_names_the_longest_overdue_first_and_no_more_than_asked_for(self, store: OwningStore) -> None:
        ids = [new(store) for _ in range(4)]
        later, observed, over, gone = new(store), fresh_id(), ended(store), removed(store)
        assert store.record_enqueue(observed, "t")
        for call_id, hours in zip(ids, (2, 4, 1, 3), strict=True):
            rewrite(store, call_id, attend_at=PAST + timedelta(hours=hours))
        expected = [ids[2], ids[0], ids[3], ids[1]]
        assert list(store.due(4)) == expected
        assert list(store.due(2)) == expected[:2]
        found = store.due(100_000)
        assert not {later, observed, over, gone} & set(found)
        for call_id in ids:
            assert store.request_abort(call_id, ABORT)
        assert not set(ids) & set(store.due(100_000))

    def test_due_follows_each_write(self, store: OwningStore) -> None:
        call_id = new(store)
        assert not is_waiting(store, call_id)
        shift(store, call_id, MINUTE)
        assert is_waiting(store, call_id)
        assert store.claim(delivery_of(call_id)).verdict is Verdict.GRANTED
        assert not is_waiting(store, call_id)
        shift(store, call_id, timedelta(seconds=11))
        assert is_waiting(store, call_id)
        assert store.renew([(call_id, "a")])
        assert not is_waiting(store, call_id)

    def test_attend_does_what_is_due(self, store: OwningStore) -> None:
        late, lost, again, expired = new(store, timeout=60), held(store), held(store, idempotent=True), fresh_id()
        assert store.insert(order_of(expired, facts={"expires_at": store._now() + MINUTE}))
        for call_id in (late, lost, again, expired):
            assert store.attend(call_id) is Care.NOTHING
            shift(store, call_id, MINUTE)
        assert [store.attend(call_id) for call_id in (late, lost, again, expired)] == [Care.NOTHING] * 4
        stands = [(row(store, call_id).status, row(store, call_id).reason) for call_id in (late, lost, again, expired)]
        assert stands == [
            ("aborted", "timeout"),
            ("failed", "worker_lost"),
            ("retrying", None),
            ("discarded", "expired"),
        ]
        assert store.attend(again) is Care.SEND
        assert store.attend(fresh_id()) is Care.NOTHING
        assert store.attend(late) is Care.NOTHING

    def test_attend_takes_proof_for_the_run_that_it_is_of(self, store: OwningStore) -> None:
        call_id = held(store)
        assert store.attend(call_id, is_dead=True, run="of before") is Care.NOTHING
        assert row(store, call_id).status is CallStatus.STARTED
        assert store.attend(call_id, is_dead=True, run="a") is Care.NOTHING
        assert row(store, call_id).reason is Reason.WORKER_LOST

    def test_attend_ends_a_run_that_is_deaf(self, store: OwningStore) -> None:
        call_id = held(store, timeout=60, grace=2)
        shift(store, call_id, MINUTE)
        assert store.renew([(call_id, "a")])
        store.attend(call_id)
        assert row(store, call_id).stop_reason is Reason.TIMEOUT
        shift(store, call_id, timedelta(seconds=3))
        store.attend(call_id)
        assert (row(store, call_id).status, row(store, call_id).error_type) == ("aborted", "StillRunning")
        assert store.settle(call_id, "a", DONE) is None

    def test_due_names_those_of_one_app(self, store: OwningStore) -> None:
        mine, theirs, nobodys = fresh_id("app"), fresh_id("app"), new(store)
        calls = {app: [new(store, app=app) for _ in range(2)] for app in (mine, theirs)}
        for call_id in (*calls[mine], *calls[theirs], nobodys):
            shift(store, call_id, MINUTE)
        assert list(store.due(10, mine)) == calls[mine]
        assert list(store.due(1, theirs)) == calls[theirs][:1]
        assert {*calls[mine], *calls[theirs], nobodys} <= set(store.due(100_000))
        assert store.sending(calls[mine][0])
        assert list(store.due(10, mine)) == calls[mine][1:]
        assert list(store.due(10, fresh_id("app"))) == []

    # --- what a run says of itself, and who waits for it ---------------------------------

    def test_note_keeps_progress_and_lines_of_the_run_that_holds_the_call(self, store: OwningStore) -> None:
        call_id, before = held(store), store._now()
        progress = Progress(done=1, total=3, text="first \U0001f40d")
        assert store.note(call_id, "a", Note(progress=progress, lines=("one", "two")))
        assert store.note(call_id, "a", Note(lines=("three",)))
        assert not store.note(call_id, "b", Note(progress=Progress(done=2), lines=("four",)))
        assert not store.note(fresh_id(), "a", Note(lines=("four",)))
        assert row(store, call_id).progress == progress
        lines = store.log(call_id)
        assert [(line.number, line.text) for line in lines] == [(1, "one"), (2, "two"), (3, "three")]
        assert all(before <= line.at <= store._now() for line in lines)
        assert store.settle(call_id, "a", DONE)
        assert not store.note(call_id, "a", Note(lines=("four",)))
        assert len(store.log(call_id)) == 3
        assert list(store.log(fresh_id())) == []

    def test_what_a_call_has_logged_goes_with_it(self, store: OwningStore) -> None:
        gone, expired, purged = held(store), held(store, time_to_live=60), held(store)
        for call_id in (gone, expired, purged):
            assert store.note(call_id, "a", Note(lines=("one",)))
            assert store.settle(call_id, "a", DONE)
        assert store.remove(gone)
        assert list(store.log(gone)) == []
        rewrite(store, expired, purge_at=store._now())
        rewrite(store, purged, terminal_at=PAST)
        assert store.purge_terminal(PAST + TICK) == 1
        assert (list(store.log(expired)), list(store.log(purged))) == ([], [])

    def test_await_end_tells_whether_there_is_something_to_wait_for(self, store: OwningStore) -> None:
        call_id, asked = held(store), held(store)
        assert store.await_end(call_id)
        assert store.await_end(call_id)
        before = row(store, call_id)
        assert store.await_end(call_id)
        assert row(store, call_id).version == before.version, "who holds the row need not read it again"
        assert store.settle(call_id, "a", DONE)
        assert store.request_abort(asked, ABORT)
        for over in (call_id, asked, fresh_id(), removed(store)):
            assert not store.await_end(over)

    def test_watching_costs_nothing_and_what_it_tells_is_a_hint(self, store: OwningStore) -> None:
        call_id = held(store)
        with store.watching(call_id) as watch:
            assert store.await_end(call_id)
            assert store.settle(call_id, "a", DONE)
            assert not store.tells or watch.wait(5)

    @pytest.mark.parametrize("news", ["settle", "request_abort"])
    def test_who_waits_is_told_of_what_others_write(self, store: OwningStore, racers: Racers, news: str) -> None:
        call_id, other = held(store), held(store)
        with store.watching(call_id) as watch, store.watching(other) as of_other:
            if not self.can_tell:
                assert not store.tells
                return
            listen(store, watch, of_other)
            assert store.await_end(call_id)
            assert store.await_end(other)
            told = {"settle": move("settle", call_id, "a", DONE), "request_abort": abort(call_id)}
            racers.race([told[news]], [move("look", call_id)])
            assert watch.wait(5)
            assert not of_other.wait(0.05)

    # --- messages --------------------------------------------------------------------

    def test_sending_hands_out_the_message_once_for_each_time_it_is_due(self, store: OwningStore) -> None:
        call_id = new(store)
        assert store.sending(call_id) is None
        shift(store, call_id, MINUTE)
        before = store._now()
        sending = store.sending(call_id)
        assert sending is not None
        record, message = sending
        assert (record.sends, message) == (1, MESSAGE)
        assert replace(record, version=row(store, call_id).version) == row(store, call_id)
        assert record.published_at is not None
        assert record.published_at >= before
        assert store.sending(call_id) is None
        shift(store, call_id, MINUTE)
        assert store.claim(delivery_of(call_id)).verdict is Verdict.GRANTED
        assert store.sending(call_id) is None
        assert store.sending(fresh_id()) is None

    def test_of_two_that_send_at_once_one_does(self, store: OwningStore, racers: Racers) -> None:
        def is_due(life: Life) -> None:
            life.passes(-60).call()

        moves = [move("sending", call_id) for call_id in self.many(store, is_due)]
        for one, other in racers.race(moves, moves):
            assert (one is None) != (other is None)

    def test_resend_hands_out_the_message_although_it_is_not_due_to_be_sent_again(self, store: OwningStore) -> None:
        call_id = new(store)
        sending = store.resend(call_id)
        assert sending is not None
        assert (sending[0].sends, sending[1]) == (1, MESSAGE)
        assert not is_waiting(store, call_id)
        assert store.claim(delivery_of(call_id)).verdict is Verdict.GRANTED

    def test_resend_has_nothing_for_what_runs_has_ended_is_not_due_or_is_not_ours(self, store: OwningStore) -> None:
        later, observed = new(store), fresh_id()
        rewrite(store, later, due_at=store._now() + MINUTE)
        assert store.record_enqueue(observed, "t")
        for call_id in (later, observed, held(store), ended(store), removed(store), fresh_id()):
            before = store._find(call_id, None).record
            assert store.resend(call_id) is None
            assert store._find(call_id, None).record == before

    def test_put_off_lets_a_message_wait(self, store: OwningStore) -> None:
        call_id = new(store)
        store.put_off(call_id)
        shift(store, call_id, MINUTE)
        assert is_waiting(store, call_id)
        store.put_off(call_id)
        assert not is_waiting(store, call_id)
        assert row(store, call_id).sends == 0
        store.put_off(fresh_id())

    def test_not_sent_makes_a_message_due(self, store: OwningStore) -> None:
        call_id = new(store)
        store.not_sent(call_id)
        assert row(store, call_id).published_at is None
        assert store.sending(call_id) is not None
        store.not_sent(call_id)
        assert store.sending(call_id) is not None
        store.not_sent(fresh_id())
        running = held(store)
        before = row(store, running)
        store.not_sent(running)
        assert row(store, running) == before

    def test_is_overtaken_by_a_later_call_of_its_queue_that_was_started(self, store: OwningStore) -> None:
        queue = fresh_id("queue")
        facts = {"queue": queue}
        earlier = new(store, facts=facts)
        asked = new(store, facts=facts)

        def overtaken() -> bool:
            return store.is_overtaken(row(store, asked))

        assert not overtaken()
        assert store.claim(delivery_of(earlier)).verdict is Verdict.GRANTED
        assert not overtaken(), "that was before it"
        held(store, facts={"queue": fresh_id("queue")})
        assert not overtaken(), "that was another queue"
        later = new(store, facts=facts)
        assert not overtaken(), "that has not been started"
        assert store.claim(delivery_of(later)).verdict is Verdict.GRANTED
        assert overtaken()
        shift(store, asked, MINUTE)
        assert store.sending(asked) is not None
        assert not overtaken(), "that was before it was sent again"
        held(store, facts=facts)
        assert overtaken()
        assert store.settle(later, "a", DONE)
        assert overtaken()

    # --- workers ---------------------------------------------------------------------

    def test_workers_are_remembered_from_their_first_beat_to_their_goodbye(self, store: OwningStore) -> None:
        one, other = (
            WorkerFacts(boot_id=fresh_id("w"), name=f"{name}@host", host="host", pid=7, pool="prefork")
            for name in ("one", "other")
        )

        def seen() -> list[WorkerFacts]:
            return [worker for worker in store.workers() if worker.boot_id in {one.boot_id, other.boot_id}]

        before = store._now()
        store.beat(one)
        store.beat(other)
        assert [worker.boot_id for worker in seen()] == [other.boot_id, one.boot_id]
        first = seen()[1]
        assert first == replace(one, started_at=first.started_at, seen_at=first.seen_at)
        assert first.started_at is not None
        assert first.seen_at is not None
        assert before <= first.started_at <= first.seen_at <= store._now()
        store.beat(one)
        again = seen()[0]
        assert (again.boot_id, again.started_at) == (one.boot_id, first.started_at)
        assert again.seen_at is not None
        assert again.seen_at > first.seen_at
        store.forget_worker(one.boot_id)
        store.forget_worker(one.boot_id)
        assert [worker.boot_id for worker in seen()] == [other.boot_id]

    # --- purge -----------------------------------------------------------------------

    def test_the_purge_keeps_what_other_promises_keep(self, store: OwningStore) -> None:
        plain, kept, lives = ended(store), ended(store, until_removed=True), ended(store, time_to_live=10**7)
        waiting, observed = new(store), fresh_id()
        assert store.record_enqueue(observed, "t")
        assert store.record_terminal(observed, "failed")
        for call_id in (plain, kept, lives, observed):
            rewrite(store, call_id, terminal_at=PAST)
        rewrite(store, waiting, enqueued_at=PAST)
        assert store.purge_terminal(PAST + TICK) == 2
        assert [store.look(call_id) is None for call_id in (plain, observed, kept, lives, waiting)] == [
            *(True, True),
            *(False, False, False),
        ]
        assert (store.payload(plain), store.payload(kept)) == (None, Payload(message=MESSAGE, result=RESULT))
        assert store.insert(order_of(plain)) is not None
        assert row(store, plain).generation == 0

    def test_the_purge_empties_what_is_past_its_time_to_live_and_keeps_a_tombstone(self, store: OwningStore) -> None:
        call_id, still = ended(store, CallStatus.FAILED, time_to_live=60), ended(store, time_to_live=60)
        over = store._now()
        rewrite(store, call_id, purge_at=over)
        assert store.payload(call_id) is not None
        assert store.purge_terminal(PAST) == 0
        record = row(store, call_id)
        assert (record.removed_at, record.purge_at) == (over, None)
        assert (record.target_summary, record.last_error, record.error_type) == (None, None, None)
        assert (store.payload(call_id), store.attempts(call_id)) == (None, ())
        assert store.claim(delivery_of(call_id, "b")).verdict is Verdict.STALE
        assert row(store, still).purge_at is not None
        assert store.payload(still) is not None

    def test_the_purge_deletes_tombstones_that_have_served_their_time(self, store: OwningStore) -> None:
        fresh, served, kept = removed(store), removed(store), removed(store, until_removed=True)
        rewrite(store, served, removed_at=store._now() - DAY - timedelta(seconds=1))
        rewrite(store, kept, removed_at=store._now() - DAY - timedelta(seconds=1))
        rewrite(store, fresh, removed_at=store._now() - DAY + MINUTE)
        assert store.purge_terminal(PAST) == 2
        for call_id in (served, kept):
            assert store._find(call_id, None).record is None
        assert store.claim(delivery_of(fresh, "b", generation=None)).verdict is Verdict.STALE
        assert store.purge_terminal(PAST) == 0

    def test_a_new_call_is_safe_from_the_purge_of_its_tombstone(self, store: OwningStore, racers: Racers) -> None:
        ids = self.many(store, lambda life: is_removed(life.passes(-86_460)))
        moves = [move("insert", order_of(call_id, "new")) for call_id in ids]
        results = racers.race(moves, [move("purge_terminal", PAST) for _ in ids])
        assert all(isinstance(count, int) for _, count in results), results
        for call_id, (inserted, _) in zip(ids, results, strict=True):
            assert isinstance(inserted, CallRecord)
            record = store.look(call_id)
            assert record is not None
            assert record.status is CallStatus.SUBMITTED
            assert store.payload(call_id) == Payload(message="new")

    def test_a_new_call_is_safe_from_the_emptying_of_the_one_before(self, store: OwningStore, racers: Racers) -> None:
        # The first purge of a race empties all that there is, so it is few calls each time.
        for _ in range(self.rounds // 10):
            ids = self.many(store, lambda life: has_ended(life.passes(-60), time_to_live=60), 5)
            moves = [move("insert", order_of(call_id, "new")) for call_id in ids]
            for call_id, (inserted, purged) in zip(
                ids, racers.race(moves, [move("purge_terminal", PAST)] * len(ids)), strict=True
            ):
                assert isinstance(inserted, CallRecord), inserted
                assert isinstance(purged, int), purged
                record = store.look(call_id)
                assert record is not None
                assert (record.status, record.generation, record.target_summary) == ("submitted", 1, "(1)")
                assert store.payload(call_id) == Payload(message="new")

    # --- races of two: abort, claim, settle, timeout, remove ---------------------------

    def race(
        self,
        store: OwningStore,
        racers: Racers,
        live: Callable[[Life], object],
        one: Callable[[str], Move],
        other: Callable[[str], Move],
    ) -> list[tuple[CallRecord, Any, Any]]:
        """Let two moves meet on one call after the other; return each row, and what the moves gave."""
        ids = self.many(store, live, ROUNDS or self.rounds)
        results = racers.race([one(call_id) for call_id in ids], [other(call_id) for call_id in ids])
        for pair in results:
            assert not any(isinstance(result, Exception) for result in pair), pair
        return [(self.consistent(store, call_id), *pair) for call_id, pair in zip(ids, results, strict=True)]

    @staticmethod
    def consistent(store: OwningStore, call_id: str) -> CallRecord:
        """Return the row: it is sound, what is kept fits the outcome, and each run ended once."""
        record, kept = row(store, call_id), store.payload(call_id)
        assert_sound(record)
        attempts = store.attempts(call_id)
        assert len({attempt.number for attempt in attempts}) == len(attempts)
        if record.removed_at is not None:
            assert (kept, attempts) == (None, ())
            return record
        assert kept is not None
        assert kept.message is not None
        assert (kept.result is not None) == (record.status is CallStatus.SUCCEEDED)
        assert (kept.error is not None) == (record.status is CallStatus.FAILED and record.reason is None)
        return record

    def test_race_of_abort_and_claim(self, store: OwningStore, racers: Racers) -> None:
        for record, aborted, claimed in self.race(store, racers, is_waiting_for_a_worker, abort, claim):
            assert isinstance(aborted, CallRecord)
            if claimed.verdict is Verdict.GRANTED:
                assert (record.status, aborted.status) == ("started", "started")
                assert record.stop_reason is Reason.ABORTED
            else:
                assert claimed.verdict is Verdict.SETTLED
                assert (record.status, record.runs) == ("aborted", 0)

    def test_race_of_abort_and_settle(self, store: OwningStore, racers: Racers) -> None:
        for record, aborted, settled in self.race(store, racers, is_running, abort, settle):
            assert isinstance(settled, CallRecord)
            assert record.status == ("failed" if aborted is None else "aborted")
            assert record.reason == (None if aborted is None else "aborted")

    def test_race_of_abort_and_timeout(self, store: OwningStore, racers: Racers) -> None:
        for record, aborted, _ in self.race(store, racers, is_too_late, abort, attend):
            assert record.status is CallStatus.ABORTED
            assert record.reason == ("timeout" if aborted is None else "aborted")

    def test_race_of_abort_and_remove(self, store: OwningStore, racers: Racers) -> None:
        for record, aborted, _ in self.race(store, racers, is_waiting_for_a_worker, abort, remove_when_settled):
            assert isinstance(aborted, CallRecord)
            assert record.status is CallStatus.ABORTED
            assert record.removed_at is not None

    def test_race_of_claim_and_settle(self, store: OwningStore, racers: Racers) -> None:
        def has_lapsed(life: Life) -> None:
            is_running(life.passes(-20), idempotent=True)

        for record, claimed, settled in self.race(store, racers, has_lapsed, claim, settle):
            assert (claimed.verdict is Verdict.GRANTED) == (settled is None)
            assert record.status == ("started" if settled is None else "failed")
            assert record.losses == (1 if settled is None else 0)

    def test_race_of_claim_and_timeout(self, store: OwningStore, racers: Racers) -> None:
        for record, claimed, _ in self.race(store, racers, is_too_late, claim, attend):
            assert claimed.verdict is Verdict.SETTLED
            assert (record.status, record.reason, record.runs) == ("aborted", "timeout", 0)
            assert record.version == 1, "one of the two wrote its end"

    def test_race_of_claim_and_remove(self, store: OwningStore, racers: Racers) -> None:
        for record, claimed, gone in self.race(store, racers, has_ended, claim, remove_when_settled):
            assert gone is True
            assert claimed.verdict in {Verdict.SETTLED, Verdict.STALE}
            assert record.removed_at is not None

    def test_race_of_settle_and_timeout(self, store: OwningStore, racers: Racers) -> None:
        def runs_too_long(life: Life) -> None:
            # However long a thousand rounds take, its lease is not what ends it.
            life.timing = Timing(lease=3600)
            is_running(life.passes(-5), timeout=5)

        for record, settled, _ in self.race(store, racers, runs_too_long, settle, attend):
            assert isinstance(settled, CallRecord)
            assert (record.status, record.reason) in {("failed", None), ("aborted", "timeout")}
            assert (record.abort_requested_at is None) == (record.status is CallStatus.FAILED)

    def test_race_of_settle_and_remove(self, store: OwningStore, racers: Racers) -> None:
        for record, settled, _ in self.race(store, racers, is_running, settle, remove_when_settled):
            assert isinstance(settled, CallRecord)
            assert record.status is CallStatus.FAILED
            assert record.removed_at is not None

    def test_race_of_timeout_and_remove(self, store: OwningStore, racers: Racers) -> None:
        for record, _, _ in self.race(store, racers, is_too_late, attend, remove_when_settled):
            assert (record.status, record.reason) == ("aborted", "timeout")
            assert record.removed_at is not None

    # --- everything at once: as in memory ----------------------------------------------

    @settings(
        max_examples=40,
        derandomize=True,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    @given(data=st.data())
    def test_whatever_happens_comes_to_the_same_as_in_memory(self, store: OwningStore, data: st.DataObject) -> None:
        call_id = fresh_id()
        memory = MemoryTrackingStore(ManualClock(store._now()))
        for number in range(data.draw(st.integers(1, 12))):
            step = data.draw(steps(call_id))
            note(f"{number}: {step.method} {step.args} {step.kwargs}")
            assert plain(step.on(store)) == plain(step.on(memory))
            assert untimed(store._find(call_id, None).record) == untimed(memory._find(call_id, None).record)
            assert store.payload(call_id) == memory.payload(call_id)
            kept = [untimed(attempt) for attempt in store.attempts(call_id)]
            assert kept == [untimed(attempt) for attempt in memory.attempts(call_id)]
            assert [untimed(line) for line in store.log(call_id)] == [untimed(line) for line in memory.log(call_id)]


# --- what a race begins with


def is_waiting_for_a_worker(life: Life) -> None:
    assert life.call()


def is_too_late(life: Life) -> None:
    assert life.passes(-5).call(timeout=5)


def is_running(life: Life, **terms: Any) -> None:
    assert life.call(**terms)
    assert life.claim("a") == "granted"


def has_ended(life: Life, **terms: Any) -> None:
    is_running(life, **terms)
    assert life.settle("a")


def is_removed(life: Life) -> None:
    has_ended(life)
    assert life.remove()


# --- what meets in it


def abort(call_id: str) -> Move:
    return move("request_abort", call_id, ABORT)


def claim(call_id: str) -> Move:
    return move("claim", delivery_of(call_id, "b"))


def settle(call_id: str) -> Move:
    return move("settle", call_id, "a", FAILED)


def attend(call_id: str) -> Move:
    return move("attend", call_id)


def remove_when_settled(call_id: str) -> Move:
    return move("remove", call_id, when_settled=True)


@st.composite
def steps(draw: st.DrawFn, call_id: str) -> Move:
    """Something that may happen to a call, and does not depend on the clock."""
    token = draw(st.sampled_from("ab"))
    retries = draw(st.integers(0, 2))
    end = draw(st.sampled_from(sorted(TERMINAL)))
    terms: dict[str, Any] = {
        "idempotent": draw(st.booleans()),
        "max_attempts": draw(st.integers(1, 3)),
        "keep_result": retries < 2,
    }
    run, outcome = RunFacts(token=token), Outcome(status=end, reason=Reason.REVOKED, error=BAD)
    return draw(
        st.sampled_from(
            [
                move("insert", order_of(call_id, f"message-{retries}", time_to_live=10**6, **terms)),
                move("insert", order_of(call_id, until_removed=True, **terms)),
                move("record_enqueue", call_id, "tasks.report"),
                move("claim", delivery_of(call_id, token, 0, 0)),
                move("claim", delivery_of(call_id, token, retries, draw(st.sampled_from([None, 0, 1])), "plain")),
                move("settle", call_id, token, settlement_of(end)),
                move("retry", call_id, token, Retry(retries=retries + 1, due_at=None, message=f"turn-{retries}")),
                move("request_abort", call_id, AbortRequest(reason=token, by=end)),
                move("remove", call_id, when_settled=draw(st.booleans())),
                move("attend", call_id, is_dead=True, run=draw(st.sampled_from([None, token]))),
                move("note", call_id, token, Note(progress=Progress(done=retries), lines=(token,) * retries)),
                move("await_end", call_id),
                move("sending", call_id),
                move("put_off", call_id),
                move("not_sent", call_id),
                move("renew", [(call_id, token)]),
                move("aborts", [call_id]),
                move("look", call_id),
                move("handle", call_id, token),
                move("resend", call_id),
                move("report", NotRun(call_id=call_id, turn=Turn(0, retries), outcome=outcome)),
                move("report", Ended(call_id=call_id, turn=None, run=run, outcome=outcome)),
                move("report", Started(call_id=call_id, run=run, facts=CallFacts(task="t"))),
            ]
        )
    )


def plain(result: Any) -> Any:
    """What a method gave, without what differs by store."""
    match result:
        case CallRecord():
            return untimed(result)
        case tuple() | list():
            return [plain(part) for part in result]
        case dict():
            return [plain(part) for part in result.values()]
    if hasattr(result, "verdict"):
        return result.verdict, for_runs(untimed(result.record) or {})
    return result


def untimed(record: Any) -> dict[str, Any] | None:
    """A row without when things were; but whether they have been."""
    if record is None:
        return None
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    held_now = {"is_held": is_held(record)} if isinstance(record, CallRecord) else {}
    # Rows as methods return them do not tell their next version.
    values.pop("version", None)
    return held_now | {name: isinstance(value, datetime) or value for name, value in values.items()}
