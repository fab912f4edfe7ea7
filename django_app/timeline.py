"""A timeline as a picture: from spans of time to places on a line. Pure; templates only draw.

Everything horizontal is a percentage, so that the picture fits any width without a script.
What is short is drawn wide enough to be seen, which bends the scale; `is_bent` tells so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from django_app.durations import duration

#: The least width of what lies between two neighbouring instants, in percent.
LEAST: Final = 3.0
#: How much of the line, in percent, such least widths may take altogether.
_BENT: Final = 60.0
#: Heights in pixels.
LANE: Final = 26
_GAP: Final = 4
#: How much of a wide window's line, in percent, a character takes.
_CHARACTER: Final = 0.9
#: How far apart, in percent, the times that are written below must be, from each other and from both ends.
_APART: Final = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that lasted. `kind` becomes a CSS class; of `texts`, the longest first, it shows what there is room for."""

    kind: str
    start: datetime
    end: datetime
    texts: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A span with its place: horizontally in percent, vertically in pixels."""

    span: Span
    x: float
    width: float
    y: int

    @property
    def left(self) -> str:
        """Its left edge for SVG, in every language with a point."""
        return f"{self.x:.2f}%"

    @property
    def breadth(self) -> str:
        """Its width for SVG."""
        return f"{self.width:.2f}%"

    @property
    def middle(self) -> str:
        """Its middle for SVG."""
        return f"{self.x + self.width / 2:.2f}%"

    @property
    def baseline(self) -> int:
        """Where its text stands."""
        return self.y + LANE // 2 + 4

    @property
    def text(self) -> str:
        """As much text as there is room for."""
        return next((text for text in self.span.texts if (len(text) + 1) * _CHARACTER <= self.width), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An instant between the first and the last at which something began, for the axis below."""

    x: float
    after: timedelta
    """How long after the first instant."""

    @property
    def place(self) -> str:
        """Where it stands, for SVG."""
        return f"{self.x:.2f}%"

    @property
    def label(self) -> str:
        """How long after the first instant, in words."""
        return duration(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Blocks from left to right, those that overlap in time one below the other."""

    blocks: tuple[Block, ...]
    marks: tuple[Mark, ...]
    start: datetime
    end: datetime
    height: int
    is_bent: bool

    @property
    def length(self) -> timedelta:
        """From the first instant to the last."""
        return self.end - self.start


def lay_out(spans: Sequence[Span]) -> Timeline | None:
    """Return the places of `spans`; None if there is nothing to show. A span that ends before it starts is empty."""
    if not spans:
        return None
    sound = [(span, max(span.start, span.end)) for span in sorted(spans, key=lambda span: span.start)]
    instants = sorted({instant for span, end in sound for instant in (span.start, end)})
    places, is_bent = _places(instants)
    least = _least(len(instants) - 1)
    free: list[datetime] = []
    blocks = []
    for span, end in sound:
        lane = _lane(free, span.start, end)
        x = places[span.start]
        width = max(places[end] - x, least)
        x = max(0.0, min(x, 100.0 - width))
        blocks.append(Block(span=span, x=x, width=width, y=lane * (LANE + _GAP)))
    height = len(free) * (LANE + _GAP) - _GAP
    return Timeline(
        blocks=tuple(blocks),
        marks=tuple(_marks([span.start for span, _ in sound], places, instants[0])),
        start=instants[0],
        end=instants[-1],
        height=height,
        is_bent=is_bent,
    )


def _marks(beginnings: Sequence[datetime], places: Mapping[datetime, float], first: datetime) -> Iterator[Mark]:
    before = 0.0
    for instant in beginnings:
        x = places[instant]
        if before + _APART <= x <= 100.0 - _APART:
            yield Mark(x=x, after=instant - first)
            before = x


def _lane(free: list[datetime], start: datetime, end: datetime) -> int:
    """Return the first lane that is free from `start` on, and take it until `end`."""
    for lane, since in enumerate(free):
        if since <= start:
            free[lane] = end
            return lane
    free.append(end)
    return len(free) - 1


def _least(intervals: int) -> float:
    return min(LEAST, _BENT / max(intervals, 1))


def _places(instants: Sequence[datetime]) -> tuple[dict[datetime, float], bool]:
    """Return where each instant lies, and whether the scale had to be bent."""
    total = (instants[-1] - instants[0]).total_seconds()
    if not total:
        return {instants[0]: 0.0}, False
    shares = [(after - before).total_seconds() / total * 100 for before, after in pairwise(instants)]
    widths = _widen(shares, _least(len(shares)))
    places, x = {instants[0]: 0.0}, 0.0
    for instant, width in zip(instants[1:], widths, strict=True):
        x += width
        places[instant] = x
    return places, widths != shares


def _widen(shares: list[float], least: float) -> list[float]:
    """Give each share at least `least`, taking it from what the others have above that."""
    missing = sum(least - share for share in shares if share < least)
    if not missing:
        return shares
    spare = sum(share - least for share in shares if share > least)
    return [least if share <= least else share - (share - least) * missing / spare for share in shares]
