"""Cells for scenarios, and rooms for tests that kill things."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from tests.integration.harness import Database, Room, Workshop, lost

_rooms = pytest.StashKey[list[Room]]()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Workshop]:
    """All rooms of this session."""
    made = Workshop(folder=tmp_path_factory.mktemp("rooms"), blocker=django_db_blocker)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cell(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Room]:
    """A room with a worker that other tests use, too. `on(...)` says which ones a test wants."""
    room = workshop.cell(request.param)
    complaints, lost_before = len(room.processes[0].complaints()), lost()
    room.expects_losses = False
    with _entered(room, request, workshop):
        yield room
        # Whatever the test still held: the worker is not its own.
        room.release(*{line.call_id for line in room.truth()})
    if not room.expects_losses:
        assert room.processes[0].complaints()[complaints:] == []
        assert lost() == lost_before


@pytest.fixture
def make_room(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Any]:
    """Makes the room that only this test uses: `make_room(broker, database, **settings)`."""
    with contextlib.ExitStack() as stack:

        def make(broker: str = "redis", database: str | Database = "postgres", **settings: Any) -> Room:
            room = workshop.room(broker, database, stack, **settings)
            stack.enter_context(_entered(room, request, workshop))
            stack.callback(room.verify)
            return room

        yield make


@contextlib.contextmanager
def _entered(room: Room, request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[None]:
    request.node.stash.setdefault(_rooms, []).append(room)
    room.script = f"{request.node.module.__name__}:{request.node.originalname}"
    with room.entered(workshop.blocker):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report: Any = yield
    if report.failed:
        for room in item.stash.get(_rooms, []):
            for process in room.processes:
                report.sections.append((f"log of {process.name} in {room.name}", process.log_end()))
    return report
