"""The item suite on every store, and what only one of them promises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_app.models import Call
from django_app.stores import DjangoStore, DjangoTrackingStore
from lrp_celery.core.clock import ManualClock
from lrp_celery.core.errors import NotDecodable, StoreError
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.rows import RowStore
from lrp_celery.procedures.stores import MemoryStore, Pending, RedisStore, Rejected, Resolved, Store, from_text, to_text
from lrp_celery.tracking import MemoryTrackingStore
from tests.conformance.call_store import held, new
from tests.conformance.item_store import ItemStoreConformance, fresh_id
from tests.services.process import free_port

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class TestMemory(ItemStoreConformance):
    store_name = "memory"

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestRows(ItemStoreConformance):
    """The view itself, on rows in memory."""

    @pytest.fixture
    def store(self) -> Store:
        return RowStore(MemoryTrackingStore())


@pytest.fixture
def redis_store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    made = RedisStore(redis_url, prefix=f"{redis_prefix}items")
    yield made
    made.close()


@pytest.mark.services
class TestRedis(ItemStoreConformance):
    store_name = "redis"

    @pytest.fixture
    def store(self, redis_store: RedisStore) -> Store:
        return redis_store


class OnDjango(ItemStoreConformance):
    @pytest.fixture
    def store(self, request: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker) -> Iterator[Store]:
        alias = request.getfixturevalue(f"{self.store_name}_alias")
        with django_db_blocker.unblock():
            yield DjangoStore(using=alias)
            connections[alias].close()


class TestSQLite(OnDjango):
    store_name = "sqlite"


@pytest.mark.services
class TestPostgreSQL(OnDjango):
    store_name = "postgres"


@pytest.mark.services
class TestMariaDB(OnDjango):
    store_name = "mysql"


# --- In memory


def test_lrp_33_in_memory_an_item_ends_at_its_very_instant() -> None:
    clock = ManualClock(NOW)
    store = MemoryStore(clock)
    store.set("x", Pending(), 60)
    clock.advance(timedelta(seconds=60) - timedelta(microseconds=1))
    assert store.get("x") == Pending()
    clock.advance(timedelta(microseconds=1))
    assert store.get("x") is None


def test_in_memory_what_nobody_asks_for_again_is_dropped_some_day() -> None:
    clock = ManualClock(NOW)
    store = MemoryStore(clock)
    store.set("kept", Resolved(1))
    for number in range(5000):
        store.set(f"call-{number}", Pending(), 1)
        clock.advance(timedelta(seconds=1))
    assert len(store._items) <= 1001
    assert store.get("kept") == Resolved(1)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '["settled"]', '["resolved"]', '["rejected", null]', '["pending", 1]']
)
def test_lrp_10_an_item_that_cannot_be_read_is_an_error_and_not_absent(text: str) -> None:
    with pytest.raises(NotDecodable):
        from_text(text)


def test_an_error_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    text = to_text(Rejected(StoredError(type="KeyError"))).replace("{", '{\\"later\\":1,', 1)
    assert from_text(text) == Rejected(StoredError(type="KeyError"))


# --- In Redis


@pytest.mark.services
def test_redis_holds_one_key_for_an_item_and_lets_it_expire(redis_store: RedisStore, redis_url: str) -> None:
    call_id = fresh_id()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        redis_store.set(call_id, Pending(), 60)
        (key,) = client.scan_iter(match=f"*{call_id}*")
        assert 0 < client.pttl(key) <= 60_000
        redis_store.set(call_id, Resolved(1))
        assert client.ttl(key) == -1
        redis_store.set(call_id, Resolved(1), 1e-6)
        assert client.pttl(key) <= 1


def test_redis_that_is_away_is_a_store_error_without_its_password() -> None:
    store = RedisStore(f"redis://ada:s3cret@127.0.0.1:{free_port()}/3")
    with pytest.raises(StoreError) as caught:
        store.get("x")
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


# --- As rows


def test_the_calls_of_procedures_are_items() -> None:
    calls = MemoryTrackingStore()
    store = RowStore(calls)
    call_id = held(calls)
    assert store.get(call_id) == Pending()
    store.set(call_id, Resolved([1]))
    record = calls.look(call_id)
    assert record is not None
    assert (record.status, record.lease_until, record.run_outcome) == ("succeeded", None, "succeeded")
    assert store.get(call_id) == Resolved([1])


def test_deleting_a_call_takes_it_from_its_run() -> None:
    calls = MemoryTrackingStore()
    waiting, running = new(calls), held(calls)
    for call_id in (waiting, running):
        RowStore(calls).delete(call_id)
        assert calls.look(call_id) is None
    assert calls.due(10) == []


def test_a_call_that_is_only_observed_is_no_item() -> None:
    calls = MemoryTrackingStore()
    calls.record_enqueue("x", "t")
    assert RowStore(calls).get("x") is None


def test_rule_33_setting_over_a_settled_item_makes_a_new_call() -> None:
    clock = ManualClock(NOW)
    calls = MemoryTrackingStore(clock)
    store = RowStore(calls)
    store.set("x", Resolved(1), 60)
    clock.advance(timedelta(seconds=5))
    store.set("x", Pending(), 30)
    record = calls.look("x")
    assert record is not None
    assert (record.generation, record.enqueued_at, record.status) == (1, clock.now(), "submitted")
    assert calls.payload("x") is None
    # Nobody reads it again: whoever looks after procedures ends it, and with that it is gone.
    clock.advance(timedelta(seconds=30))
    assert calls.due(10) == ["x"]
    calls.attend("x")
    assert (calls.look("x"), calls.due(10)) == (None, [])


def test_an_item_has_no_message_that_could_be_sent() -> None:
    clock = ManualClock(NOW)
    calls = MemoryTrackingStore(clock)
    RowStore(calls).set("x", Pending())
    clock.advance(timedelta(days=30))
    assert (calls.due(10), calls.sending("x")) == ([], None)


@pytest.mark.django_db(transaction=True)
def test_the_django_store_is_a_view_of_its_rows() -> None:
    store, call_id = DjangoStore(), fresh_id()
    store.set(call_id, Pending(), 60)
    row = Call.objects.get(pk=call_id)
    assert (row.owned, row.status, row.remove_when_settled) == (True, "submitted", True)
    store.set(call_id, Resolved({"a": 1}), 60)
    row.refresh_from_db()
    assert (row.status, row.payload.result) == ("succeeded", '{"a":1}')
    assert row.terminal_at is not None
    assert row.purge_at == row.terminal_at + timedelta(seconds=60)
    assert DjangoTrackingStore().look(call_id) is not None
