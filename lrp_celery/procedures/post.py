"""The spool of a worker, from its main process's side: opened before the pool is made, closed after it has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lrp_celery.core.locks import HeldFile, make_held
from lrp_celery.procedures.brief import Brief
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.runs import boot_id
from lrp_celery.tracking.spool.bell import Bell
from lrp_celery.tracking.spool.drainer import Drainer
from lrp_celery.tracking.spool.places import SpoolTerms, folder_of
from lrp_celery.tracking.spool.spool import Spool, set_open
from lrp_celery.tracking.tracking import Tracking, tracking_of

logger = logging.getLogger("lrp_celery.recorder")


class Post:
    """Lets the worker's processes write to a spool, and proves as long as it is open that the worker lives."""

    def __init__(self, folder: Path, place: str, terms: SpoolTerms, worker: str) -> None:
        self._folder = folder
        self._alive: HeldFile = make_held(folder / f"{boot_id()}.worker")
        self._bell = Bell()
        self._spool = Spool(folder, place=place, boot=boot_id(), worker=worker, limit=terms.limit, bell=self._bell)
        set_open(self._spool)

    @property
    def descriptors(self) -> Sequence[int]:
        """What the side process inherits."""
        return [self._bell.ear, self._bell.flag]

    def told_in(self, brief: Brief) -> Brief:
        """Return a brief that tells the side process of the spool."""
        return replace(brief, spool=str(self._folder), ear=self._bell.ear, flag=self._bell.flag)

    def close(self) -> None:
        """Write no more: what is reported after that is written in place."""
        set_open(None)
        self._spool.close()
        self._alive.let_go()


def open_post(tracking: Tracking, worker: str) -> Post | None:
    """Open a worker's spool; None: it is to have none, or (then it is said why) cannot, and reports are written in place."""
    place, terms = tracking.store.place, tracking.spool
    if place is None or terms is None:
        return None
    try:
        return Post(folder_of(place, terms), place, terms, worker)
    except OSError as error:
        logger.warning("There is no spool (%s): reports are written in place. SPOOL_DIR names another folder.", error)
        return None


#: Seconds in which whoever only looks in tells what dead workers have left.
_PATIENCE: Final = 30.0


def take_over(app: Any, store: CallStore) -> None:
    """Tell the store what workers of this host have left in their spools when they died. `StoreError` if it is away."""
    tracking = tracking_of(app)
    if tracking is None or tracking.spool is None or store.place is None:
        return
    try:
        folder = folder_of(store.place, tracking.spool)
    except OSError as error:
        logger.warning("What dead workers have left cannot be read: %s", error)
        return
    Drainer(store, folder).finish(_PATIENCE)
