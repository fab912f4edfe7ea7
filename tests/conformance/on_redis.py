"""What the suites need to run on Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
import redis

from lrp_celery.tracking import RedisTrackingStore
from tests.conformance.opening import open_redis
from tests.conformance.racing import ProcessRacers, Racers, process_racers


class OnRedis:
    """Fixtures for the tests of a store."""

    store_name: ClassVar[str] = "redis"

    @pytest.fixture(scope="class")
    @classmethod
    def prefix(cls, redis_prefix: str) -> str:
        """Keys of this class's own: indexes are looked through."""
        return f"{redis_prefix}{uuid.uuid4().hex}"

    @pytest.fixture
    def store(self, redis_url: str, prefix: str) -> Iterator[RedisTrackingStore]:
        store = RedisTrackingStore(redis_url, prefix=prefix)
        yield store
        store.close()

    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[Any]:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def class_racers(cls, redis_url: str, prefix: str) -> Iterator[ProcessRacers]:
        with process_racers(partial(open_redis, redis_url, prefix)) as racers:
            yield racers

    @pytest.fixture
    def racers(self, class_racers: ProcessRacers) -> Racers:
        return class_racers

    @pytest.fixture
    def leave(self) -> Callable[[], None]:
        return lambda: None
