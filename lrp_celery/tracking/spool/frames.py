"""Records in a file: version, length, checksum, and what is said. A record that is cut short is seen to be."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

VERSION: Final = 1
#: Longer ones are never written: such a length is a sign of damage.
LONGEST: Final = 16 * 1024 * 1024
_HEAD: Final = struct.Struct("<BII")


class Stop(Enum):
    """Why no further record can be read."""

    END = auto()
    """There is none."""
    TORN = auto()
    """The next one is not whole: it is being written, or its writer died over it."""
    UNKNOWN = auto()
    """The next one was written by a version that we do not know."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record, and where the next one begins."""

    said: bytes
    end: int


def framed(said: bytes) -> bytes:
    """Return the bytes of one record."""
    return _HEAD.pack(VERSION, len(said), zlib.crc32(said)) + said


def unframed(data: bytes, begin: int = 0) -> Iterator[Frame | Stop]:
    """Yield the records in `data`, and last why they end."""
    while True:
        found = _next(data, begin)
        yield found
        if isinstance(found, Stop):
            return
        begin = found.end


def _next(data: bytes, begin: int) -> Frame | Stop:
    if begin == len(data):
        return Stop.END
    if data[begin] != VERSION:
        # Where a disk has lost what was written there are zeros.
        return Stop.UNKNOWN if data[begin] else Stop.TORN
    if len(data) - begin < _HEAD.size:
        return Stop.TORN
    _, length, checksum = _HEAD.unpack_from(data, begin)
    said = data[begin + _HEAD.size : begin + _HEAD.size + length]
    if length > LONGEST or len(said) < length or zlib.crc32(said) != checksum:
        return Stop.TORN
    return Frame(said, begin + _HEAD.size + length)
