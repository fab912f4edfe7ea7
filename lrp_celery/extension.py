"""Tracking and procedures for one Celery app, without Django."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from celery import Celery

from lrp_celery.core.durations import seconds
from lrp_celery.core.redaction import DEFAULT_REDACT, Redactor
from lrp_celery.procedures import runtime, workers
from lrp_celery.procedures.runtime import SILENT_AFTER, Limits, PlainRuntime
from lrp_celery.tracking import signals
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.recorder import SyncRecorder
from lrp_celery.tracking.selection import DEFAULT_EXCLUDE, Selection
from lrp_celery.tracking.spool.places import DEFAULT_SPOOL, SpoolTerms
from lrp_celery.tracking.spool.recorder import SpoolRecorder
from lrp_celery.tracking.tracking import Tracking, install, uninstall


class LrpCelery:
    """Tracks every call of `app` in `store`, from the moment it is made.

    Make it in the module that makes the app, so that publishers and workers both have it.
    `track` and `exclude` are patterns of task names, `redact` patterns of keys and
    parameters whose values are not shown. `payload` are patterns of tasks whose arguments are kept as they are, so that
    their calls can be run again; those of procedures always are. `spool` says where the processes of a worker keep what they
    report until its side process brings it to the store; None: each report is written in place.
    `silent_after` says after how long a call that nobody speaks of is given up. With Django use the app `django_app` instead.
    """

    def __init__(
        self,
        app: Celery,
        store: CallStore,
        *,
        track: Sequence[str] = ("*",),
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
        redact: Sequence[str] = DEFAULT_REDACT,
        payload: Sequence[str] = (),
        spool: SpoolTerms | None = DEFAULT_SPOOL,
        silent_after: timedelta | float = SILENT_AFTER,
    ) -> None:
        self.app = app
        self.store = store
        in_place = SyncRecorder(store)
        tracking = Tracking(
            store=store,
            recorder=in_place if spool is None else SpoolRecorder(in_place, lambda: store.place),
            selection=Selection(tuple(track), tuple(exclude)),
            kept=Selection(tuple(payload), ()),
            redactor=Redactor(redact),
            spool=spool,
        )
        install(lambda: tracking, app)
        standing = PlainRuntime(
            own=store,
            limits=Limits(silent_after=seconds(silent_after, "silent_after") or SILENT_AFTER),
            redactor=tracking.redactor,
        )
        runtime.install(lambda: standing, app)
        signals.connect()
        workers.connect()

    def close(self) -> None:
        """Stop tracking the app."""
        uninstall(self.app)
        runtime.uninstall(self.app)
