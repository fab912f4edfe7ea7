"""The suite of procedures in one process: eager, with a worker in a thread, and without Celery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from lrp_celery import Caller, LrpCelery
from lrp_celery.procedures.stores import MemoryStore
from lrp_celery.tracking import MemoryTrackingStore
from tests.conformance.grounds import Eager, Ground, Local, OverRows, in_this_process, worker_in_thread
from tests.conformance.procedure import OverRowsConformance, ProcedureConformance
from tests.conformance.procedure_tasks import declare


class TestEager(OverRowsConformance):
    ground_name = "memory-eager"

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        app, store = Celery("eager", set_as_current=False), MemoryTrackingStore()
        app.conf.update(task_always_eager=True)
        lrp = LrpCelery(app, store=store)
        with in_this_process(tmp_path_factory) as folder:
            yield Eager(declare(app), folder, store)
        lrp.close()

    def test_lrp_36_a_caller_gets_what_has_settled_already(self, ground: Ground) -> None:
        give: Any = Caller(ground.procedures.give)
        fail: Any = Caller(ground.procedures.fail)
        assert give.call("x") == "x"
        with pytest.raises(KeyError):
            fail.call("KeyError", "x")


class TestThreads(OverRowsConformance):
    ground_name = "memory-threads"

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        app, store = Celery("threads", broker="memory://", set_as_current=False), MemoryTrackingStore()
        app.conf.update(
            broker_connection_retry_on_startup=True,
            task_default_queue="conformance",
            # In seconds: the transport has nobody who would tell.
            broker_transport_options={"polling_interval": 0.01},
        )
        lrp = LrpCelery(app, store=store)
        # A worker knows the tasks that there are when it starts.
        procedures = declare(app)
        with in_this_process(tmp_path_factory) as folder, worker_in_thread(app):
            yield OverRows(procedures, folder, store)
        lrp.close()


class TestLocal(ProcedureConformance):
    ground_name = "local-memory"

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        with in_this_process(tmp_path_factory) as folder:
            yield Local(MemoryStore(), folder)
