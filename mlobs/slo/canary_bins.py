"""Counts per bin, and where to part them: the shares that a canary compares are of tails. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

_BEYOND = 10.0
"""So many of the pooled past must lie beyond a quantile before it is used."""
_COARSE: Final = 4.0
"""A tail whose share is off by more than this factor is another quantile: buckets are too coarse for it."""
PARTS: Final = 20
"""Bins that scores are counted in, each with as many of those that fixed the edges."""


def tail_cut(pooled: Sequence[int], quantile: float) -> int | None:
    """The first bin of the tail whose share comes nearest (in ratio) to 1 - `quantile`; None while fewer than
    ten of the pooled past lie there, or where no edge comes within a factor of 4. Of the past alone."""
    total = sum(pooled)
    wanted = 1.0 - quantile
    if total * wanted < _BEYOND:
        return None
    best, found, tail = math.log(_COARSE), None, 0
    for cut in range(len(pooled) - 1, 0, -1):
        tail += pooled[cut]
        if 0 < tail < total:
            distance = abs(math.log(tail / total / wanted))
            if distance < best:
                best, found = distance, cut
    return found


def pooled(before: tuple[int, ...], *arms: tuple[int, ...]) -> tuple[int, ...]:
    """The past with both arms; with other bins than before (a decision that is new) it begins anew."""
    if not arms[0] or len({len(arm) for arm in arms}) != 1:
        return before
    start = before if len(before) == len(arms[0]) else (0,) * len(arms[0])
    return tuple(map(sum, zip(start, *arms, strict=True)))


def edges_of(values: Iterable[float]) -> tuple[float, ...]:
    """Upper edges (inclusive) of up to `PARTS` bins with as many of `values` in each; the last has none.

    Of values of which half are the same there are fewer; of values that are all the same there is one edge.
    """
    ordered = sorted(values)
    return tuple(sorted({ordered[(len(ordered) - 1) * part // PARTS] for part in range(1, PARTS)}))


def count_in(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """How many of `values` lie in each bin, length len(edges) + 1."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_left(edges, value)] += 1
    return counts
