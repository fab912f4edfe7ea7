"""What a worker that runs procedures does at its start and at its end."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from celery import signals

from lrp_celery.core.errors import LrpError
from lrp_celery.core.locks import HeldFile, hold
from lrp_celery.procedures import declared, revoking
from lrp_celery.procedures.aborts import Board, board, listen
from lrp_celery.procedures.brief import Brief
from lrp_celery.procedures.caretaker import TICK, Caretaker
from lrp_celery.procedures.notices import Notices
from lrp_celery.procedures.post import Post, open_post
from lrp_celery.procedures.runtime import Runtime, runtime_of
from lrp_celery.procedures.telling import Telling
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.runs import boot_id
from lrp_celery.tracking.status import Reason
from lrp_celery.tracking.tracking import tracking_of

logger = logging.getLogger("lrp_celery.procedures")

#: Seconds that a side process may take to end, and to wait before another is started after it has died.
_PATIENCE: Final = 5.0
#: The longest path of a socket is about 107 bytes.
_LONGEST_FOLDER: Final = 80
#: What the folders of workers are called, and the seconds after which one without a lock was left by a dead worker.
_FOLDER: Final = re.compile(r"lrp-[0-9a-f]{12}-\w+")
_ABANDONED: Final = 60.0
#: Modules that hold the app of this process, but not of another that imports them.
_NOT_THE_USERS: Final = frozenset({"celery", "kombu", "lrp_celery", "django_app"})


def connect() -> None:
    """Look after the calls of every worker that this process becomes. Doing it twice changes nothing."""
    signals.celeryd_after_setup.connect(_on_setup, weak=False, dispatch_uid="lrp_celery.procedures.setup")
    signals.worker_process_init.connect(_on_process, weak=False, dispatch_uid="lrp_celery.procedures.process")
    signals.worker_shutdown.connect(_on_shutdown, weak=False, dispatch_uid="lrp_celery.procedures.shutdown")
    revoking.connect()


class SideProcess:
    """The worker's side process, started again whenever it dies."""

    def __init__(self, brief: Brief, post: Post | None = None) -> None:
        self._brief = brief
        self._post = post
        self._process: subprocess.Popen[str] | None = None
        self._ending = threading.Event()
        self._pid = os.getpid()
        # Proves as long as it is held that the worker lives, and its folder is not to be cleared away.
        self._held = _held(Path(brief.folder))

    @property
    def is_of_parent(self) -> bool:
        """Whether it was started by the process that this one was forked from."""
        return os.getpid() != self._pid

    def start(self) -> None:
        """Start it, and watch it from a thread."""
        self._launch()
        threading.Thread(target=self._watch, name="lrp_celery-side", daemon=True).start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End it; nothing happens in a forked child, or the second time."""
        if os.getpid() != self._pid or self._ending.is_set():
            return
        self._ending.set()
        if self._post is not None:
            # All that it is to drain is there now, and nobody writes to it any more.
            self._post.close()
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        shutil.rmtree(self._brief.folder, ignore_errors=True)

    def _launch(self) -> None:
        # Told to end before it has begun, it must not die of it: there may be reports to bring home.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "lrp_celery.procedures.side"],
                stdin=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, self._brief.path))},
                pass_fds=[] if self._post is None else self._post.descriptors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._process = process
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(self._brief.to_json())
                process.stdin.close()

    def _watch(self) -> None:
        short_lives = 0
        while not self._ending.is_set() and self._process is not None:
            began = time.monotonic()
            code = self._process.wait()
            short_lives = short_lives + 1 if time.monotonic() - began < _PATIENCE else 0
            # At once, for leases lapse meanwhile; but one that cannot live is not started without end.
            if self._ending.wait(_PATIENCE if short_lives > 1 else 0):
                return
            logger.error("The side process ended with %d and is started again.", code)
            self._launch()


_side: SideProcess | None = None
#: By process and app; a thread that lives holds its app.
_threads: Final[dict[tuple[int, int], threading.Thread]] = {}
_starting: Final = threading.Lock()


def ensure_care(app: Any, runtime: Runtime) -> None:
    """See to it that somebody looks after the app's calls in this process, where no worker's start did: in tests, mostly."""
    if _side is not None:
        return
    key = os.getpid(), id(app)
    with _starting:
        if key in _threads and _threads[key].is_alive():
            return
        facts = WorkerFacts(
            boot_id=boot_id(),
            name=f"thread@{socket.gethostname()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            pool="",
        )
        caretaker, telling = Caretaker(app, runtime, facts, _Here(board)), Telling(runtime.own)
        telling.start()
        thread = threading.Thread(
            target=_take_care, args=(caretaker, telling), name="lrp_celery-caretaker", daemon=True
        )
        _threads[key] = thread
        thread.start()


def _take_care(caretaker: Caretaker, telling: Telling) -> None:
    while True:
        caretaker.round()
        telling.look()
        time.sleep(TICK)


class _Here:
    """This process, as its own caretaker sees it."""

    def __init__(self, runs: Board) -> None:
        self._board = runs

    def runs(self) -> list[tuple[str, str]]:
        return self._board.runs()

    def tell(self, call_id: str, run: str, reason: str | None, cause: Reason, *, force: bool = False) -> None:
        self._board.tell(call_id, run, reason, cause, force=force)

    def is_dead(self, pid: int) -> bool:
        return False


def _on_setup(*, sender: str, instance: Any, **_: Any) -> None:
    """A worker is about to start its pool."""
    global _side  # noqa: PLW0603 - one for each worker
    app = instance.app
    tracking = tracking_of(app)
    # A store that no other process reaches can be looked after by none.
    is_watched = tracking is not None and tracking.store.place is not None
    if _side is not None or not (is_watched or declared.in_app(app)):
        return
    where = _place_of(app)
    if where is None:
        logger.warning(
            "The Celery app is no attribute of a module: reports are written, and calls looked after, by the worker itself."
        )
        return
    try:
        folder = _make_folder()
    except OSError as error:
        logger.warning(
            "No folder for the worker's notices (%s): it writes reports and looks after calls itself.", error
        )
        return
    Notices(folder, board)
    post = None if tracking is None else open_post(tracking, str(sender))
    pool = instance.pool_cls if isinstance(instance.pool_cls, str) else instance.pool_cls.__module__.rpartition(".")[2]
    brief = Brief(
        app=where,
        path=sys.path,
        folder=str(folder),
        boot_id=boot_id(),
        name=str(sender),
        host=socket.gethostname(),
        parent=os.getpid(),
        pool=pool,
    )
    _side = SideProcess(brief if post is None else post.told_in(brief), post)
    _side.start()
    _show_up(app, brief)


def _show_up(app: Any, brief: Brief) -> None:
    """Say that the worker is there before it runs anything: its side process takes a while to begin.

    Otherwise nobody would know that one has died which was killed in its first moments.
    """

    def beat() -> None:
        try:
            runtime_of(app).own.beat(brief.worker)
        except LrpError as error:
            logger.warning("Worker %s could not say that it is there: %s", brief.name, error)

    # A thread that ends closes its connection; and the pool must not be forked from beside it.
    thread = threading.Thread(target=beat, name="lrp_celery-shows-up", daemon=True)
    thread.start()
    thread.join(_PATIENCE)


def _on_process(**_: Any) -> None:
    """A pool process begins, or the one process of a solo worker."""
    if threading.current_thread() is threading.main_thread():
        listen()
    board.may_be_killed = _side is not None and _side.is_of_parent


def _on_shutdown(**_: Any) -> None:
    """The worker has ended in good order."""
    if _side is not None:
        _side.stop()


def _make_folder() -> Path:
    base = tempfile.gettempdir()
    if len(base) > _LONGEST_FOLDER:
        base = "/tmp"  # noqa: S108 - mkdtemp below makes a folder of its own
    _clear_away(Path(base))
    return Path(tempfile.mkdtemp(prefix=f"lrp-{boot_id()}-", dir=base))


def _held(folder: Path) -> HeldFile | None:
    """Lock a folder as long as this process lives; None: somebody has, or its file system cannot."""
    with contextlib.suppress(OSError):
        return hold(folder, os.O_RDONLY)
    return None


def _clear_away(base: Path) -> None:
    """Remove the folders of workers that were killed together with their side process."""
    for folder in base.glob("lrp-*"):
        with contextlib.suppress(OSError):
            found = folder.stat()
            is_ours = _FOLDER.fullmatch(folder.name) is not None and found.st_uid == os.geteuid()
            if not is_ours or time.time() - found.st_mtime < _ABANDONED:
                continue
            held = _held(folder)
            if held is not None:
                shutil.rmtree(folder, ignore_errors=True)
                held.let_go()


def _place_of(app: Any) -> str | None:
    """Return where the side process can import the app from."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _NOT_THE_USERS:
            continue
        attributes = getattr(module, "__dict__", None) or {}
        for attribute, value in list(attributes.items()):
            place = _importable(name, module) if value is app else None
            if place is not None:
                return f"{place}:{attribute}"
    return None


def _importable(name: str, module: Any) -> str | None:
    """Return what another process imports the module by; None: it was typed, not read from a file."""
    # Multiprocessing keeps the main module under a second name, by which nobody else can have it.
    if module is not sys.modules.get("__main__"):
        return name
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if file is not None else None
