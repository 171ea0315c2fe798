"""Bucket bounds: one fine exponential scale that answers as classic and as native buckets.

The fine bounds are those of a Prometheus native histogram of schema 3 (each 2**(1/8) = 1.09 times the one
before), merged with the classic edges. A fine bucket never straddles a classic edge or a native bound, so
both forms are sums of fine buckets, exact. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

SCHEMA = 3
"""Native schema: 8 buckets for each doubling, relative error of a quantile at most 4.4 %."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds (inclusive) of the fine buckets, and which of them are classic edges.

    A block of cells for it holds `len(fine) + 1` counts: the last one is everything above the last bound.
    """

    fine: tuple[float, ...]
    classic: tuple[float, ...]
    places: tuple[int, ...]
    """Index in `fine` of each classic edge."""
    low: int
    """Power of two of the first native bound: at most that is the native zero bucket."""
    high: int
    """Power of two of the last native bound."""

    @property
    def size(self) -> int:
        return len(self.fine) + 1

    def cumulative(self, counts: Sequence[float]) -> list[float]:
        """Counts at or under each classic edge, then all: what `_bucket{le}` shows."""
        running = list(accumulate(counts))
        return [running[place] for place in self.places] + [running[-1]]


def make_bounds(classic: Iterable[float], *, low: int = -14, high: int = 6) -> Bounds:
    """Bounds with the given classic edges over the native scale from 2**low to 2**high.

    The default runs from 61 us to 64 s. Edges must be finite and positive, else ValueError; they are sorted
    and made unique, and may lie outside of the scale.
    """
    edges = sorted({float(edge) for edge in classic})
    if not edges or not all(0 < edge < float("inf") for edge in edges):
        raise ValueError("bucket edges are positive, finite numbers, at least one")
    scale = [2.0 ** (low + step / 2**SCHEMA) for step in range((high - low) * 2**SCHEMA + 1)]
    fine = tuple(sorted({*edges, *scale}))
    index = {bound: place for place, bound in enumerate(fine)}
    return Bounds(fine, tuple(edges), tuple(index[edge] for edge in edges), low, high)


def plain_bounds(classic: Iterable[float]) -> Bounds:
    """Bounds of the classic edges alone, for histograms that have no native form; half as dear to search."""
    edges = tuple(sorted({float(edge) for edge in classic}))
    return Bounds(edges, edges, tuple(range(len(edges))), 0, 0)
