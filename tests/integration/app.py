"""The Celery app: workers and beats find `app` here, tests make their own to publish from."""

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery, signals

#: Celery's settings as JSON, and a file to be made when the process is ready.
SETTINGS = "LRP_TEST_CELERY"
READY = "LRP_TEST_READY"


def make_app(settings: dict[str, Any], *, current: bool) -> Celery:
    """Return an app that has the tasks of `tests.integration.tasks`."""
    app = Celery("tests.integration", set_as_current=current)
    app.conf.update(settings)
    app.conf.imports = ("tests.integration.tasks",)
    return app


def _ready(**_: object) -> None:
    Path(os.environ[READY]).touch()


if SETTINGS in os.environ:
    app = make_app(json.loads(os.environ[SETTINGS]), current=True)
    signals.worker_ready.connect(_ready)
    signals.beat_init.connect(_ready)
