"""The suite of procedures on Django's databases, each with a real worker on each broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_app.stores import DjangoTrackingStore
from lrp_celery.procedures.runtime import runtime_of
from tests.conformance.grounds import Ground, OverRows
from tests.conformance.procedure import OverRowsConformance
from tests.conformance.procedure_tasks import declare
from tests.integration.harness import Room, Workshop

CONCURRENCY = 3


class InRoom(OverRows):
    """This process publishes as any Django process would."""

    processes = CONCURRENCY

    def __init__(self, room: Room) -> None:
        store = runtime_of(room.app).own
        assert isinstance(store, DjangoTrackingStore)
        super().__init__(declare(room.app), room.folder, store)
        self._alias = room.alias

    def leave_thread(self) -> None:
        connections[self._alias].close()

    async def leave_loop(self) -> None:
        await sync_to_async(self._leave_for_good)()

    def _leave_for_good(self) -> None:
        """The thread of async twins outlives the room, and must not take the next one's database for this one's."""
        self.leave_thread()
        del connections[self._alias]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Workshop]:
    """Where the rooms of this module are made: those on one kind of database share it."""
    with contextlib.closing(Workshop(folder=tmp_path_factory.mktemp("rooms"), blocker=django_db_blocker)) as made:
        yield made


class OnDjango(OverRowsConformance):
    database: ClassVar[str]
    broker: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, workshop: Workshop) -> Iterator[Ground]:
        with contextlib.ExitStack() as stack:
            room = workshop.room(cls.broker, cls.database, stack)
            worker = room.worker(concurrency=CONCURRENCY, tracking={"RESCUE_INTERVAL": 0.25})
            stack.enter_context(room.entered(workshop.blocker))
            yield InRoom(room)
            assert worker.complaints() == []


@pytest.mark.integration
class TestSQLiteAndRedis(OnDjango):
    ground_name = "sqlite+redis"
    database, broker = "sqlite", "redis"


@pytest.mark.integration
@pytest.mark.services
class TestSQLiteAndRabbitMQ(OnDjango):
    ground_name = "sqlite+rabbitmq"
    database, broker = "sqlite", "rabbitmq"


@pytest.mark.integration
@pytest.mark.services
class TestPostgreSQLAndRedis(OnDjango):
    ground_name = "postgres+redis"
    database, broker = "postgres", "redis"


@pytest.mark.integration
@pytest.mark.services
class TestPostgreSQLAndRabbitMQ(OnDjango):
    ground_name = "postgres+rabbitmq"
    database, broker = "postgres", "rabbitmq"
