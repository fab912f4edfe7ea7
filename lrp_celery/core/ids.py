"""Ids of calls that we make."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """Return a new UUID of version 7: later ones sort after earlier ones, which keeps the tables' indexes small."""
    millis = time.time_ns() // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
