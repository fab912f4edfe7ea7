"""When something was: by a clock that only counts on, and by the wall, for whoever reads it after the next boot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Counts through a suspend of the machine, too, where the system has such a clock.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NANO: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment, in nanoseconds since this boot and since 1970."""

    since_boot: int
    wall: int


def now() -> Stamp:
    """Return this moment."""
    return Stamp(time.clock_gettime_ns(_CLOCK), time.time_ns())


def age(stamp: Stamp, boot: str, *, at: Callable[[], Stamp] = now) -> timedelta:
    """Return how long ago it was; by the wall if that was before the last boot, and never less than nothing."""
    here = at()
    passed = here.since_boot - stamp.since_boot if boot == this_boot() else here.wall - stamp.wall
    return timedelta(seconds=max(0, passed) / _NANO)


@lru_cache(maxsize=1)
def this_boot() -> str:
    """Return what tells this boot of the machine from every other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
