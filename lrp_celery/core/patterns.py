"""Name patterns as in a shell: `reports.*`, `*token*`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache


@lru_cache(maxsize=256)
def compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression that matches a name if any of `patterns` does; case counts."""
    return re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of `patterns` fits the whole of `name`."""
    return compiled(tuple(patterns)).match(name) is not None


def specificity(pattern: str) -> tuple[bool, int]:
    """Order patterns: one without wildcards is the most specific, then the one with more literal characters."""
    literal = re.sub(r"\[.*?\]|[*?]", "", pattern)
    return (literal == pattern, len(literal))
