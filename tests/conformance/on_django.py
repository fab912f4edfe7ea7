"""What the suites need to run on a database of Django's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_app.stores import DjangoTrackingStore
from tests import services
from tests.conformance.opening import open_django
from tests.conformance.racing import ProcessRacers, Racers, process_racers


class OnDjangosDatabase:
    """Fixtures for the suite of a store; `alias` names a migrated database of Django's."""

    store_name: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def alias(cls, request: pytest.FixtureRequest) -> str:
        name: str = request.getfixturevalue(f"{cls.store_name}_alias")
        return name

    @pytest.fixture
    def store(self, alias: str, django_db_blocker: DjangoDbBlocker) -> Iterator[DjangoTrackingStore]:
        # Not the mark django_db: what it wraps a test in would hide what other connections see.
        with django_db_blocker.unblock():
            yield DjangoTrackingStore(using=alias)
            connections[alias].close()
            asyncio.run(_close(alias))

    @pytest.fixture(scope="class")
    @classmethod
    def class_racers(cls, alias: str) -> Iterator[ProcessRacers]:
        database: dict[str, Any] = connections.settings[alias]
        with process_racers(partial(open_django, services.as_environment(database))) as racers:
            yield racers

    @pytest.fixture
    def racers(self, class_racers: ProcessRacers) -> Racers:
        return class_racers


@sync_to_async
def _close(alias: str) -> None:
    """Close the connection of the thread in which the async twins ran."""
    connections[alias].close()
