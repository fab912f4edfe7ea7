"""Ids of calls that we make."""

from __future__ import annotations

import os
import time
import uuid
from typing import Final

#: Milliseconds for which an id counts as new.
_NEW: Final = 60_000
_HEX: Final = 16


def new_id() -> str:
    """Return a new UUID of version 7: later ones sort after earlier ones, which keeps the tables' indexes small."""
    millis = _millis()
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_fresh(call_id: str) -> bool:
    """Whether an id looks as if `new_id` had made it within the last minute: then hardly anything can have it yet."""
    if len(call_id) != len("00000000-0000-7000-8000-000000000000") or call_id[14] != "7":
        return False
    try:
        made = int(call_id[:8] + call_id[9:13], _HEX)
    except ValueError:
        return False
    return abs(_millis() - made) < _NEW


def _millis() -> int:
    return time.time_ns() // 1_000_000
