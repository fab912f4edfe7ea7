"""Many lengths of time in few numbers: how many there are of each size, on a scale of equal ratios. Pure.

The scale goes from `LEAST` to `MOST`, which is ten days, in steps by the fourth root of two. So whatever is asked
of a histogram is off by half a step at most: `ERROR`, nine percent. Shorter lengths count as half of `LEAST`,
longer ones as `MOST`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from math import ceil, log2
from typing import Final

LEAST: Final = timedelta(microseconds=100)
#: Steps in which a length doubles, and how often the shortest one may.
STEPS: Final = 4
_DOUBLINGS: Final = 33
MOST: Final = LEAST * 2**_DOUBLINGS
#: By what share of itself a quantile between `LEAST` and `MOST` may be wrong, at most.
ERROR: Final = 2 ** (1 / (2 * STEPS)) - 1
#: What is shorter than `LEAST` is 0, what is longer than `MOST` is this.
LAST: Final = STEPS * _DOUBLINGS + 1


class Histogram:
    """How many lengths there are of each size. Adding two gives what all their lengths together would have."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: Counter[int] = Counter(dict(counts))

    @classmethod
    def from_json(cls, text: str) -> Histogram:
        """Read what `to_json` wrote."""
        return cls((int(size), count) for size, count in json.loads(text).items()) if text else cls()

    def to_json(self) -> str:
        """Return it as text: nothing for no length, at most some 1,500 characters for any number of them."""
        kept = {str(size): count for size, count in sorted(self._counts.items()) if count}
        return json.dumps(kept, separators=(",", ":")) if kept else ""

    def add(self, length: timedelta) -> None:
        """Count one more length."""
        self._counts[_size(length)] += 1

    def count(self, size: int, number: int) -> None:
        """Count more lengths of a size: its place on the scale, from 0 to `LAST`."""
        self._counts[size] += number

    def update(self, other: Histogram) -> None:
        """Count all that the other one has."""
        self._counts.update(other._counts)

    @property
    def number(self) -> int:
        """How many lengths there are."""
        return self._counts.total()

    def quantile(self, share: float) -> timedelta | None:
        """Return a length that this share of them (0 to 1) do not exceed, give or take `ERROR`; None: there are none."""
        wanted = max(ceil(share * self.number), 1)
        for size in sorted(self._counts):
            wanted -= self._counts[size]
            if wanted <= 0:
                return _middle(size)
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Histogram({self.to_json()})"


def _size(length: timedelta) -> int:
    ratio = length / LEAST
    return 0 if ratio < 1 else min(int(log2(ratio) * STEPS) + 1, LAST)


def _middle(size: int) -> timedelta:
    """Return what stands for all lengths of a size: where its ends are off by the same share."""
    if size == 0:
        return LEAST / 2
    return MOST if size == LAST else LEAST * 2 ** ((size - 0.5) / STEPS)
