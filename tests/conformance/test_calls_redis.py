"""The suite of owned calls on Redis, and what only Redis promises."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery, _state

from lrp_celery import CallAborted, LrpCelery, procedure
from lrp_celery.tracking import RedisTrackingStore
from lrp_celery.tracking.callstore import Payload, WorkerFacts
from lrp_celery.tracking.owned import Verdict
from tests.conformance.call_store import (
    ABORT,
    DAY,
    DONE,
    FAILED,
    MESSAGE,
    PAST,
    RESULT,
    CallStoreConformance,
    delivery_of,
    ended,
    fresh_id,
    held,
    listen,
    new,
    order_of,
    removed,
    rewrite,
    row,
)
from tests.conformance.on_redis import OnRedis
from tests.conformance.racing import Racers, move
from tests.services import PrivateServer

pytestmark = pytest.mark.services


class TestRedis(OnRedis, CallStoreConformance):
    """The suite."""

    can_tell = True


def indexes_of(client: Any, prefix: str, call_id: str) -> set[str]:
    names = ("attend", "ended", "expiring", "removed", "open")
    return {name for name in names if client.zscore(f"{prefix}:{name}", call_id) is not None}


def until(holds: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)


class TestOnlyRedis(OnRedis):
    """What it promises besides."""

    def test_each_call_is_in_the_index_by_which_its_row_ends(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
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

    def test_no_key_ever_expires_by_itself(self, store: RedisTrackingStore, client: Any, prefix: str) -> None:
        held(store)
        ended(store)
        store.beat(WorkerFacts(boot_id=fresh_id(), name="w", host="h", pid=1, pool="solo"))
        keys = list(client.scan_iter(match=f"{prefix}:*"))
        assert len(keys) >= 8
        assert {client.ttl(key) for key in keys} == {-1}

    def test_a_thousand_leases_are_renewed_in_a_handful_of_round_trips(
        self, store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
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
        self, store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call_id = held(store)
        write_all = store._write_all

        def overtaken(changes: Any) -> list[bool]:
            store.remove(call_id, when_settled=True)
            return write_all(changes)

        monkeypatch.setattr(store, "_write_all", overtaken)
        assert store.renew([(call_id, "a")])[call_id].remove_when_settled

    def test_the_purge_forgets_workers_that_have_been_silent_for_a_day(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        silent, alive = fresh_id("w"), fresh_id("w")
        for boot_id in (silent, alive):
            store.beat(WorkerFacts(boot_id=boot_id, name="w", host="h", pid=1, pool="solo"))
        client.zincrby(f"{prefix}:seen", -(DAY + timedelta(seconds=1)) // timedelta(microseconds=1), silent)
        store.purge_terminal(PAST)
        assert not {worker.boot_id for worker in store.workers()} & {silent}
        assert not client.hexists(f"{prefix}:workers", silent)
        assert alive in {worker.boot_id for worker in store.workers()}

    def test_a_family_costs_a_call_without_one_nothing_and_ends_with_its_last_call(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        root = fresh_id()
        assert store.insert(order_of(root, facts={"root_id": root})) is not None
        ids = [ended(store, facts={"root_id": root, "parent_id": root}) for _ in range(3)]
        assert client.keys(f"{prefix}:family:*") == [f"{prefix}:family:{root}"]
        assert client.smembers(f"{prefix}:family:{root}") == set(ids)
        assert client.hget(f"{prefix}:call:{root}", "root") is None
        assert store.remove(ids[0])
        assert store.insert(order_of(ids[0])) is not None
        assert client.smembers(f"{prefix}:family:{root}") == set(ids[1:])
        for call_id in ids[1:]:
            rewrite(store, call_id, terminal_at=PAST)
        assert store.purge_terminal(PAST + DAY) == 2
        assert client.keys(f"{prefix}:family:*") == []

    def test_a_large_family_is_read_a_few_at_a_time(
        self, store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.redis.CHUNK", 4)
        root = new(store)
        ids = {new(store, facts={"root_id": root, "parent_id": root}) for _ in range(30)}
        assert {each.call_id for each in store.family(root, 100)} == {root, *ids}
        assert len(store.family(root, 10)) == 10

    def test_more_calls_expire_than_fit_one_chunk(
        self, store: RedisTrackingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.redis.CHUNK", 4)
        ids = [ended(store, time_to_live=60) for _ in range(9)]
        for call_id in ids:
            rewrite(store, call_id, purge_at=store._now())
        store.purge_terminal(PAST)
        assert all(row(store, call_id).removed_at is not None for call_id in ids)

    def test_what_a_later_version_of_the_library_wrote_is_read_as_far_as_it_is_known(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        call_id, boot_id = ended(store), fresh_id("w")
        client.hset(f"{prefix}:payload:{call_id}", "invented_later", "1")
        assert store.payload(call_id) == Payload(message=MESSAGE, result=RESULT)
        store.beat(WorkerFacts(boot_id=boot_id, name="w", host="h", pid=1, pool="solo"))
        facts = json.loads(client.hget(f"{prefix}:workers", boot_id))
        client.hset(f"{prefix}:workers", boot_id, json.dumps({**facts, "invented_later": 1}))
        assert boot_id in {worker.boot_id for worker in store.workers()}

    def test_a_row_that_was_written_before_there_were_owned_calls_is_understood(
        self, store: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        call_id = fresh_id()
        assert store.record_enqueue(call_id, "t")
        key = f"{prefix}:call:{call_id}"
        record = json.loads(client.hget(key, "record"))
        old = {name: record[name] for name in ("call_id", "task", "status", "enqueued_at", "updated_at")}
        client.hset(key, "record", json.dumps(old))
        assert store.claim(delivery_of(call_id, generation=None, message="m")).verdict is Verdict.GRANTED


app = Celery("told", broker="memory://", set_as_current=False)


@procedure
@app.task(name="tests.told.report")
def report() -> list[Any]:
    raise AssertionError("no worker runs it here")


@contextlib.contextmanager
def procedures_on(store: RedisTrackingStore) -> Iterator[None]:
    before = _state.get_current_app()
    lrp = LrpCelery(app, store=store)
    yield
    lrp.close()
    before.set_current()


class TestNews(OnRedis):
    """How the end of a call reaches who waits for it."""

    @pytest.fixture
    def name(self) -> str:
        """What the server is to call the connections of the store under test."""
        return fresh_id("waiter")

    @pytest.fixture
    def store(self, redis_url: str, prefix: str, name: str) -> Iterator[RedisTrackingStore]:
        store = RedisTrackingStore(f"{redis_url}?client_name={name}", prefix=prefix)
        yield store
        store.close()

    @pytest.fixture
    def other(self, redis_url: str, prefix: str) -> Iterator[RedisTrackingStore]:
        """A worker's store."""
        store = RedisTrackingStore(redis_url, prefix=prefix)
        yield store
        store.close()

    @pytest.fixture
    def procedures(self, store: RedisTrackingStore) -> Iterator[None]:
        with procedures_on(store):
            yield

    @pytest.fixture
    def waiters(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(4) as pool:
            yield pool

    @staticmethod
    def lines(client: Any, name: str) -> list[str]:
        """The connections on which somebody listens, by that name."""
        return [each["id"] for each in client.client_list(_type="pubsub") if each["name"] == name]

    @staticmethod
    def claimed(store: RedisTrackingStore) -> str:
        call_id = report.call()
        assert store.claim(delivery_of(call_id)).verdict is Verdict.GRANTED
        return call_id

    def is_awaited(self, client: Any, prefix: str, call_id: str) -> bool:
        return bool(client.hget(f"{prefix}:call:{call_id}", "awaited") == "1")

    def test_only_what_is_awaited_is_told(
        self,
        store: RedisTrackingStore,
        other: RedisTrackingStore,
        client: Any,
        prefix: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        told: list[str] = []
        asked, quiet = held(other), held(other)
        with store.watching(asked) as watch:
            listen(store, watch)
            monkeypatch.setattr(store.newsroom, "tell", told.append)
            assert store.await_end(asked)
            for call_id in (quiet, asked):
                assert other.settle(call_id, "a", DONE) is not None
            until(lambda: bool(told))
        assert told == [asked]
        assert not store.await_end(fresh_id("never"))
        assert client.keys(f"{prefix}:call:never*") == []

    @pytest.mark.usefixtures("procedures")
    def test_no_end_is_missed_whenever_it_comes(
        self, store: RedisTrackingStore, racers: Racers, waiters: ThreadPoolExecutor
    ) -> None:
        for number in range(60):
            call_id = self.claimed(store)
            result = waiters.submit(report.get_result, call_id, wait=20)
            threading.Event().wait(number / 1000)
            racers.race([move("settle", call_id, "a", DONE)], [move("look", call_id)])
            began = time.monotonic()
            assert result.result(20) == json.loads(RESULT)
            # Who is not told looks after two seconds.
            assert time.monotonic() - began < 1.5

    @pytest.mark.usefixtures("procedures")
    def test_an_abort_and_the_end_reach_those_who_hold_no_thread(
        self, store: RedisTrackingStore, other: RedisTrackingStore, client: Any, prefix: str
    ) -> None:
        ends, aborted = self.claimed(store), self.claimed(store)

        async def story() -> None:
            waits = [asyncio.create_task(report.aget_result(call_id, wait=20)) for call_id in (ends, aborted)]
            for call_id in (ends, aborted):
                await asyncio.to_thread(until, partial(self.is_awaited, client, prefix, call_id))
            began = time.monotonic()
            assert other.settle(ends, "a", DONE) is not None
            assert other.request_abort(aborted, ABORT) is not None
            assert await waits[0] == json.loads(RESULT)
            with pytest.raises(CallAborted, match="wrong month"):
                await waits[1]
            assert time.monotonic() - began < 1.5

        asyncio.run(story())

    @pytest.mark.usefixtures("procedures")
    def test_who_loses_his_line_gets_his_result_and_is_told_again_later(
        self,
        store: RedisTrackingStore,
        other: RedisTrackingStore,
        client: Any,
        prefix: str,
        name: str,
        waiters: ThreadPoolExecutor,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        call_id, second = self.claimed(store), self.claimed(store)
        results = [waiters.submit(report.get_result, each, wait=30) for each in (call_id, second)]
        until(lambda: all(self.is_awaited(client, prefix, each) for each in (call_id, second)))
        (line,) = self.lines(client, name)
        client.client_kill_filter(_id=line)
        began = time.monotonic()
        assert other.settle(call_id, "a", DONE) is not None
        assert results[0].result(20) == json.loads(RESULT)
        assert time.monotonic() - began < 2
        until(lambda: self.lines(client, name) not in ([], [line]))
        until(lambda: store.tells)
        began = time.monotonic()
        assert other.settle(second, "a", DONE) is not None
        assert results[1].result(20) == json.loads(RESULT)
        assert time.monotonic() - began < 1.5
        assert sum("does not tell" in message for message in caplog.messages) == 1

    def test_stores_of_different_prefixes_do_not_hear_each_other(
        self, store: RedisTrackingStore, redis_url: str, prefix: str
    ) -> None:
        stranger = RedisTrackingStore(redis_url, prefix=f"{prefix}x")
        call_id = held(store)
        assert stranger.insert(order_of(call_id)) is not None
        with store.watching(call_id) as watch, stranger.watching(call_id) as of_stranger:
            listen(store, watch)
            listen(stranger, of_stranger)
            assert store.await_end(call_id)
            assert stranger.await_end(call_id)
            assert store.settle(call_id, "a", DONE) is not None
            assert watch.wait(5)
            assert not of_stranger.wait(0.1)
        stranger.close()

    def test_a_line_that_nobody_needs_is_hung_up(
        self, store: RedisTrackingStore, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.news.TICK", 0.05)
        monkeypatch.setattr("lrp_celery.tracking.news.IDLE", 0.2)
        for _ in range(2):
            with store.watching("x") as watch:
                listen(store, watch)
                thread = store._listener._thread
                assert thread is not None
                assert len(self.lines(client, name)) == 1
            until(lambda: not store.tells and self.lines(client, name) == [])
            thread.join(5)
            assert not thread.is_alive()

    def test_closing_hangs_up_at_once_and_who_still_waits_looks_for_himself(
        self, store: RedisTrackingStore, client: Any, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            with store.watching("x") as watch:
                listen(store, watch)
                thread = store._listener._thread
                assert thread is not None
                store.close()
                assert watch.wait(2), "nobody will tell him from now on"
                thread.join(2)
                assert not thread.is_alive()
                assert not store.tells
                until(lambda: self.lines(client, name) == [])
            assert store.look("x") is None
        assert caplog.messages == []

    def test_a_line_on_which_nobody_answers_is_given_up(
        self, private_redis: PrivateServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.news.TICK", 0.05)
        monkeypatch.setattr("lrp_celery.tracking.news.RESPITE", 0.05)
        monkeypatch.setattr("lrp_celery.tracking.redis.TIMEOUT", 0.5)
        store = RedisTrackingStore(private_redis.url)
        with store.watching("x") as watch:
            listen(store, watch)
            for leave, come_back in (
                (private_redis.freeze, private_redis.thaw),
                (private_redis.kill, private_redis.launch),
            ):
                leave()
                until(lambda: not store.tells)
                come_back()
                until(lambda: store.tells)
            assert sum("does not tell" in message for message in caplog.messages) == 2
            listen(store, watch)
            assert store.insert(order_of("x")) is not None
            assert store.await_end("x")
            assert store.request_abort("x", ABORT) is not None
            assert watch.wait(5)
        store.close()

    @pytest.mark.parametrize("option", ["protocol=2", "protocol=3", "max_connections=1", "health_check_interval=1"])
    def test_silence_is_no_reason_to_hang_up(
        self, redis_url: str, prefix: str, option: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.news.TICK", 0.01)
        store = RedisTrackingStore(f"{redis_url}?{option}", prefix=prefix)
        call_id = held(store)
        with store.watching(call_id) as watch:
            listen(store, watch)
            thread = store._listener._thread
            assert not watch.wait(0.3)
            assert store.tells
            assert store._listener._thread is thread
            assert store.await_end(call_id)
            assert store.settle(call_id, "a", DONE) is not None
            assert watch.wait(5)
        store.close()

    def test_who_may_not_use_the_channel_settles_and_waits_all_the_same(
        self,
        private_redis: PrivateServer,
        waiters: ThreadPoolExecutor,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("lrp_celery.tracking.news.RESPITE", 0.05)
        with redis.Redis.from_url(private_redis.url) as admin:
            admin.execute_command("ACL", "SETUSER", "quiet", "on", ">pw", "~*", "+@all", "resetchannels")
        full = RedisTrackingStore(private_redis.url)
        quiet = RedisTrackingStore(private_redis.url.replace("redis://", "redis://quiet:pw@"))
        call_id, asked = held(full), held(full)
        with full.watching(call_id) as watch:
            listen(full, watch)
            for each in (call_id, asked):
                assert full.await_end(each)
            assert quiet.settle(call_id, "a", DONE) is not None
            assert quiet.request_abort(asked, ABORT) is not None
            assert quiet.payload(call_id) == Payload(message=MESSAGE, result=RESULT)
            assert not watch.wait(0.1)
        with procedures_on(quiet):
            call_id = self.claimed(quiet)
            result = waiters.submit(report.get_result, call_id, wait=20)
            until(lambda: "does not tell: NoPermissionError" in caplog.text)
            assert not quiet.tells
            assert full.settle(call_id, "a", DONE) is not None
            assert result.result(20) == json.loads(RESULT)
        full.close()
        quiet.close()

    def test_a_forked_child_is_told_on_a_line_of_its_own(self, redis_url: str, prefix: str) -> None:
        # In a process of its own: this one has threads, and may not fork.
        source = """
import os, sys
from lrp_celery.tracking import RedisTrackingStore
from tests.conformance.call_store import DONE, held, listen
store = RedisTrackingStore(sys.argv[1], prefix=sys.argv[2])
ids = [held(store) for _ in range(2)]
ready, done = os.pipe()
with store.watching(ids[0]) as watch:
    listen(store, watch)
    child = os.fork()
    if child == 0:
        assert not store.tells
        assert store.newsroom.is_empty
    with store.watching(ids[1]) as second:
        if child == 0:
            listen(store, second)
            assert store.await_end(ids[1])
            os.write(done, b".")
            assert second.wait(10)
        else:
            os.read(ready, 1)
            assert store.tells
            assert store.await_end(ids[0])
            assert not watch.wait(0)
            for call_id in ids:
                assert store.settle(call_id, "a", DONE)
            assert watch.wait(10)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.close()
"""
        command = [sys.executable, "-c", source, redis_url, prefix]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
        assert ran.returncode == 0, ran.stderr
