"""A Celery app whose calls are kept in Redis, without Django: the worker finds `app` here, tests make their own."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: What `make_app` takes, as JSON, and a file to be made when the worker is ready.
TERMS = "LRP_TEST_PLAIN_APP"
READY = "LRP_TEST_READY"

if TERMS in os.environ:
    # Celery and kombu import pieces of Django where they find them. A worker must do without:
    # from here on each import of it fails, also in the side process, which imports this module, too.
    sys.modules["django"] = sys.modules["django_app"] = None  # type: ignore[assignment]

from celery import Celery, signals  # noqa: E402 - only now is Django impossible

from lrp_celery import LrpCelery  # noqa: E402
from lrp_celery.tracking import RedisTrackingStore  # noqa: E402
from tests.conformance import procedure_tasks  # noqa: E402


def make_app(settings: dict[str, Any], url: str, prefix: str, *, current: bool) -> SimpleNamespace:
    """Return an app, its store and its procedures."""
    app = Celery("conformance", set_as_current=current)
    app.conf.update(settings)
    store = RedisTrackingStore(url, prefix=prefix)
    lrp = LrpCelery(app, store=store)
    return SimpleNamespace(app=app, lrp=lrp, store=store, procedures=procedure_tasks.declare(app))


if TERMS in os.environ:
    app = make_app(**json.loads(os.environ[TERMS]), current=True).app
    signals.worker_ready.connect(lambda **_: Path(os.environ[READY]).touch(), weak=False)
