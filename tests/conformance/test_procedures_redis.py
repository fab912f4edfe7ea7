"""The suite of procedures without Django: over a store in Redis, in this process and with a real worker."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from lrp_celery.procedures.stores import RedisStore
from tests.conformance import plain_app
from tests.conformance.grounds import Ground, Local, OverRows, in_this_process
from tests.conformance.procedure import OverRowsConformance, ProcedureConformance
from tests.integration import truth
from tests.integration.harness import Process

pytestmark = pytest.mark.services

CONCURRENCY = 3


class TestLocal(ProcedureConformance):
    ground_name = "local-redis"

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, redis_url: str, redis_prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        store = RedisStore(redis_url, prefix=f"{redis_prefix}local")
        with in_this_process(tmp_path_factory) as folder:
            yield Local(store, folder)
        store.close()


@pytest.mark.integration
class TestRedis(OverRowsConformance):
    ground_name = "redis"

    @pytest.fixture(scope="class")
    @classmethod
    def ground(
        cls,
        redis_url: str,
        redis_prefix: str,
        celery_over_redis: dict[str, Any],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Ground]:
        folder = tmp_path_factory.mktemp("ground")
        settings = {**celery_over_redis, "task_default_queue": f"conformance-{secrets.token_hex(3)}"}
        terms: dict[str, Any] = {"settings": settings, "url": redis_url, "prefix": f"{redis_prefix}procedures"}
        environment = {
            plain_app.TERMS: json.dumps(terms),
            truth.FOLDER: str(folder),
            # Celery would set up Django where it sees this.
            "DJANGO_SETTINGS_MODULE": None,
        }
        arguments = ["worker", "--concurrency", str(CONCURRENCY), "--without-gossip", "--without-mingle"]
        worker = Process("w1", [*arguments, "--loglevel", "INFO"], environment, folder, plain_app.__name__)
        made = plain_app.make_app(**terms, current=False)
        try:
            worker.start()
            worker.wait_until_ready()
            ground = OverRows(made.procedures, folder, made.store)
            ground.processes = CONCURRENCY
            yield ground
            assert worker.complaints() == []
        finally:
            worker.stop()
            made.lrp.close()
            made.store.close()
            made.app.close()

    def test_the_worker_knows_no_django(self, ground: Ground) -> None:
        # Nor does its side process, which imports the same module: without it no timeout would pass.
        assert ground.ask(ground.procedures.knows_django) is False
