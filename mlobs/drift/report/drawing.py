"""Bars as inline SVG: the reference on the left, the current table on the right, one scale. Pure.

Every text that comes from the data is escaped; colours are variables of the page, for light and dark.
"""

from __future__ import annotations

from html import escape

from mlobs.drift.moments import axis_text
from mlobs.drift.report.shapes import Bars

WIDTH, GAP = 300, 30
HEIGHT = 130
_ROW = 20
_LABEL = 150
_WIDE = WIDTH + _LABEL // 2
"""A panel of a number: both kinds of figure are as wide, so that their letters are as large."""


def plain(text: str, most: int = 200) -> str:
    """Text of users for HTML: control characters and lone surrogates out, cut, escaped."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return escape(shown.encode("utf-8", "replace").decode("utf-8"), quote=True)


def draw(bars: Bars, name: str) -> str:
    """The figure of a column."""
    return _categories(bars, name) if bars.labels else _numbers(bars, name)


def _numbers(bars: Bars, name: str) -> str:
    top = max(*bars.reference, *bars.current, 1e-12)
    step = _WIDE / len(bars.reference)

    def heights(shares: tuple[float, ...]) -> list[float]:
        return [share / top * HEIGHT for share in shares]

    parts = []
    for place, (side, shares) in enumerate((("reference", bars.reference), ("current", bars.current))):
        left = place * (_WIDE + GAP)
        parts.append(f'<text x="{left}" y="12" class="side">{side}</text>')
        for at, (share, height) in enumerate(zip(shares, heights(shares), strict=True)):
            if share > 0:
                tall = max(height, 0.8)
                parts.append(
                    f'<rect class="{side}" x="{left + at * step:.1f}" y="{22 + HEIGHT - tall:.1f}" '
                    f'width="{step - 1:.1f}" height="{tall:.1f}"><title>{share:.2%}</title></rect>'
                )
        if side == "current":
            outline = _outline(heights(bars.reference), left, step)
            parts.append(f'<path class="ghost" d="{outline}"><title>the reference</title></path>')
        base = 22 + HEIGHT
        parts.append(f'<line class="axis" x1="{left}" y1="{base}" x2="{left + _WIDE}" y2="{base}"/>')
        for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
            value = bars.low + (bars.high - bars.low) * share
            x, label = left + _WIDE * share, axis_text(value, bars.high - bars.low, bars.arrow)
            parts.append(f'<text x="{x:.0f}" y="{base + 15}" text-anchor="{anchor}">{label}</text>')
    return _svg(parts, 2 * _WIDE + GAP, HEIGHT + 42, name)


def _outline(heights: list[float], left: float, step: float) -> str:
    path, base = [], 22 + HEIGHT
    for at, height in enumerate(heights):
        path.append(f"{'M' if not at else 'L'}{left + at * step:.1f} {base - height:.1f}")
        path.append(f"H{left + (at + 1) * step:.1f}")
    return " ".join(path)


def _categories(bars: Bars, name: str) -> str:
    top = max(*bars.reference, *bars.current, 1e-12)
    room = WIDTH - 60
    parts = []
    for place, (side, shares) in enumerate((("reference", bars.reference), ("current", bars.current))):
        left = _LABEL + place * (WIDTH + GAP)
        parts.append(f'<text x="{left}" y="12" class="side">{side}</text>')
        for row, share in enumerate(shares):
            y = 22 + row * _ROW
            width = max(share / top * room, 0.8 if share else 0.0)
            parts.append(
                f'<rect class="{side}" x="{left}" y="{y}" width="{width:.1f}" height="{_ROW - 6}"/>'
                f'<text x="{left + width + 5:.1f}" y="{y + 11}">{share:.1%}</text>'
            )
    for row, label in enumerate(bars.labels):
        parts.append(
            f'<text x="{_LABEL - 8}" y="{33 + row * _ROW}" text-anchor="end">{plain(label, 22)}'
            f"<title>{plain(label)}</title></text>"
        )
    return _svg(parts, _LABEL + 2 * WIDTH + GAP, 26 + len(bars.labels) * _ROW, name)


def _svg(parts: list[str], width: int, height: int, name: str) -> str:
    title = f"distribution of {plain(name)} in the reference and in the current table"
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )
