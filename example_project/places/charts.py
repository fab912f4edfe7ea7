"""Charts as SVG, computed from numbers alone."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

#: Sizes in SVG user units.
ROW_HEIGHT = 24
LABEL_WIDTH = 120
BAR_WIDTH = 400
TITLE_HEIGHT = 40


def bar_chart(title: str, counts: Mapping[str, int]) -> str:
    """Draw one horizontal bar for each name, scaled to the largest count."""
    largest = max(counts.values(), default=0) or 1
    height = TITLE_HEIGHT + ROW_HEIGHT * len(counts)
    width = LABEL_WIDTH + BAR_WIDTH + 60
    bars = [_bar(row, name, count, BAR_WIDTH * count / largest) for row, (name, count) in enumerate(counts.items())]
    box = f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="14"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{escape(title)}</title>",
        f'<text x="8" y="24" font-size="16">{escape(title)}</text>',
        *bars,
        "</svg>",
    ]
    return "\n".join([*lines, ""])


def _bar(row: int, name: str, count: int, length: float) -> str:
    top = TITLE_HEIGHT + ROW_HEIGHT * row
    base = top + 15
    return (
        f'<text x="{LABEL_WIDTH - 8}" y="{base}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="18" fill="#417690"/>'
        f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{base}">{count}</text>'
    )
