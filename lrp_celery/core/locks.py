"""Locks on files that last as long as the process that took them, and prove when they are free that it is dead.

`flock`: whoever is killed loses it at once. What a task forks inherits the file, and would keep the
lock of a process that has died; so every forked child lets go of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakSet


class HeldFile:
    """An open file that this process has locked."""

    def __init__(self, file: int) -> None:
        self._file: int | None = file
        _held.add(self)

    @property
    def file(self) -> int:
        """Its descriptor; `ValueError` once it was let go."""
        if self._file is None:
            raise ValueError("This file was let go.")
        return self._file

    def let_go(self) -> None:
        """Close it, which frees the lock unless a forked child still has it. Doing it twice changes nothing."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)


_held: WeakSet[HeldFile] = WeakSet()


def _forked() -> None:
    for held in list(_held):
        held.let_go()


os.register_at_fork(after_in_child=_forked)


def hold(path: Path, flags: int = os.O_RDWR) -> HeldFile | None:
    """Open and lock a file; None: somebody has locked it, or it is not there (any more). Other `OSError` are raised."""
    try:
        file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed it meanwhile, and another may stand in its place.
        is_still_there = is_called(file, path)
    except BlockingIOError:
        is_still_there = False
    except OSError:
        os.close(file)
        raise
    if not is_still_there:
        os.close(file)
        return None
    return HeldFile(file)


def make_held(path: Path) -> HeldFile:
    """Make a file that nobody ever sees without its lock. Raises `OSError`."""
    unseen = path.with_name(f"{path.name}.{os.getpid()}.new")
    held = hold(unseen, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if held is None:
        raise BlockingIOError(f"{unseen} is somebody else's.")
    try:
        unseen.rename(path)
    except OSError:
        held.let_go()
        raise
    return held


def is_held(path: Path) -> bool:
    """Whether a process that lives has locked the file; False: it is free, or not there."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return is_locked(file)
    finally:
        os.close(file)


def is_locked(file: int) -> bool:
    """Whether a process that lives has locked this open file, also when its name is gone."""
    try:
        # Shared, so that two who look at the same time do not take each other for its owner.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@contextlib.contextmanager
def locked(file: int) -> Iterator[bool]:
    """Lock an open file within this context; False: somebody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def is_called(file: int, path: Path) -> bool:
    """Whether this name is that open file's, and not another's or nobody's."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
