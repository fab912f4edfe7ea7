"""Numbers as pictures: stacked columns over time, and lengths on a scale of equal ratios. Pure; templates only draw.

Everything horizontal is a percentage, so that a picture fits any width without a script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import floor, log, log10
from typing import Final

#: Heights in pixels: of the columns, above them for the number at the uppermost line, below for what names them.
HEIGHT: Final = 120
_ABOVE: Final = 14
_BELOW: Final = 20
#: The least height of a part: what is rare is what one looks for.
LEAST: Final = 2.0
#: Up to which number all even ones are round, and those above it, in tenths of a power of ten.
_FEW: Final = 10
_ROUND: Final = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
#: What of its place a column leaves free.
_GAP: Final = 0.22


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a column is of: its parts from the ground up, as (kind, number). `kind` becomes a CSS class."""

    parts: Sequence[tuple[str, int]]
    title: str
    link: str = ""
    tick: str = ""
    """What stands under it; empty: nothing."""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(number for _kind, number in self.parts)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a column: from where on down, and how far."""

    kind: str
    top: str
    height: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column and its place."""

    bar: Bar
    x: str
    width: str
    slot: tuple[str, str]
    """Where its place begins and how wide that is, with what it leaves free."""
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Line:
    """A line across the picture, or a name under it: where, and what it says."""

    at: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Columns from left to right, from the earliest to the latest."""

    columns: Sequence[Column]
    lines: Sequence[Line]
    ticks: Sequence[Line]

    @property
    def height(self) -> int:
        """Of the whole picture."""
        return _ABOVE + HEIGHT + _BELOW

    @property
    def ground(self) -> int:
        """Where the columns stand."""
        return _ABOVE + HEIGHT

    @property
    def foot(self) -> int:
        """Where what stands under them has its line."""
        return _ABOVE + HEIGHT + _BELOW - 5


def stack(bars: Sequence[Bar]) -> Chart:
    """Return the columns of `bars`, which may be empty but not none at all. The uppermost line is at a round number."""
    most = ceiling(max(bar.total for bar in bars))
    slot = 100 / len(bars)
    columns = [_column(bar, place * slot, slot, most) for place, bar in enumerate(bars)]
    ticks = [Line(_percent((place + 0.5) * slot), bar.tick) for place, bar in enumerate(bars) if bar.tick]
    lines = [Line(_number(_ABOVE), f"{most:,}"), Line(_number(_ABOVE + HEIGHT / 2), "")]
    return Chart(columns=columns, lines=lines, ticks=ticks)


def ceiling(number: int) -> int:
    """Return the least round number that is not less: 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, ..."""
    if number <= _FEW:
        return max(number + number % 2, 2)
    unit = int(10 ** floor(log10(number)))
    return next(step * unit // 10 for step in _ROUND if step * unit // 10 >= number)


def _column(bar: Bar, x: float, slot: float, most: int) -> Column:
    parts, top = [], float(_ABOVE + HEIGHT)
    for kind, number in bar.parts:
        if number > 0:
            height = max(number / most * HEIGHT, LEAST)
            top -= height
            parts.append(Part(kind, _number(top), _number(height)))
    return Column(
        bar=bar,
        x=_percent(x + slot * _GAP / 2),
        width=_percent(slot * (1 - _GAP)),
        slot=(_percent(x), _percent(slot)),
        parts=parts,
    )


@dataclass(frozen=True, slots=True)
class Strip:
    """Three lengths, the shortest first, as a line from the first to the last with a mark at each."""

    marks: tuple[str, str, str]
    width: str


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale of equal ratios between two lengths that differ."""

    shortest: timedelta
    longest: timedelta

    @classmethod
    def of(cls, lengths: Sequence[timedelta]) -> Scale | None:
        """Return the one on which all of them have a place; None: there are none."""
        positive = [length for length in lengths if length > timedelta(0)]
        return cls(min(positive), max(*positive, min(positive) * 2)) if positive else None

    def strip(self, lengths: tuple[timedelta, timedelta, timedelta]) -> Strip:
        """Return three lengths with their places."""
        first, second, third = map(self._place, lengths)
        return Strip((_percent(first), _percent(second), _percent(third)), _percent(third - first))

    def _place(self, length: timedelta) -> float:
        share = log(max(length, self.shortest) / self.shortest) / log(self.longest / self.shortest)
        # A little room at both ends, for the marks.
        return 4 + 92 * min(share, 1.0)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _number(value: float) -> str:
    return f"{value:.1f}"
