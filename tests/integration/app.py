"""The Celery app: workers and beats find `app` here, tests make their own to publish from."""

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.worker.request import Request

from tests.conformance import procedure_tasks
from tests.integration import truth

#: Celery's settings as JSON, and a file to be made when the process is ready.
SETTINGS = "LRP_TEST_CELERY"
READY = "LRP_TEST_READY"


def make_app(settings: dict[str, Any], *, current: bool) -> Celery:
    """Return an app that has the tasks and procedures of this folder."""
    # Rooms share databases, but no broker: what one of them has to send is no business of another's.
    app = Celery(settings["task_default_queue"], set_as_current=current)
    app.conf.update(settings)
    app.conf.imports = ("tests.integration.tasks", "tests.integration.procedures", "tests.integration.hostile")
    return app


def _ready(**_: object) -> None:
    Path(os.environ[READY]).touch()


def _note_what_is_accepted() -> None:
    request: Any = Request
    on_accepted = request.on_accepted

    def accepted(self: Any, pid: int, time_accepted: float) -> None:
        on_accepted(self, pid, time_accepted)
        truth.accepted(self.id)

    request.on_accepted = accepted


if SETTINGS in os.environ:
    app = make_app(json.loads(os.environ[SETTINGS]), current=True)
    procedure_tasks.declare(app)
    signals.worker_ready.connect(_ready)
    signals.beat_init.connect(_ready)
    _note_what_is_accepted()
