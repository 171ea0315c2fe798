"""Fine buckets -> a Prometheus native histogram of schema 3. Pure.

Native bucket i holds (2**((i - 1) / 8), 2**(i / 8)]. What is at most the scale's low end is the zero bucket;
what is above its high end and above every classic edge stands in the bucket after the last, since the format
has no overflow bucket.
https://prometheus.io/docs/specs/native_histograms/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlobs.sdk.buckets import SCHEMA, Bounds

_STEPS = 2**SCHEMA


@dataclass(frozen=True, slots=True)
class Native:
    """A native histogram as the protobuf format writes it: counts are deltas between neighbours."""

    count: int
    total: float
    zero_threshold: float
    zero_count: int
    spans: tuple[tuple[int, int], ...]
    """(gap since the end of the last one, length) of each run of buckets."""
    deltas: tuple[int, ...]


@lru_cache(maxsize=64)
def _places(fine: tuple[float, ...], low: int) -> tuple[int | None, ...]:
    """The native bucket of each fine one, None for the zero bucket, and of what is above the last bound."""
    # A hair below: log2 of a scale's own bound may come out above its step.
    found = [None if bound <= 2.0**low else math.ceil(math.log2(bound) * _STEPS - 1e-6) for bound in fine]
    return (*found, (found[-1] or low * _STEPS) + 1)


def make_native(counts: Sequence[float], total: float, bounds: Bounds) -> Native:
    """`counts` of `bounds.fine` and above -> the native form. A fine bucket straddles no native bound."""
    zero, by_place = 0, dict[int, int]()
    for place, count in zip(_places(bounds.fine, bounds.low), counts, strict=True):
        if place is None:
            zero += int(count)
        elif count:
            by_place[place] = by_place.get(place, 0) + int(count)
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    end = before = 0
    for place in sorted(by_place):
        if spans and place == end:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((place - end if spans else place, 1))
        deltas.append(by_place[place] - before)
        before, end = by_place[place], place + 1
    return Native(zero + sum(by_place.values()), total, 2.0**bounds.low, zero, tuple(spans), tuple(deltas))
