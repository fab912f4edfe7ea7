"""The tracking conformance suite on Redis, and what only Redis promises."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import redis

from lrp_celery.core.errors import ConfigurationError, StoreError
from lrp_celery.tracking import RedisTrackingStore
from tests.conformance.opening import open_redis
from tests.conformance.racing import ProcessRacers, Racers, process_racers
from tests.conformance.tracking_store import TrackingStoreConformance, ended_call, fresh_id, seen, some_call
from tests.services import PrivateServer

pytestmark = pytest.mark.services


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisTrackingStore]:
    store = RedisTrackingStore(redis_url, prefix=redis_prefix)
    yield store
    store.close()


@pytest.fixture(scope="module")
def module_racers(redis_url: str, redis_prefix: str) -> Iterator[ProcessRacers]:
    with process_racers(partial(open_redis, redis_url, redis_prefix)) as racers:
        yield racers


class TestRedis(TrackingStoreConformance):
    store_name = "redis"

    @pytest.fixture
    def racers(self, module_racers: ProcessRacers) -> Racers:
        return module_racers


def test_no_key_ever_expires_by_itself(store: RedisTrackingStore, redis_url: str, redis_prefix: str) -> None:
    some_call(store)
    failed = fresh_id()
    TrackingStoreConformance.run_and_fail(store, failed)
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(match=f"{redis_prefix}:*"))
        assert len(keys) >= 4
        assert {client.ttl(key) for key in keys} == {-1}


def test_every_key_carries_the_prefix(redis_url: str, redis_prefix: str) -> None:
    prefix = f"{redis_prefix}own"
    store = RedisTrackingStore(redis_url, prefix=prefix)
    call_id = fresh_id()
    TrackingStoreConformance.run_and_fail(store, call_id)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        keys = sorted(client.scan_iter(match=f"{prefix}:*"))
    assert keys == [f"{prefix}:begun", f"{prefix}:call:{call_id}", f"{prefix}:ended", f"{prefix}:runs:{call_id}"]
    assert RedisTrackingStore(redis_url, prefix=f"{redis_prefix}other").get_status(call_id) is None
    store.close()


def test_one_store_serves_many_threads(store: RedisTrackingStore) -> None:
    ids = [fresh_id("thread") for _ in range(8)]
    errors: list[BaseException] = []

    def live(call_id: str) -> None:
        try:
            for retries in range(20):
                store.record_enqueue(call_id, "t")
                assert store.record_attempt(call_id, "retrying", retries)
                assert seen(store, call_id).retries == retries
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=live, args=(call_id,)) for call_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_forked_child_uses_the_store_of_its_parent(redis_url: str, redis_prefix: str) -> None:
    # In a process of its own: this one has threads, and may not fork.
    source = """
import os, sys
from lrp_celery.tracking import RedisTrackingStore
store = RedisTrackingStore(sys.argv[1], prefix=sys.argv[2])
assert store.record_enqueue("parent-" + sys.argv[3], "t")
child = os.fork()
for number in range(200):
    name = ("child-%d-" if child == 0 else "parent-%d-") % number
    assert store.record_enqueue(name + sys.argv[3], name)
    assert store.get_status(name + sys.argv[3]).task == name
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    command = [sys.executable, "-c", source, redis_url, redis_prefix, fresh_id()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_it_recovers_when_the_server_comes_back(private_redis: PrivateServer) -> None:
    store = RedisTrackingStore(private_redis.url)
    assert store.record_enqueue("before", "t")
    private_redis.kill()
    for broken in (lambda: store.record_enqueue("x", "t"), lambda: store.get_status("x"), lambda: store.attempts("x")):
        with pytest.raises(StoreError):
            broken()
    private_redis.launch()
    # Also after its scripts are forgotten.
    assert store.record_enqueue("after", "t")
    assert store.record_terminal("after", "succeeded")
    store.close()


def test_its_errors_never_show_the_password(unused_port: int) -> None:
    store = RedisTrackingStore(f"redis://ada:s3cret@127.0.0.1:{unused_port}/3")
    with pytest.raises(StoreError) as caught:
        store.get_status("x")
    assert f"127.0.0.1:{unused_port}, database 3" in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r} {store!r}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("url", ["http://h", "redis://:s3/cret@h:1", "redis://:s3cret@h?colour=red", "s3cret"])
def test_a_url_that_cannot_be_read_is_refused_at_once_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisTrackingStore(url)
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_row_that_cannot_be_read_is_a_store_error(
    store: RedisTrackingStore, redis_url: str, redis_prefix: str
) -> None:
    call_id = ended_call(store)
    with redis.Redis.from_url(redis_url) as client:
        for broken in ("{", "[]", '{"call_id": "x"}', '{"status": "of a later version"}'):
            client.hset(f"{redis_prefix}:call:{call_id}", "record", broken)
            with pytest.raises(StoreError):
                store.get_status(call_id)


def test_a_row_of_a_later_version_of_the_library_is_read_as_far_as_it_is_known(
    store: RedisTrackingStore, redis_url: str, redis_prefix: str
) -> None:
    call_id = ended_call(store)
    before = seen(store, call_id)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        key = f"{redis_prefix}:call:{call_id}"
        text = client.hget(key, "record")
        assert isinstance(text, str)
        client.hset(key, "record", text.replace("{", '{"invented_later": [1, 2],', 1))
    assert seen(store, call_id) == before


@pytest.fixture
def unused_port() -> int:
    from tests.services.process import free_port

    return free_port()
