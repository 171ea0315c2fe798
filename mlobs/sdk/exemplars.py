"""Exemplars: kept calls by the bucket they fell into, so that a metric leads to a trace that exists.

Taken from kept calls alone, and while tracing when a collector has taken their spans: metric to trace to
feature record always resolves. Workers show each other theirs in cells: nine for each bucket, of which the
last is a checksum, so that one that is being written is no exemplar and never half of two.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import NamedTuple

from mlobs.sdk.trace import TraceContext

SLOT = 9
"""Cells of one: value, time, four of the trace's id and two of the span's (32 bits each), checksum."""
_IDS = SLOT - 3
_PACKED = struct.Struct(f"<{SLOT - 1}d")

Series = tuple[str, ...]
"""Label values: model, version, outcome."""


class Noted(NamedTuple):
    """One exemplar: the observed seconds, whose trace, at what time (seconds since the epoch)."""

    value: float
    trace_id: str
    span_id: str
    at: float


class Exemplars:
    """The newest kept call of each bucket of each series. `edges` gives a model's classic buckets."""

    def __init__(self, edges: Callable[[str], Sequence[float]]) -> None:
        self._edges = edges
        self._noted: dict[Series, tuple[Sequence[float], dict[int, Noted]]] = {}

    def note(self, series: Series, value: float, context: TraceContext, at: float) -> None:
        """Remember a kept call; about 0.6 us."""
        found = self._noted.get(series)
        if found is None:
            found = self._noted.setdefault(series, (self._edges(series[0]), {}))
        edges, newest = found
        newest[bisect_left(edges, value)] = Noted(value, context.trace_id, context.span_id, at)

    def all(self) -> dict[Series, list[Noted]]:
        """Every series', in the order of their buckets."""
        return {
            series: [newest[place] for place in sorted(newest)]
            for series, (_, newest) in list(self._noted.items())
        }


def by_bucket(noted: Iterable[Noted], edges: Sequence[float]) -> dict[int, Noted]:
    """The newest of each bucket, by the place of its upper edge; `len(edges)` is everything above."""
    found: dict[int, Noted] = {}
    for one in noted:
        place = bisect_left(edges, one.value)
        if place not in found or found[place].at <= one.at:
            found[place] = one
    return found


# -- in cells -----------------------------------------------------------------------------------------------


def write(cells: MutableSequence[float], place: int, noted: Noted) -> None:
    """Put it into the slot of bucket `place`, over an older one. One process writes, any may read."""
    at = place * SLOT
    if cells[at + 1] <= noted.at and (cells[at], cells[at + 1]) != (noted.value, noted.at):
        digits = noted.trace_id + noted.span_id
        ids = [float(int(digits[8 * part : 8 * part + 8], 16)) for part in range(_IDS)]
        slot = [noted.value, noted.at, *ids]
        for step, value in enumerate([*slot, _checksum(slot)]):
            cells[at + step] = value


def read(cells: Sequence[float]) -> Iterator[Noted]:
    """Those that are whole."""
    for at in range(0, len(cells) - SLOT + 1, SLOT):
        *slot, checksum = cells[at : at + SLOT]
        if checksum and checksum == _checksum(slot):
            digits = "".join(f"{int(part):08x}" for part in slot[2:])
            yield Noted(slot[0], digits[:32], digits[32:], slot[1])


def _checksum(slot: Sequence[float]) -> float:
    """Never 0: that is a slot in which nothing was written."""
    return 1.0 + zlib.crc32(_PACKED.pack(*slot))
