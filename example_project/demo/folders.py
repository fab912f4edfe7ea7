"""The numbered folder of a running demo: the first that no other demo holds."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent

#: A socket's address must be short (108 bytes on Linux) and stand in a URL as it is.
GOOD_FOR_SOCKETS = re.compile(r"[A-Za-z0-9/._-]{1,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where one demo keeps its files.

    `path` has the logs and what is thrown away, `var` the database and the atlas, `sockets`
    the broker's address. The lock is inherited by every process of the demo, so a folder is
    free only when all of them are gone.
    """

    number: int
    path: Path
    var: Path
    sockets: Path
    lock: int

    def log(self, name: str) -> Path:
        """Return the file that the output of the named process goes to."""
        return self.path / f"{name}.log"


@contextmanager
def run_folder() -> Iterator[RunFolder]:
    """Take the first free number, for as long as this lasts and any child lives.

    DEMO_HOME puts everything somewhere else than into the clone.
    """
    home = os.environ.get("DEMO_HOME")
    number, path, lock = _first_free(Path(home) if home else EXAMPLE.parent / ".demo")
    var = path / "var" if home else _var_in_the_example(number)
    try:
        with _folder_for_sockets(path) as sockets:
            yield RunFolder(number=number, path=path, var=var, sockets=sockets, lock=lock)
    finally:
        os.close(lock)


def _first_free(runs: Path) -> tuple[int, Path, int]:
    for number in count(1):
        path = runs.resolve() / str(number)
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path / "lock")
        if lock is not None:
            return number, path, lock
    raise AssertionError("numbers do not end")


@contextmanager
def _folder_for_sockets(path: Path) -> Iterator[Path]:
    if GOOD_FOR_SOCKETS.fullmatch(str(path)):
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as folder:
            yield Path(folder)


def _var_in_the_example(number: int) -> Path:
    var = EXAMPLE / "var"
    return var if number == 1 else var / str(number)


def _lock(file: Path) -> int | None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
