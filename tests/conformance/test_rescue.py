"""What every store answers to whoever looks for calls of which nothing more is heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_app.models import Call
from django_app.stores import DjangoTrackingStore
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import OwningStore
from lrp_celery.tracking.record import AttemptOutcome, CallRecord
from lrp_celery.tracking.reports import GivenUp, Outcome, RunFacts
from lrp_celery.tracking.rescue import Patience, Suspicion
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import Merged
from tests.conformance.call_store import fresh_id, held, new, rewrite, row
from tests.conformance.on_django import OnDjangosDatabase
from tests.conformance.on_redis import OnRedis
from tests.conformance.racing import Racers, ThreadRacers, move

#: So long ago that no other test's open rows are as old: what these tests look at comes first.
LONG_AGO = datetime(1999, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TICK, MINUTE, DAY = timedelta(microseconds=1), timedelta(minutes=1), timedelta(days=1)
PATIENCE = Patience.of(silent_after=86_400, lease=10, redelivery=3900)
BOOTS = ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
LOST = Outcome(status=CallStatus.DISCARDED, reason=Reason.LOST)


def token(boot_id: str) -> str:
    return f"{1:014x}-{boot_id}-4711-1"


class RescueConformance:
    """The suite. `stretch` is where the store keeps how many open calls it looks through at once."""

    store_name: ClassVar[str]
    stretch: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _no_open_rows(self, store: OwningStore) -> Iterator[None]:
        """Each test begins where nothing is as old as what it makes."""
        yield
        self._settle(store, LONG_AGO + 1000 * DAY)

    def _settle(self, store: OwningStore, before: datetime) -> None:
        suspicion = Suspicion(
            silent_before=before, expired_before=before, interrupted_before=before, gone=frozenset(BOOTS)
        )
        for record in [record for record in store._suspects(None, suspicion)[0] if record.enqueued_at < before]:
            ended = replace(record, status=CallStatus.DISCARDED, terminal_at=LONG_AGO)
            assert store._write(Merged(ended), record)

    def call(self, store: OwningStore, **values: Any) -> str:
        """Make an open observed call whose row says just this."""
        record = CallRecord(
            **{
                "call_id": fresh_id("rescue"),
                "task": "t",
                "enqueued_at": LONG_AGO,
                "updated_at": store._now(),
                **values,
            }
        )
        assert store._write(Merged(record), None)
        return record.call_id

    def suspects(self, store: OwningStore, after: datetime | None = None, gone: Sequence[str] = ()) -> set[str]:
        return {record.call_id for record in store.suspects(after, PATIENCE, gone).records}

    def test_suspects_are_open_observed_calls_of_which_nothing_is_heard(self, store: OwningStore) -> None:
        now = store._now()
        old, soon = now - DAY - MINUTE, now + MINUTE
        interrupted = {"status": CallStatus.RETRYING, "run": token(BOOTS[0]), "run_outcome": AttemptOutcome.INTERRUPTED}
        running = {"status": CallStatus.STARTED, "run": token(BOOTS[0])}
        expected = [
            self.call(store, updated_at=old),
            self.call(store, updated_at=old, due_at=old),
            self.call(store, updated_at=old, **running),
            self.call(store, expires_at=now - MINUTE),
            self.call(store, updated_at=now - timedelta(hours=2), acks_late=True, **interrupted),
        ]
        others = [
            self.call(store),
            self.call(store, updated_at=old, due_at=soon),
            self.call(store, expires_at=now - timedelta(seconds=20)),
            self.call(store, expires_at=now - MINUTE, **running),
            self.call(store, updated_at=now - MINUTE, **interrupted),
            self.call(store, updated_at=old, status=CallStatus.FAILED, terminal_at=old),
        ]
        owned = [new(store), held(store)]
        for call_id in owned:
            rewrite(store, call_id, updated_at=old, enqueued_at=LONG_AGO)
        found = self.suspects(store)
        assert found >= set(expected)
        assert not found & {*others, *owned}

    def test_suspects_are_those_of_workers_that_are_gone(self, store: OwningStore) -> None:
        first, second = (
            self.call(store, status=CallStatus.STARTED, run=token(boot_id), worker="w") for boot_id in BOOTS
        )
        cut = {"status": CallStatus.RETRYING, "run_outcome": AttemptOutcome.INTERRUPTED, "run": token(BOOTS[0])}
        early, late = (self.call(store, acks_late=acks_late, **cut) for acks_late in (False, True))
        waiting = self.call(store)
        known = {first, second, early, late, waiting}
        assert self.suspects(store) & known == set()
        assert self.suspects(store, gone=BOOTS[:1]) & known == {first, early}
        assert self.suspects(store, gone=BOOTS) & known == {first, second, early}

    def test_suspects_come_with_the_whole_row_and_the_time(self, store: OwningStore) -> None:
        before = store._now()
        call_id = self.call(store, expires_at=before - MINUTE, target_summary="x=1")
        found = store.suspects(None, PATIENCE, ())
        assert before <= found.now <= store._now()
        assert [record for record in found.records if record.call_id == call_id] == [row(store, call_id)]

    def test_stretches_reach_every_call_once_whatever_their_times(
        self, store: OwningStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(self.stretch, 3)
        past = store._now() - MINUTE
        times = [LONG_AGO + number * TICK for number in (0, 0, 0, 0, 0, 1, 2, 3, 3, 4, 5, 6, 6)]
        ids = [self.call(store, enqueued_at=at, expires_at=past) for at in times]
        seen: list[str] = []
        after, turns = None, 0
        while turns == 0 or (after is not None and after < LONG_AGO + DAY):
            found = store.suspects(after, PATIENCE, ())
            seen += [record.call_id for record in found.records]
            assert found.until is None or after is None or found.until > after
            after, turns = found.until, turns + 1
        assert [sum(call_id == each for each in seen) for call_id in ids] == [1] * len(ids)
        assert 3 <= turns <= 5

    def test_a_call_that_has_ended_is_no_suspect_any_more(self, store: OwningStore) -> None:
        call_id = self.call(store, updated_at=store._now() - 2 * DAY)
        assert call_id in self.suspects(store)
        assert store.record_terminal(call_id, "discarded")
        assert call_id not in self.suspects(store)

    def test_conclude_merges_only_into_the_row_that_was_judged(self, store: OwningStore) -> None:
        call_id = self.call(store, status=CallStatus.STARTED, run=token(BOOTS[0]))
        judged = row(store, call_id)
        verdict = GivenUp(call_id=call_id, run=RunFacts(token=token(BOOTS[0])), outcome=LOST)
        rewrite(store, call_id, target_summary="somebody else wrote")
        assert not store.conclude(judged, verdict)
        assert row(store, call_id).status is CallStatus.STARTED
        before = store._now()
        assert store.conclude(row(store, call_id), verdict)
        ended = row(store, call_id)
        assert (ended.status, ended.reason) == (CallStatus.DISCARDED, Reason.LOST)
        assert ended.terminal_at is not None
        assert before <= ended.terminal_at <= store._now()
        assert [attempt.outcome for attempt in store.attempts(call_id)] == [AttemptOutcome.INTERRUPTED]
        assert not store.conclude(ended, verdict)

    def test_conclude_leaves_owned_calls_alone(self, store: OwningStore) -> None:
        for call_id, run in ((new(store), None), (held(store), RunFacts(token="a"))):
            before = row(store, call_id)
            assert not store.conclude(before, GivenUp(call_id=call_id, run=run, outcome=LOST))
            assert row(store, call_id) == before

    def test_two_rescuers_at_once_change_nothing_twice(self, store: OwningStore, racers: Racers) -> None:
        ids = [self.call(store, updated_at=LONG_AGO) for _ in range(50)]
        moves = [
            move("conclude", row(store, call_id), GivenUp(call_id=call_id, run=None, outcome=LOST)) for call_id in ids
        ]
        results = racers.race(moves, moves)
        assert all(sorted(pair) == [False, True] for pair in results), results
        assert {row(store, call_id).version for call_id in ids} == {1}

    @given(data=st.data())
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    def test_a_store_suspects_whom_the_rule_does(self, store: OwningStore, data: st.DataObject) -> None:
        instants = st.none() | st.integers(-1, 1).map(lambda ticks: LONG_AGO + ticks * TICK)
        call_id = self.call(
            store,
            updated_at=data.draw(instants) or LONG_AGO,
            due_at=data.draw(instants),
            expires_at=data.draw(instants),
            run=data.draw(st.sampled_from([None, "short", *map(token, BOOTS)])),
            run_outcome=data.draw(st.sampled_from([None, *AttemptOutcome])),
            acks_late=data.draw(st.booleans()),
            owned=data.draw(st.booleans()),
            enqueued_at=LONG_AGO - DAY,
        )
        shifts = [LONG_AGO + data.draw(st.integers(-1, 1)) * TICK for _ in range(3)]
        gone = frozenset(data.draw(st.sets(st.sampled_from(BOOTS))))
        suspicion = Suspicion(
            silent_before=shifts[0], expired_before=shifts[1], interrupted_before=shifts[2], gone=gone
        )
        record = row(store, call_id)
        found, _ = store._suspects(None, suspicion)
        assert (call_id in {each.call_id for each in found}) is suspicion.falls_on(record)
        ended = replace(record, status=CallStatus.DISCARDED, terminal_at=LONG_AGO)
        assert store._write(Merged(ended), record)


class TestMemory(RescueConformance):
    store_name = "memory"
    stretch = "lrp_celery.tracking.memory.STRETCH"

    @pytest.fixture
    def store(self) -> MemoryTrackingStore:
        return MemoryTrackingStore()

    @pytest.fixture
    def racers(self, store: MemoryTrackingStore) -> Racers:
        return ThreadRacers(store)


@pytest.mark.services
class TestRedis(OnRedis, RescueConformance):
    stretch = "lrp_celery.tracking.redis.CHUNK"


class OnDjango(OnDjangosDatabase, RescueConformance):
    stretch = "django_app.stores.suspects.STRETCH"

    def test_a_look_costs_two_statements_and_the_time(self, store: DjangoTrackingStore, alias: str) -> None:
        with CaptureQueriesContext(connections[alias]) as captured:
            store.suspects(None, PATIENCE, BOOTS)
        asked = [query["sql"] for query in captured if query["sql"].startswith("SELECT")]
        assert len(asked) <= 3, asked


class TestSQLite(OnDjango):
    store_name = "sqlite"


@pytest.mark.services
class TestPostgreSQL(OnDjango):
    store_name = "postgres"

    def test_a_stretch_is_found_by_the_index_of_open_calls(self, store: DjangoTrackingStore, alias: str) -> None:
        old = {
            "task": "t",
            "status": "succeeded",
            "enqueued_at": LONG_AGO,
            "updated_at": LONG_AGO,
            "terminal_at": LONG_AGO,
        }
        Call.objects.using(alias).bulk_create([Call(call_id=fresh_id(), **old) for _ in range(3000)])
        with connections[alias].cursor() as cursor:
            cursor.execute("ANALYZE lrp_celery_call")
        with CaptureQueriesContext(connections[alias]) as captured:
            store.suspects(LONG_AGO, PATIENCE, BOOTS)
        asked = [query["sql"] for query in captured if "enqueued_at" in query["sql"]]
        assert len(asked) == 2, asked
        for sql in asked:
            with connections[alias].cursor() as cursor:
                cursor.execute("SET enable_seqscan = off")
                cursor.execute("EXPLAIN " + sql)
                plan = "\n".join(line for (line,) in cursor.fetchall())
                cursor.execute("RESET enable_seqscan")
            assert "lrp_call_open" in plan, plan
        Call.objects.using(alias).filter(enqueued_at=LONG_AGO, status="succeeded").delete()


@pytest.mark.services
class TestMariaDB(OnDjango):
    store_name = "mysql"
