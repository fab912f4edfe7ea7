"""One file of a spool: how it is called, how it begins, how it is written and read.

It begins with a mark, a counter of what its process had to drop, how far it was told, and a record of whose it is;
then come the reports.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from lrp_celery.core.locks import HeldFile, is_called, is_locked, locked, make_held
from lrp_celery.tracking.reports import Report
from lrp_celery.tracking.spool import stamps, wire
from lrp_celery.tracking.spool.frames import Frame, Stop, framed, unframed
from lrp_celery.tracking.spool.stamps import Stamp

_MARK: Final = b"lrpspool"
_COUNTER: Final = struct.Struct("<Q")
_DROPPED_AT: Final = len(_MARK)
_TOLD_AT: Final = _DROPPED_AT + _COUNTER.size
_BEGIN: Final = _TOLD_AT + _COUNTER.size
_NAME: Final = re.compile(r"(?P<boot>[0-9a-f]+)\.(?P<pid>\d+)\.(?P<number>\d+)\.spool")
#: Bytes read at once.
_CHUNK: Final = 1024 * 1024


class Name(NamedTuple):
    """Which worker, by its boot id, which of its processes, and which of that one's files."""

    boot: str
    pid: int
    number: int

    def __str__(self) -> str:
        return f"{self.boot}.{self.pid}.{self.number}.spool"

    @classmethod
    def of(cls, name: str) -> Name | None:
        """Return what a file's name says; None: it is no spool's."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(found["boot"], int(found["pid"]), int(found["number"]))


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose file it is."""

    boot: str
    """The boot of the machine by which its times count."""
    worker: str
    """The worker, as Celery calls it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A report as it was written, and where the next one begins."""

    report: Report
    stamp: Stamp
    end: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is whole, and is no report."""

    said: bytes
    end: int


def has_left(folder: Path, boot: str, pid: int) -> bool:
    """Whether there are files of a process of this worker: as long as not all was told that it had to say."""
    return any(folder.glob(f"{boot}.{pid}.*.spool"))


def said_now(report: Report) -> bytes:
    """Return the record of a report that is true now."""
    stamp = stamps.now()
    return framed(wire.to_bytes([stamp.since_boot, stamp.wall, *wire.encode(report)]))


class Written:
    """A file that this process writes to. Raises `OSError` where the disk does not take it."""

    def __init__(self, path: Path, worker: str) -> None:
        self.path = path
        self._held: HeldFile = make_held(path)
        self._counted = 0
        try:
            origin = wire.to_bytes(asdict(Origin(stamps.this_boot(), worker)))
            self.size = self.begun = self._put(_MARK + 2 * _COUNTER.pack(0) + framed(origin))
        except OSError:
            self.close()
            raise

    @property
    def grown(self) -> int:
        """Bytes that were written since it was ready to be used."""
        return self.size - self.begun

    @property
    def is_there(self) -> bool:
        """Whether anybody but this process and those that have it open can still find it."""
        return os.fstat(self._held.file).st_nlink > 0

    def begin_here(self) -> None:
        """Note that it is ready to be used: what it holds so far does not count."""
        self.begun = self.size

    def append(self, record: bytes) -> None:
        """Write a record. After an error the file may end in half of one, so that nothing more must be written to it."""
        self.size += self._put(record)

    def _put(self, data: bytes) -> int:
        written = os.write(self._held.file, data)
        if written < len(data):
            raise OSError(f"{self.path.name} took {written} of {len(data)} bytes.")
        return written

    def count_dropped(self, number: int) -> None:
        """Note how many reports its process has dropped in all."""
        if number != self._counted:
            self._counted = number
            with contextlib.suppress(OSError):
                os.pwrite(self._held.file, _COUNTER.pack(number), _DROPPED_AT)

    def close(self) -> None:
        """Write no more; the lock is free then."""
        self._held.let_go()


class Source:
    """A file that a drainer reads, from its beginning on, also what another one has told: for the runs that are under way."""

    def __init__(self, path: Path, name: Name) -> None:
        self.path = path
        self.name = name
        # Some file systems let only those lock who may write.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if os.fstat(self._file).st_uid != os.geteuid():
            self.close()
            raise PermissionError(f"{path} is somebody else's.")
        self._told = _BEGIN
        self._noted = self._counter(_TOLD_AT)
        self._origin: Origin | None = None
        self._stop: Stop | None = None
        self._size_at_stop = 0

    @property
    def origin(self) -> Origin:
        """Whose file it is, as far as its beginning was read."""
        return self._origin or Origin("", "")

    @property
    def size(self) -> int:
        """Bytes that there are."""
        return os.fstat(self._file).st_size

    @property
    def waiting(self) -> int:
        """Bytes that were not told yet."""
        return max(0, self.size - self._told)

    @property
    def has_news(self) -> bool:
        """Whether it was never read to its end, or has grown since."""
        return self._stop is None or self.size != self._size_at_stop

    @property
    def is_foreign(self) -> bool:
        """Whether it goes on with what another version has written."""
        return self._stop is Stop.UNKNOWN

    @property
    def dropped(self) -> int:
        """How many reports its process has dropped."""
        return self._counter(_DROPPED_AT)

    def _counter(self, at: int) -> int:
        counter = os.pread(self._file, _COUNTER.size, at)
        return int(_COUNTER.unpack(counter)[0]) if len(counter) == _COUNTER.size else 0

    def read(self, limit: int) -> list[Entry | Unreadable]:
        """Return the next records, `limit` at most; they count as told only after `told`."""
        found = (self._understood(frame) for frame in self._frames())
        return list(itertools.islice((entry for entry in found if entry is not None), limit))

    def told(self, end: int) -> None:
        """Note that everything up to `end` was told."""
        self._told = max(self._told, end)

    def was_told(self, end: int) -> bool:
        """Whether an earlier drainer has noted that everything up to `end` was told."""
        return end <= self._noted

    def note(self) -> None:
        """Note in the file how far it was told, for whoever reads it after us."""
        if self._told > self._noted:
            self._noted = self._told
            with contextlib.suppress(OSError):
                os.pwrite(self._file, _COUNTER.pack(self._told), _TOLD_AT)

    def _frames(self) -> Iterator[Frame]:
        self._stop, size, begin = None, self.size, self._told
        length = _CHUNK
        while True:
            data = os.pread(self._file, length, begin)
            frames = list(unframed(data))
            stop = frames.pop()
            for frame in frames:
                if isinstance(frame, Frame):
                    yield Frame(frame.said, begin + frame.end)
            end = begin + (frames[-1].end if frames and isinstance(frames[-1], Frame) else 0)
            if stop is not Stop.TORN or len(data) < length:
                self._stop, self._size_at_stop = cast("Stop", stop), size
                return
            # What is torn here may only be longer than what was read.
            length = length if frames else 2 * length
            begin = end

    def _understood(self, frame: Frame) -> Entry | Unreadable | None:
        try:
            said: Any = json.loads(frame.said)
            if self._origin is None:
                self._origin = Origin(boot=str(said["boot"]), worker=str(said["worker"]))
                self.told(frame.end)
                return None
            since_boot, wall, *report = said
            return Entry(wire.decode(report), Stamp(int(since_boot), int(wall)), frame.end)
        except (KeyError, TypeError, ValueError):
            return Unreadable(frame.said, frame.end)

    @property
    def is_written_to(self) -> bool:
        """Whether a process that lives may write to it."""
        return is_locked(self._file)

    def remove(self) -> bool:
        """Remove the file, if nobody writes to it and everything was read; return whether it is gone."""
        with locked(self._file) as is_free:
            if not is_free or self.has_news or self.is_foreign:
                return False
            if is_called(self._file, self.path):
                self.path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Read no more."""
        with contextlib.suppress(OSError):
            os.close(self._file)
