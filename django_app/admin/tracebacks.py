"""Tracebacks for people: first the lines of the application, then all of them.

Pure functions from the text that Python prints; what is no such text is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from django.utils.translation import ngettext

_FRAME: Final = re.compile(r'  File "(?P<path>[^"\n]*)", line \d+')
#: Where Python's own modules and installed packages lie.
_LIBRARIES: Final = re.compile(
    r"(?:^|/)(?:site-packages|dist-packages|python\d+\.\d+|python\d+/lib)/|^<frozen ", re.IGNORECASE
)


def of_application(traceback: str) -> str | None:
    """Return a traceback with each stretch of library code as one line that counts it.

    None: there is nothing to leave out, or nothing would be left of the frames.
    """
    parts = [(_is_library(part), part) for part in _parts(traceback)]
    kinds = {is_library for is_library, _ in parts}
    if True not in kinds or False not in kinds:
        return None
    return "\n".join(_folded(parts))


def _folded(parts: Iterable[tuple[bool | None, list[str]]]) -> Iterator[str]:
    for is_library, several in groupby(parts, key=lambda part: part[0]):
        frames = [lines for _, lines in several]
        if is_library:
            count = len(frames)
            yield "  … " + ngettext("%(count)d frame of libraries", "%(count)d frames of libraries", count) % {
                "count": count
            }
        else:
            for lines in frames:
                yield from lines


def _parts(traceback: str) -> Iterator[list[str]]:
    """Split a traceback into frames, each with the lines below it, and other lines by themselves."""
    part: list[str] = []
    for line in traceback.splitlines():
        begins = _FRAME.match(line) is not None
        belongs = bool(part) and _FRAME.match(part[0]) is not None and line.startswith("    ")
        if part and (begins or not belongs):
            yield part
            part = []
        part.append(line)
    if part:
        yield part


def _is_library(part: list[str]) -> bool | None:
    """Whether a part is a frame of a library; None: it is no frame."""
    frame = _FRAME.match(part[0].replace("\\", "/"))
    return None if frame is None else _LIBRARIES.search(frame["path"]) is not None
