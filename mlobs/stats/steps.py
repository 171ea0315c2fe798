"""Two distribution functions over the same bins, edge by edge: what both distances of ordered values use."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlobs.stats.distances import Floats


class Bins(NamedTuple):
    """Edges of the bins of several columns and their distances, (rows, k) each."""

    upper: Floats
    lower: Floats
    width: Floats


class Part(NamedTuple):
    """One sample: shares of its bins, and their running sums, (rows, k) each."""

    shares: Floats
    upto: Floats


class Steps(NamedTuple):
    """Two samples beside each other."""

    bins: Bins
    one: Part
    other: Part
    apart: Floats
    """F - G at the upper edge of each bin, (rows, k)."""
    left: Floats
    """F - G at the lower one."""


def bins_of(upper: Floats) -> Bins:
    """The bins below the edges `upper`, (rows, k); nothing lies below the first."""
    lower = shifted(upper)
    lower[:, :1] = upper[:, :1]
    return Bins(upper, lower, upper - lower)


def part_of(shares: Floats) -> Part:
    """A sample by the shares of its bins."""
    return Part(shares, np.cumsum(shares, axis=1))


def steps_of(bins: Bins, one: Part, other: Part) -> Steps:
    """Both samples in the same bins."""
    apart = one.upto - other.upto
    return Steps(bins, one, other, apart, shifted(apart))


def shifted(values: Floats) -> Floats:
    """Each value in the place after its own, 0 in the first; (rows, k)."""
    after = np.empty_like(values)
    after[:, :1] = 0.0
    after[:, 1:] = values[:, :-1]
    return after
