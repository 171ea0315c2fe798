"""Kolmogorov-Smirnov distance from bins that know the mean of their values.

At the edges F - G is known. Within a bin it follows from how the values lie in it: those of the reference
evenly; of the others as many likewise as in the neighbouring bins, and the rest evenly over the part that
their mean, and the extremes of the sample, leave to them (a sample that begins within the bin, a default).
Whatever they do, F - G stays within what both edges and the masses allow: that is the error bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlobs.stats.distances import Floats

Places = npt.NDArray[np.intp]
_LEAST = 1e-9
"""Width of the values of a bin, in bins, where all are one."""


class Side(NamedTuple):
    """One sample: shares of its bins, their counts and sums, (rows, k), its extremes, (rows,); in the unit of
    the edges."""

    shares: Floats
    counts: Floats
    sums: Floats
    low: Floats
    high: Floats


def binned_kolmogorov(
    edges: Floats, atoms: npt.NDArray[np.bool_], one: Side, other: Side
) -> tuple[Floats, Floats]:
    """(distance, error bound), each (rows,), in [0, 1], of `one` from the reference `other`.

    `edges` (rows, k): upper edge of each bin, the last ones repeated; `atoms` (rows, k): bins of one value.
    """
    p, q = one.shares, other.shares
    apart = np.cumsum(p - q, axis=1)
    left = np.concatenate([np.zeros((len(apart), 1)), apart[:, :-1]], axis=1)
    found = np.abs(apart).max(axis=1, initial=0.0)
    above, below = np.minimum(left + p, apart + q), np.minimum(q - left, p - apart)
    reach = np.where(atoms, 0.0, np.maximum(above, below))
    bound = np.maximum(reach.max(axis=1, initial=0.0) - found, 0.0)
    lower = np.concatenate([edges[:, :1], edges[:, :-1]], axis=1)
    width = edges - lower
    row, place = at = np.nonzero((reach > found[:, None]) & (p > 0) & (q > 0) & (width > 0))
    if len(row):
        unit = lower[at], width[at]
        even = _even_part(p, q, row, place)
        means = [(side.sums[at] / side.counts[at] - unit[0]) / unit[1] for side in (one, other)]
        rest = p[at] - even
        mean = np.divide(p[at] * means[0] - even * means[1], rest, out=means[0].copy(), where=rest > 0)
        spans = _span(one, row, mean, *unit), _span(other, row, means[1], *unit)
        peak = np.zeros(len(row))
        for end in (*spans[0], *spans[1]):
            risen = left[at] + rest * _risen(end, *spans[0]) + (even - q[at]) * _risen(end, *spans[1])
            peak = np.maximum(peak, np.abs(risen))
        np.maximum.at(found, row, peak)
    return found, bound


def _even_part(p: Floats, q: Floats, row: Places, place: Places) -> Floats:
    """Mass of one sample that lies in a bin as the other does: as much of it as in both neighbouring bins."""
    beside = [np.clip(place + step, 0, p.shape[1] - 1) for step in (-1, 1)]
    ratios = [
        np.divide(p[row, at], q[row, at], out=np.zeros(len(row)), where=q[row, at] > 0) for at in beside
    ]
    return np.asarray(np.minimum(np.minimum(*ratios) * q[row, place], p[row, place]))


def _span(side: Side, row: Places, mean: Floats, lower: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Where values of that mean lie, as parts of the bin: evenly from the first to the second."""
    start = np.clip((side.low[row] - lower) / width, 0.0, 1.0)
    end = np.clip((side.high[row] - lower) / width, 0.0, 1.0)
    mean = np.clip(mean, start, end)
    late = mean > (start + end) / 2
    start, end = np.where(late, 2 * mean - end, start), np.where(late, end, 2 * mean - start)
    return start, np.maximum(end, start + _LEAST)


def _risen(at: Floats, start: Floats, end: Floats) -> Floats:
    """Share of the values below `at`."""
    return np.asarray(np.clip((at - start) / (end - start), 0.0, 1.0))
