"""Where the spools of a store lie on this host."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Bytes that a process may have waiting.
LIMIT: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolTerms:
    """Where spools lie, and how large they may be."""

    folder: str | None = None
    """The folder for all spools of this host; None: one for this user, where temporary files are kept."""
    limit: int = LIMIT
    """Bytes that each process may have waiting."""


DEFAULT_SPOOL: Final = SpoolTerms()


def folder_of(place: str, terms: SpoolTerms) -> Path:
    """Return the folder for the spools of the store at `place`, made if need be; `OSError` if it cannot be used safely."""
    base = Path(terms.folder or Path(tempfile.gettempdir()) / f"lrp-celery-{os.geteuid()}")
    # Not by its name: that may hold what is not for a folder's, and would be read by everybody.
    folder = base / hashlib.sha256(place.encode()).hexdigest()[:16]
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in (base, folder) if terms.folder is None else (folder,):
        _require_ours(each)
    return folder


def _require_ours(folder: Path) -> None:
    """Refuse a folder that somebody else made, or may write to: he could tell our store anything."""
    found = folder.lstat()
    is_open = stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or is_open:
        raise PermissionError(f"{folder} belongs to somebody else, or others may write to it.")
