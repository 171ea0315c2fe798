"""Fixed bins of a numeric column, and the fast way into them.

The bins belong to the reference: edges at its quantiles, one bin of its own for every value that stands for
more than a bin's share (an atom), and edges at both ends of what was seen, and at zero where it is not far.
Bin i holds edges[i-1] <= x < edges[i]; an atom a is the bin [a, next float after a).

A look-up table over 4,096 equal cells takes a value to the edges near it; the last step is exact comparison,
so that the result equals `searchsorted` for every float. Beside the count each bin keeps the sum of its
values in fixed point: integers, which add up to the same total in whatever order they come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CELLS = 4096
QUANTILES = 256
TAIL = 6
"""Further edges in each tail, each at half the share of the one before: distances of heavy tails need
them.
"""
_CHUNK = 65536
FINE = 4096.0
"""Fixed-point units in a look-up cell: a 16-millionth of the training range."""
_CLIP = float(2**22)
"""Greatest place in cells: 1,024 times the training range, 2**34 in fixed point; 65,536 rows stay below
2**53.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Edges with their look-up table. Build with `grid_of(edges)`."""

    edges: Floats
    origin: float
    scale: float
    """Cells in one unit of the column."""
    below: npt.NDArray[np.int16]
    """For each cell the number of edges in the cells before it."""
    first: Floats
    """The lowest edge within each cell; inf where there is none."""
    second: Floats | None
    crowded: npt.NDArray[np.bool_] | None
    """Cells with more than two edges: their values are searched."""

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    def count(self, values: Floats) -> tuple[Ints, Ints]:
        """(rows, fixed-point sums) of each bin, shape (bins,), of finite `values`. About 15 ns a value."""
        counts = np.zeros(self.bins, dtype=np.int64)
        sums = np.zeros(self.bins, dtype=np.int64)
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            place = self._place(part)
            cell = np.clip(place, 0.0, CELLS + 1.0).astype(np.intp)
            bins = self.below[cell] + (part >= self.first[cell])
            if self.second is not None:
                bins += part >= self.second[cell]
            if self.crowded is not None:
                hard = self.crowded[cell]
                if hard.any():
                    bins[hard] = np.searchsorted(self.edges, part[hard], side="right")
            counts += np.bincount(bins, minlength=self.bins)
            np.clip(place, -_CLIP, _CLIP, out=place)
            place *= FINE
            sums += np.bincount(bins, weights=np.rint(place, out=place), minlength=self.bins).astype(np.int64)
        return counts, sums

    def _place(self, values: Floats) -> Floats:
        with np.errstate(over="ignore"):
            return np.asarray((values - self.origin) * self.scale)

    def value_sums(self, counts: npt.ArrayLike, sums: npt.ArrayLike) -> Floats:
        """The sums of the values themselves, from counts and fixed-point sums (weighted ones too)."""
        return np.asarray(sums) / (FINE * self.scale) + np.asarray(counts) * self.origin

    @property
    def atoms(self) -> npt.NDArray[np.bool_]:
        """Which bins hold a single value only; shape (bins,)."""
        single = np.zeros(self.bins, dtype=bool)
        single[1:-1] = self.edges[1:] <= np.nextafter(self.edges[:-1], np.inf)
        return single


def grid_of(edges: npt.ArrayLike) -> Grid:
    """The grid of ascending distinct finite `edges`, at least one."""
    exact = np.unique(np.asarray(edges, dtype=np.float64))
    if not len(exact) or not np.isfinite(exact).all():
        raise ValueError("a grid needs at least one edge, all of them finite")
    low, high = float(exact[0]), float(exact[-1])
    width = high / 2 - low / 2
    largest = max(abs(low), abs(high))
    if width <= largest * 1e-13:  # a constant: its own size is the unit
        width = largest or 1.0
    scale = min(CELLS / width / 2, 1e300)
    origin = low - 1.0 / scale
    with np.errstate(over="ignore"):
        cells = np.clip((exact - origin) * scale, 0.0, CELLS + 1.0).astype(np.intp)
    per_cell = np.bincount(cells, minlength=CELLS + 2)
    below = (np.cumsum(per_cell) - per_cell).astype(np.int16)
    first = np.full(CELLS + 2, np.inf)
    second = np.full(CELLS + 2, np.inf)
    some, pair = per_cell >= 1, per_cell >= 2
    first[some] = exact[below[some]]
    second[pair] = exact[below[pair] + 1]
    crowded = per_cell > 2
    return Grid(
        exact, origin, scale, below, first, second if pair.any() else None, crowded if crowded.any() else None
    )


def reference_edges(sample: Floats, quantiles: int = QUANTILES) -> Floats:
    """Edges for a column from finite values of its reference (at least one): quantiles, atoms, zero, both
    ends.

    Fewer quantiles for a small sample, so that a bin expects five rows and more.
    """
    values, counts = np.unique(sample, return_counts=True)
    total = int(counts.sum())
    bins = int(min(quantiles, max(total // 5, 1)))
    atoms = values[counts > max(total / bins, 1.0)] if len(values) > 1 else values
    upto = np.cumsum(counts)
    tail = total / bins * np.exp2(-np.arange(1, TAIL + 1))
    wanted = np.concatenate([np.arange(1, bins) * (total / bins), tail, total - tail])
    ranks = np.minimum(np.searchsorted(upto, wanted, side="left"), len(values) - 1)
    with np.errstate(over="ignore"):  # the float after the greatest is infinite, and left out
        span = values[-1] - values[0]
        zero = np.zeros(1) if values[0] - span <= 0.0 <= values[-1] + span else np.empty(0)
        single = np.concatenate([atoms, zero])
        ends = np.array([values[0], np.nextafter(values[-1], np.inf)])
        edges = np.unique(np.concatenate([values[ranks], single, np.nextafter(single, np.inf), ends]))
    return np.asarray(edges[np.isfinite(edges)])
