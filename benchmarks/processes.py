"""CPU seconds of processes and who descends from whom, from /proc."""

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    ticks: int
    """User and system time, with that of the children it has waited for."""


def cpu(*roots: int) -> float:
    """Return the CPU seconds of these processes and all their descendants, with those that have ended."""
    known = _all()
    return sum(known[pid].ticks for pid in _tree(known, roots)) / _TICKS


def on_cpu(pid: int) -> float:
    """Return for how many seconds this process itself was on a CPU, to the microsecond: without waiting for one."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def children_of(pid: int) -> list[int]:
    """Return the processes that this one has started, in order."""
    return sorted(process.pid for process in _all().values() if process.parent == pid)


def descendants_of(pid: int) -> set[int]:
    """Return this process and all that stem from it."""
    return _tree(_all(), [pid])


def parent_of(pid: int) -> int:
    """Return the process that started this one; SystemExit if it does not run on this machine."""
    found = _read(str(pid))
    if found is None:
        raise SystemExit("PostgreSQL does not run on this machine: its CPU cannot be counted.")
    return found.parent


def kill(pids: Iterable[int]) -> None:
    """End these processes by force, as far as they are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def strays(mark: str) -> list[int]:
    """Return processes whose environment has `mark` that do not descend from this one any more."""
    known = _all()
    ours = _tree(known, [os.getpid()])
    return [pid for pid in known if pid not in ours and mark.encode() in _environment(pid).split(b"\0")]


def _tree(known: dict[int, _Process], roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in known.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = set(), list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in known and pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def _all() -> dict[int, _Process]:
    found = map(_read, filter(str.isdigit, (path.name for path in Path("/proc").iterdir())))
    return {process.pid: process for process in found if process is not None}


def _read(name: str) -> _Process | None:
    try:
        fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Process(int(name), int(fields[1]), sum(map(int, fields[11:15])))


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
