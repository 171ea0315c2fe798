"""Durations as people write them (`100ms`, `5m`, `30d`) and as Prometheus does; seconds inside.

Exact: text becomes a `Decimal` and stays one, so that 100ms is 0.1 and not 0.1000000000000000055.
"""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
    "w": Decimal(604800),
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> Decimal:
    """Seconds of `text`, for example `1h30m` -> 5400.

    Raises ValueError unless the whole text is one or more numbers, each with a unit out of
    us, ms, s, m, h, d, w. A bare number has no unit and is refused: `100` could be anything.
    """
    compact = text.strip()
    if not _WHOLE.fullmatch(compact):
        raise ValueError(f"{text[:40]!r} is no duration: write a number with a unit, like 100ms, 5m or 30d")
    return sum((Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(compact)), Decimal(0))


def format_duration(seconds: Decimal | float | int) -> str:
    """Shortest exact text of `seconds` in the largest unit that divides it: 5400 -> `90m`, 0.1 -> `100ms`.

    Accepted by `parse_duration` and, for whole milliseconds, by Prometheus. Negative values raise.
    """
    value = seconds if isinstance(seconds, Decimal) else Decimal(str(seconds))
    if value < 0 or not value.is_finite():
        raise ValueError(f"a duration is finite and not negative, got {seconds}")
    if value == 0:
        return "0s"
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count = value / _UNITS[unit]
        if count == count.to_integral_value():
            return f"{int(count)}{unit}"
    return f"{format((value / _UNITS['us']).normalize(), 'f')}us"


def speak_duration(seconds: float) -> str:
    """About how long, for people: `3 d 4 h`, `12 min`, `850 ms`. Two units at the most."""
    if seconds != seconds or seconds in (float("inf"), float("-inf")):
        return "for ever" if seconds > 0 else "unknown"
    if seconds < 0:
        return "-" + speak_duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    parts: list[str] = []
    rest = round(seconds)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts[:2])
