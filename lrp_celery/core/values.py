"""Changed copies of frozen values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["replace"]

if TYPE_CHECKING:
    from dataclasses import replace
else:
    import dataclasses

    def replace(value: Any, /, **changes: Any) -> Any:
        """Return a copy with these fields changed; `TypeError` for a field that there is not.

        As `dataclasses.replace`, but where fields live in the instance's dictionary (no slots, no
        `__post_init__`) they are copied as a whole: a row has so many that setting one after
        the other was a quarter of what a call cost.
        """
        known = getattr(value, "__dict__", None)
        if known is None:
            return dataclasses.replace(value, **changes)
        if not changes.keys() <= known.keys():
            raise TypeError(f"{type(value).__name__} has no {', '.join(sorted(changes.keys() - known.keys()))}")
        made = object.__new__(type(value))
        made.__dict__.update(known)
        made.__dict__.update(changes)
        return made
