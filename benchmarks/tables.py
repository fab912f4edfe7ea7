"""Tables in Markdown, and ratios with their spread."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median of several rounds, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.least)} to {short(self.greatest)})"


def spread(values: Iterable[float]) -> Spread | None:
    """Return median and spread; None if there is nothing."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1]) if found else None


def short(value: float) -> str:
    """Return a number with as many digits as mean something."""
    digits = 0 if value == 0 else max(2 - int(math.log10(max(value, 1))), 0)
    return f"{value:.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which so many per cent of the others lie."""
    return sorted(values)[min(int(len(values) * share / 100), len(values) - 1)]


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)
