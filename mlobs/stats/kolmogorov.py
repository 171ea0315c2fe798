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
from mlobs.stats.steps import Steps, bins_of, part_of, steps_of

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
    edges: Floats, atoms: npt.NDArray[np.bool_], one: Side, other: Side, steps: Steps | None = None
) -> tuple[Floats, Floats]:
    """(distance, error bound), each (rows,), in [0, 1], of `one` from the reference `other`.

    `edges` (rows, k): upper edge of each bin, the last ones repeated; `atoms` (rows, k): bins of one value.
    `steps` are those of both sides, for who has them.
    """
    if steps is None:
        steps = steps_of(bins_of(edges), part_of(one.shares), part_of(other.shares))
    p, q, apart, left = steps.one.shares, steps.other.shares, steps.apart, steps.left
    found = np.abs(apart).max(axis=1, initial=0.0)
    reach = np.maximum(np.minimum(left + p, apart + q), np.minimum(q - left, p - apart))
    np.copyto(reach, 0.0, where=atoms)
    bound = np.maximum(reach.max(axis=1, initial=0.0) - found, 0.0)
    at = np.flatnonzero(reach > found[:, None])
    at = at[(p.take(at) > 0) & (q.take(at) > 0) & (steps.bins.width.take(at) > 0)]
    if len(at):
        np.maximum.at(found, at // p.shape[1], _peaks(steps, one, other, at))
    return found, bound


def _peaks(steps: Steps, one: Side, other: Side, at: Places) -> Floats:
    """The greatest |F - G| within the bins `at` (numbered through all rows), shape of `at`."""
    row, place = np.divmod(at, steps.apart.shape[1])
    unit = steps.bins.lower.take(at), steps.bins.width.take(at)
    mass, others = steps.one.shares.take(at), steps.other.shares.take(at)
    even = _even_part(steps, row, place)
    means = [(side.sums.take(at) / side.counts.take(at) - unit[0]) / unit[1] for side in (one, other)]
    rest = mass - even
    mean = np.divide(mass * means[0] - even * means[1], rest, out=means[0].copy(), where=rest > 0)
    spans = _span(one, row, mean, *unit), _span(other, row, means[1], *unit)
    left, peak = steps.left.take(at), np.zeros(len(at))
    for end in (*spans[0], *spans[1]):
        risen = left + rest * _risen(end, *spans[0]) + (even - others) * _risen(end, *spans[1])
        np.maximum(peak, np.abs(risen), out=peak)
    return peak


def _even_part(steps: Steps, row: Places, place: Places) -> Floats:
    """Mass of one sample that lies in a bin as the other does: as much of it as in both neighbouring bins."""
    p, q, size = steps.one.shares, steps.other.shares, steps.apart.shape[1]
    ratios = []
    for beside in (np.maximum(place - 1, 0), np.minimum(place + 1, size - 1)):
        at = row * size + beside
        below = q.take(at)
        ratios.append(np.divide(p.take(at), below, out=np.zeros(len(at)), where=below > 0))
    at = row * size + place
    return np.asarray(np.minimum(np.minimum(*ratios) * q.take(at), p.take(at)))


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
