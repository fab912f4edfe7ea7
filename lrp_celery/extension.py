"""Tracking and procedures for one Celery app, without Django."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery

from lrp_celery.core.redaction import DEFAULT_REDACT, Redactor
from lrp_celery.procedures import runtime, workers
from lrp_celery.procedures.runtime import Limits, PlainRuntime
from lrp_celery.tracking import signals
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.recorder import SyncRecorder
from lrp_celery.tracking.selection import DEFAULT_EXCLUDE, Selection
from lrp_celery.tracking.tracking import Tracking, install, uninstall


class LrpCelery:
    """Tracks every call of `app` in `store`, from the moment it is made.

    Make it in the module that makes the app, so that publishers and workers both have it.
    `track` and `exclude` are patterns of task names, `redact` patterns of keys and
    parameters whose values are not shown. With Django use the app `django_app` instead.
    """

    def __init__(
        self,
        app: Celery,
        store: CallStore,
        *,
        track: Sequence[str] = ("*",),
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
        redact: Sequence[str] = DEFAULT_REDACT,
    ) -> None:
        self.app = app
        self.store = store
        tracking = Tracking(
            store=store,
            recorder=SyncRecorder(store),
            selection=Selection(tuple(track), tuple(exclude)),
            redactor=Redactor(redact),
        )
        install(lambda: tracking, app)
        standing = PlainRuntime(own=store, limits=Limits(), redactor=tracking.redactor)
        runtime.install(lambda: standing, app)
        signals.connect()
        workers.connect()

    def close(self) -> None:
        """Stop tracking the app."""
        uninstall(self.app)
        runtime.uninstall(self.app)
