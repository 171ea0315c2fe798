"""Cutting time into slices: the drift stage's windows and the SLO engine's slices are the same ones.

Slices of a day or of whole days begin at local midnight of a zone, so that a day with a clock change
has 23 or 25 hours and stays a day. Shorter slices are counted from the epoch: a minute ends on a full minute.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = 86400
_EPOCH_DAY = date(1970, 1, 1)


class Slice(NamedTuple):
    """Half-open stretch of time `[start, end)` in seconds since the epoch."""

    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


def slice_at(t: float, length: float, zone: str = "UTC") -> Slice:
    """The slice of `length` seconds that holds time `t`.

    `length` is a divisor of a day (1m, 15m, 6h) or a whole number of days; anything else raises ValueError,
    as its slices would drift against the clock.
    """
    if length < DAY:
        if length <= 0 or DAY % length:
            raise ValueError(f"a slice of {length} s does not divide a day")
        start = t // length * length
        return Slice(start, start + length)
    if length % DAY:
        raise ValueError(f"a slice of {length} s is not a whole number of days")
    days = int(length // DAY)
    local = datetime.fromtimestamp(t, ZoneInfo(zone)).date()
    number = (local - _EPOCH_DAY).days // days * days
    return Slice(_midnight(number, zone), _midnight(number + days, zone))


def slices_between(start: float, end: float, length: float, zone: str = "UTC") -> list[Slice]:
    """The whole slices that lie within `[start, end]`, in order."""
    found = []
    current = slice_at(start, length, zone)
    if current.start < start:
        current = slice_at(current.end, length, zone)
    while current.end <= end:
        found.append(current)
        current = slice_at(current.end, length, zone)
    return found


@lru_cache(maxsize=4096)
def _midnight(day_number: int, zone: str) -> float:
    day = _EPOCH_DAY + timedelta(days=day_number)
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp()
