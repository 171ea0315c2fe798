"""Text from outside (feature names, segments, summaries) made fit for a page.

What comes in may hold control characters, line breaks, lone surrogates or right-to-left overrides, and may
try to look like markup. `clean` runs once, when an alert or a part enters; each channel then escapes for
its own format.
"""

from __future__ import annotations

import textwrap
import unicodedata
from datetime import datetime
from zoneinfo import ZoneInfo

SHOWN = 200
"""Characters of one text on a page."""

_ELLIPSIS = "…"


def clean(text: object, limit: int = SHOWN) -> str:
    """One printable line of at most `limit` characters.

    Control, format, private and surrogate characters go (Unicode categories C*); runs of white space become a
    blank; what is longer ends in an ellipsis. Linear in the length kept, not in the length given.
    """
    raw = str(text)[: limit * 4]
    kept = "".join(
        " " if one.isspace() else one for one in raw if one.isspace() or unicodedata.category(one)[0] != "C"
    )
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + _ELLIPSIS


def moment(at: float | None, zone: str = "UTC") -> str:
    """`2013-03-20 01:00 EDT` in an IANA zone; `unknown` for what is no time."""
    if at is None or not -62135500000 <= at < 253402200000:
        return "unknown"
    return datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %Z")


def wrapped(line: str, width: int, most: int) -> list[str]:
    """`line` over at most `most` lines of `width`, continued with a deeper indentation; what is left is
    cut.
    """
    if most <= 1 or len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip(" ")))
    found = textwrap.wrap(
        line,
        width,
        subsequent_indent=indent + "  ",
        max_lines=most,
        placeholder=_ELLIPSIS,
        drop_whitespace=True,
    )
    return found or [line]


def percent(share: float | None) -> str:
    """`31 %`, `0.4 %`; two significant digits below ten."""
    if share is None:
        return "unknown"
    value = share * 100
    return f"{value:z.0f} %" if abs(value) >= 10 or value == 0 else f"{value:.2g} %"


def count(number: float | None) -> str:
    """Whole numbers without a point, others with three digits."""
    if number is None:
        return "?"
    return f"{number:,.0f}" if number == int(number) else f"{number:,.3g}"
