"""The callers' rows, LRP-34 to LRP-43, over HTTP: real servers, and a real worker behind them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from lrp_celery import HttpProcedure
from lrp_celery.procedures.runtime import runtime_of
from tests.conformance import procedure_tasks
from tests.conformance.grounds import Ground, OverRows
from tests.conformance.procedure import ProcedureConformance
from tests.http.servers import served
from tests.integration.harness import Room, Workshop

_ROW = re.compile(r"test_lrp_(3[4-9]|4[0-3])_")
#: The rows about callers, of the suite that all grounds at home pass.
CallerRows: Any = type(
    "CallerRows",
    (),
    {name: each for name, each in vars(ProcedureConformance).items() if _ROW.match(name) or name in {"let_go", "run"}},
)


class OverHttp(OverRows):
    """The procedures are another service's; only this ground looks at its database."""

    def __init__(self, room: Room, base_url: str) -> None:
        headers = {"Authorization": "Bearer ada"}
        made: dict[str, Any] = {
            name: HttpProcedure(base_url, procedure_tasks.PREFIX + name, headers)
            for name in vars(procedure_tasks.declare(room.app))
        }
        store: Any = runtime_of(room.app).own
        super().__init__(SimpleNamespace(**made), room.folder, store)
        self._alias = room.alias

    def leave_thread(self) -> None:
        connections[self._alias].close()

    def close(self) -> None:
        for procedure in vars(self.procedures).values():
            procedure.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Workshop]:
    with contextlib.closing(Workshop(folder=tmp_path_factory.mktemp("rooms"), blocker=django_db_blocker)) as made:
        yield made


class Served(CallerRows):  # type: ignore[misc]  # made by type()
    server_name: ClassVar[str]
    database: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, workshop: Workshop) -> Iterator[Ground]:
        with contextlib.ExitStack() as stack:
            room = workshop.room("redis", cls.database, stack)
            room.worker(concurrency=3, tracking={"RESCUE_INTERVAL": 0.25})
            server = served(cls.server_name, room)
            stack.enter_context(room.entered(workshop.blocker))
            with contextlib.closing(OverHttp(room, server.base_url)) as ground:
                yield ground
            assert "Traceback" not in server.log()


@pytest.mark.integration
class TestRunserver(Served):
    server_name, database = "runserver", "sqlite"


@pytest.mark.integration
class TestGunicorn(Served):
    server_name, database = "gunicorn", "sqlite"


@pytest.mark.integration
@pytest.mark.services
class TestUvicorn(Served):
    server_name, database = "uvicorn", "postgres"
