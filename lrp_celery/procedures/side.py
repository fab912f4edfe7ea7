"""The side process of a worker: `python -m lrp_celery.procedures.side`, told on stdin what to do.

It is started by the worker, not forked from it: it shares no lock, no connection and no
thread with it, and goes on when the worker's own loop stands still. It ends with the worker.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from lrp_celery.procedures.brief import Brief
from lrp_celery.procedures.caretaker import TICK, Caretaker
from lrp_celery.procedures.notices import Noticeboard
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.procedures.telling import Telling
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.spool.bell import Ear
from lrp_celery.tracking.spool.drainer import Backlog, Drainer
from lrp_celery.tracking.spool.draining import Draining
from lrp_celery.tracking.spool.files import has_left

#: Seconds that it may take to end once its worker is gone, whatever it is waiting for.
_PATIENCE: Final = 6.0
#: Seconds of these in which it drains what is left in the spools.
_DRAIN: Final = 4.0
#: Seconds in which it tells of what has ended at last.
_TELL: Final = 0.8


def main() -> None:
    """Look after the worker's calls until it is gone."""
    ended = threading.Event()
    # The terminal's Ctrl-C is for the worker, which may still have to finish what runs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # Whoever started this process has held it back until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s/lrp_celery side process] %(message)s")
    logging.getLogger("lrp_celery").setLevel(logging.INFO)
    brief = Brief.from_json(sys.stdin.read())
    threading.Thread(target=_end_with, args=(brief,), daemon=True).start()
    sys.path[:] = brief.path
    app = find_app(brief.app)
    app.loader.import_default_modules()
    runtime = runtime_of(app)
    draining = _draining(brief, runtime.own)
    backlog = Backlog if draining is None else lambda: draining.backlog
    caretaker = Caretaker(app, runtime, brief.worker, Noticeboard(Path(brief.folder)), backlog, _leavings(brief))
    telling = Telling(runtime.own)
    telling.start()
    while not ended.wait(TICK) and os.getppid() == brief.parent:
        caretaker.round()
        telling.look()
    if draining is not None:
        draining.finish(_DRAIN)
    telling.finish(_TELL)
    if ended.is_set():
        caretaker.close()
    if os.getppid() != brief.parent:
        # Whoever sees its last sign of life grow old knows that calls may have been lost with it.
        _clear_away(brief)


def _draining(brief: Brief, store: CallStore) -> Draining | None:
    """Begin to drain what the worker's processes report; None: they have no spool."""
    if brief.spool is None:
        return None
    draining = Draining(Drainer(store, Path(brief.spool), brief.boot_id), Ear(brief.ear, brief.flag))
    draining.start()
    return draining


def _leavings(brief: Brief) -> Callable[[int], bool]:
    """Return what tells whether a process has left reports in the worker's spools."""
    spool = brief.spool
    return (lambda _: False) if spool is None else partial(has_left, Path(spool), brief.boot_id)


def _end_with(brief: Brief) -> None:
    """End this process when the worker has gone, also where a database or a broker never answers."""
    while os.getppid() == brief.parent:
        time.sleep(1)
    time.sleep(_PATIENCE)
    _clear_away(brief)
    os._exit(1)


def _clear_away(brief: Brief) -> None:
    """Remove what a worker that was killed could not."""
    shutil.rmtree(brief.folder, ignore_errors=True)


def find_app(where: str) -> Any:
    """Import the Celery app."""
    module, _, attribute = where.rpartition(":")
    if module.endswith(".py"):
        import runpy

        return runpy.run_path(module, run_name="lrp_celery_side_process")[attribute]
    from importlib import import_module

    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    main()
