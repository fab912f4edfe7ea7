"""What to say about a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the one of `known` that was probably meant, or else all; case does not count."""
    spelled = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f"Did you mean {spelled[close[0]]!r}?" if close else f"It has {', '.join(spelled.values()) or 'none'}."
