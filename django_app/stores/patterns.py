"""Statements that are said again and again, and differ but in some of their parameters.

To work out the text of a statement takes longer than to say it. What it follows from is the same for many calls:
so it is worked out once, with gaps where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

#: So many are remembered; a program has few, but may make any number of procedures, or terms, as it goes.
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands for a value that differs."""

    name: str


class Pattern:
    """A statement with gaps among its parameters."""

    __slots__ = ("_gaps", "_params", "statement")

    def __init__(self, statement: str, params: Sequence[Any]) -> None:
        self.statement = statement
        self._params = tuple(params)
        self._gaps = tuple((place, param.name) for place, param in enumerate(params) if isinstance(param, Gap))

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the parameters, with these values in the gaps."""
        params = list(self._params)
        for place, name in self._gaps:
            params[place] = values[name]
        return params


class Remembered(Generic[T]):
    """What follows from a key alone, worked out once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, T] = {}

    def of(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` has returned for this key."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[key] = make()
        return known
