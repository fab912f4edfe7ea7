"""Cells for scenarios, and rooms for tests that kill things."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from tests.integration.crashes import QUICK
from tests.integration.harness import Database, Room, Workshop, lost
from tests.services.process import own_folder

_rooms = pytest.StashKey[list[Room]]()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Workshop]:
    """All rooms of this session."""
    with contextlib.closing(Workshop(folder=tmp_path_factory.mktemp("rooms"), blocker=django_db_blocker)) as made:
        yield made


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


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Returns where the workers of this test keep their notices."""
    with own_folder("kills") as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield lambda: sorted(path.name for path in folder.glob("lrp-*"))


@pytest.fixture
def quick_room(make_room: Any, folders: object) -> Iterator[Any]:
    """Makes a room in which nothing waits for long, here and in its workers."""
    with contextlib.ExitStack() as stack:

        def make(*args: Any, **settings: Any) -> Room:
            room: Room = make_room(*args, **settings)
            stack.enter_context(override_settings(LRP_CELERY={"DATABASE": room.alias, **QUICK}))
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
