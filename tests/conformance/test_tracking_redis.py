"""The tracking conformance suite on Redis, and what only Redis promises."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from lrp_celery.core.errors import ConfigurationError, StoreError, StoreUnavailable
from lrp_celery.tracking import RedisTrackingStore
from lrp_celery.tracking.reports import CallFacts, RunFacts, Started, Told
from tests.conformance.on_redis import OnRedis
from tests.conformance.tracking_store import TrackingStoreConformance, ended_call, fresh_id, seen, some_call
from tests.services import PrivateServer

pytestmark = pytest.mark.services


class TestRedis(OnRedis, TrackingStoreConformance):
    """The suite."""


class TestOnlyRedis(OnRedis):
    """What it promises besides."""

    def test_no_key_ever_expires_by_itself(self, store: RedisTrackingStore, client: Any, prefix: str) -> None:
        some_call(store)
        failed = fresh_id()
        TrackingStoreConformance.run_and_fail(store, failed)
        keys = list(client.scan_iter(match=f"{prefix}:*"))
        assert len(keys) >= 4
        assert {client.ttl(key) for key in keys} == {-1}

    def test_every_key_carries_the_prefix(self, redis_url: str, client: Any, prefix: str) -> None:
        own = f"{prefix}own"
        store = RedisTrackingStore(redis_url, prefix=own)
        call_id = fresh_id()
        TrackingStoreConformance.run_and_fail(store, call_id)
        keys = sorted(client.scan_iter(match=f"{own}:*"))
        assert keys == [f"{own}:begun", f"{own}:call:{call_id}", f"{own}:ended", f"{own}:runs:{call_id}"]
        assert RedisTrackingStore(redis_url, prefix=f"{prefix}other").get_status(call_id) is None
        store.close()

    def test_one_store_serves_many_threads(self, store: RedisTrackingStore) -> None:
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

    def test_a_forked_child_uses_the_store_of_its_parent(self, redis_url: str, prefix: str) -> None:
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
        command = [sys.executable, "-c", source, redis_url, prefix, fresh_id()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr

    def test_a_row_that_cannot_be_read_is_a_store_error(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        call_id = ended_call(store)
        for broken in ("{", "[]", '{"call_id": "x"}', '{"status": "of a later version"}'):
            client.hset(f"{prefix}:call:{call_id}", "record", broken)
            with pytest.raises(StoreError):
                store.get_status(call_id)

    def test_a_row_of_a_later_version_of_the_library_is_read_as_far_as_it_is_known(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        call_id = ended_call(store)
        before = seen(store, call_id)
        key = f"{prefix}:call:{call_id}"
        text = client.hget(key, "record")
        assert isinstance(text, str)
        client.hset(key, "record", text.replace("{", '{"invented_later": [1, 2],', 1))
        assert seen(store, call_id) == before


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


@pytest.mark.parametrize(
    ("close", "reopen"),
    [
        ("CONFIG SET maxmemory 1 maxmemory-policy noeviction", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ],
    ids=["full", "a replica"],
)
def test_a_server_that_takes_no_writes_for_now_is_away(private_redis: PrivateServer, close: str, reopen: str) -> None:
    store, client = RedisTrackingStore(private_redis.url), Redis.from_url(private_redis.url)
    told = Told(Started(call_id="a", facts=CallFacts(task="t"), run=RunFacts(token="r")), timedelta())
    client.execute_command(*close.split())
    with pytest.raises(StoreUnavailable):
        store.report_many([told])
    client.execute_command(*reopen.split())
    assert not store.report_many([told])
    found = store.get_status("a")
    assert found is not None
    assert found.status == "started"
    store.close()
    client.close()


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


@pytest.fixture
def unused_port() -> int:
    from tests.services.process import free_port

    return free_port()
