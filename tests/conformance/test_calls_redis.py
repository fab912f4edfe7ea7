"""The suite of owned calls on Redis, and what only Redis promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis

from lrp_celery.tracking import RedisTrackingStore
from lrp_celery.tracking.callstore import Payload, WorkerFacts
from lrp_celery.tracking.owned import Verdict
from tests.conformance.call_store import (
    ABORT,
    DAY,
    FAILED,
    MESSAGE,
    PAST,
    RESULT,
    CallStoreConformance,
    delivery_of,
    ended,
    fresh_id,
    held,
    new,
    removed,
    rewrite,
    row,
)
from tests.conformance.opening import open_redis
from tests.conformance.racing import ProcessRacers, Racers, process_racers

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def prefix(redis_prefix: str) -> str:
    """Keys of this module's own: the indexes are looked through."""
    return f"{redis_prefix}calls"


@pytest.fixture
def store(redis_url: str, prefix: str) -> Iterator[RedisTrackingStore]:
    store = RedisTrackingStore(redis_url, prefix=prefix)
    yield store
    store.close()


@pytest.fixture(scope="module")
def module_racers(redis_url: str, prefix: str) -> Iterator[ProcessRacers]:
    with process_racers(partial(open_redis, redis_url, prefix)) as racers:
        yield racers


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


class TestRedis(CallStoreConformance):
    store_name = "redis"

    @pytest.fixture
    def racers(self, module_racers: ProcessRacers) -> Racers:
        return module_racers

    @pytest.fixture
    def leave(self) -> Callable[[], None]:
        return lambda: None


def indexes_of(client: Any, prefix: str, call_id: str) -> set[str]:
    names = ("attend", "ended", "expiring", "removed")
    return {name for name in names if client.zscore(f"{prefix}:{name}", call_id) is not None}


def test_each_call_is_in_the_index_by_which_its_row_ends(store: RedisTrackingStore, client: Any, prefix: str) -> None:
    calls = {
        new(store): {"attend"},
        held(store): {"attend"},
        ended(store): {"ended"},
        ended(store, time_to_live=60): {"expiring"},
        ended(store, until_removed=True): set(),
        removed(store, time_to_live=60): {"removed"},
    }
    assert {call_id: indexes_of(client, prefix, call_id) for call_id in calls} == calls
    for call_id in calls:
        store.remove(call_id, when_settled=True)
        store.settle(call_id, "a", FAILED)
        store.request_abort(call_id, ABORT)
        assert indexes_of(client, prefix, call_id) == {"removed"}
        assert not client.exists(f"{prefix}:payload:{call_id}", f"{prefix}:runs:{call_id}")
        rewrite(store, call_id, removed_at=store._now() - 2 * DAY)
    assert store.purge_terminal(PAST) == len(calls)
    for call_id in calls:
        assert indexes_of(client, prefix, call_id) == set()
        assert not client.exists(f"{prefix}:call:{call_id}")


def test_no_key_ever_expires_by_itself(store: RedisTrackingStore, client: Any, prefix: str) -> None:
    held(store)
    ended(store)
    store.beat(WorkerFacts(boot_id=fresh_id(), name="w", host="h", pid=1, pool="solo"))
    keys = list(client.scan_iter(match=f"{prefix}:*"))
    assert len(keys) >= 8
    assert {client.ttl(key) for key in keys} == {-1}


def test_a_thousand_leases_are_renewed_in_a_handful_of_round_trips(
    store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [held(store) for _ in range(50)]
    sent = []
    connection = redis.Connection
    send = connection.send_packed_command

    def counted(self: Any, command: Any, **options: Any) -> Any:
        sent.append(command)
        return send(self, command, **options)

    monkeypatch.setattr(connection, "send_packed_command", counted)
    assert len(store.renew((call_id, "a") for call_id in ids)) == len(ids)
    assert len(sent) <= 4
    sent.clear()
    assert len(store.aborts(ids)) == 0
    assert len(sent) <= 2


def test_a_lease_that_meets_another_write_is_renewed_all_the_same(
    store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_id = held(store)
    write_all = store._write_all

    def overtaken(changes: Any) -> list[bool]:
        store.remove(call_id, when_settled=True)
        return write_all(changes)

    monkeypatch.setattr(store, "_write_all", overtaken)
    assert store.renew([(call_id, "a")])[call_id].remove_when_settled


def test_the_purge_forgets_workers_that_have_been_silent_for_a_day(
    store: RedisTrackingStore, client: Any, prefix: str
) -> None:
    silent, alive = fresh_id("w"), fresh_id("w")
    for boot_id in (silent, alive):
        store.beat(WorkerFacts(boot_id=boot_id, name="w", host="h", pid=1, pool="solo"))
    client.zincrby(f"{prefix}:seen", -(DAY + timedelta(seconds=1)) // timedelta(microseconds=1), silent)
    store.purge_terminal(PAST)
    assert not {worker.boot_id for worker in store.workers()} & {silent}
    assert not client.hexists(f"{prefix}:workers", silent)
    assert alive in {worker.boot_id for worker in store.workers()}


def test_more_calls_expire_than_fit_one_chunk(store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrp_celery.tracking.redis.CHUNK", 4)
    ids = [ended(store, time_to_live=60) for _ in range(9)]
    for call_id in ids:
        rewrite(store, call_id, purge_at=store._now())
    store.purge_terminal(PAST)
    assert all(row(store, call_id).removed_at is not None for call_id in ids)


def test_what_a_later_version_of_the_library_wrote_is_read_as_far_as_it_is_known(
    store: RedisTrackingStore, client: Any, prefix: str
) -> None:
    call_id, boot_id = ended(store), fresh_id("w")
    client.hset(f"{prefix}:payload:{call_id}", "invented_later", "1")
    assert store.payload(call_id) == Payload(message=MESSAGE, result=RESULT)
    store.beat(WorkerFacts(boot_id=boot_id, name="w", host="h", pid=1, pool="solo"))
    facts = json.loads(client.hget(f"{prefix}:workers", boot_id))
    client.hset(f"{prefix}:workers", boot_id, json.dumps({**facts, "invented_later": 1}))
    assert boot_id in {worker.boot_id for worker in store.workers()}


def test_a_row_that_was_written_before_there_were_owned_calls_is_understood(
    store: RedisTrackingStore, client: Any, prefix: str
) -> None:
    call_id = fresh_id()
    assert store.record_enqueue(call_id, "t")
    key = f"{prefix}:call:{call_id}"
    record = json.loads(client.hget(key, "record"))
    old = {name: record[name] for name in ("call_id", "task", "status", "enqueued_at", "updated_at")}
    client.hset(key, "record", json.dumps(old))
    assert store.claim(delivery_of(call_id, generation=None, message="m")).verdict is Verdict.GRANTED
