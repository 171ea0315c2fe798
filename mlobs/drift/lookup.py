"""From a value to its bin without a search: a table over equal cells, exact for every float.

A place (see `grid`) falls into one of 4,096 cells, the cell says how many edges lie before it, and one exact
comparison decides between both sides of the edge within. Two edges in a cell take a second comparison, where
that is common, or a search, where it is rare. Both ends of the table may stand within the tails of the edges:
few values lie beyond, and are searched; the body of a heavy-tailed column gets the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

CELLS: Final = 4096
_CUTS: Final = (0, 2, 4, 6, 8, 10, 14, 20)
"""Edges that the table may leave out at each end; the outer ones hold less than a bin's share: see `grid`."""
_SEARCH: Final = 60.0
_COMPARE: Final = 1.4
"""What a search and a comparison cost a value, in ns: they decide which table is taken, and no result."""
_FINEST: Final = 2.0**39
"""Cells in one place at most, so that the number of a cell fits an integer."""


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """Build with `lookup_of(edges, places)`."""

    edges: Floats
    start: float
    cells: float
    """Cells in one place."""
    below: Places
    """For each cell the number of edges in the cells before it; what no number of edges is where it takes a
    search."""
    upper: Floats
    """The edge above each bin, infinite above the last one and above what takes a search."""
    twice: bool

    def bins(self, values: Floats, places: Floats, out: Places, spare: Floats) -> Places:
        """`searchsorted(edges, values, side="right")` of finite values, into `out`; shape (n,) like `spare`,
        which is overwritten. About 4 ns a value. The places must be those of `values`, within 2**22."""
        np.subtract(places, self.start, out=spare)
        spare *= self.cells
        cell = spare.astype(np.intp)  # what lies beyond the table counts to the cell at its end
        self.below.take(cell, out=out, mode="clip")
        for _ in range(1 + self.twice):
            self.upper.take(out, out=spare, mode="clip")
            out += values >= spare
        hard = np.flatnonzero(out > len(self.edges))
        if len(hard):
            out[hard] = np.searchsorted(self.edges, values[hard], side="right")
        return out


def lookup_of(edges: Floats, places: Floats) -> Lookup:
    """The cheapest table for ascending `edges` and their places, (n,) each. Some 200 us."""
    last = len(edges) - 1
    _, cut, twice = min(
        (_cost(_cells(places, *_transform(places, cut)), twice), cut, twice)
        for cut in _CUTS
        if cut == 0 or 2 * cut < last
        for twice in (False, True)
    )
    start, cells = _transform(places, cut)
    cell = _cells(places, start, cells)
    per_cell = np.bincount(cell, minlength=CELLS)
    below = np.cumsum(per_cell) - per_cell
    below[per_cell > 1 + twice] = len(edges) + 1
    upper = np.concatenate([edges, [np.inf, np.inf]])
    return Lookup(edges, start, cells, below.astype(np.intp), upper, twice)


def _transform(places: Floats, cut: int) -> tuple[float, float]:
    """(start, cells in a place): the edges but for `cut` at each end lie in the cells 1 to CELLS - 2."""
    low, high = float(places[cut]), float(places[-1 - cut])
    cells = min((CELLS - 3) / (high - low), _FINEST) if high > low else 1.0
    return low - 1.0 / cells, cells


def _cells(places: Floats, start: float, cells: float) -> Places:
    return np.clip(((places - start) * cells).astype(np.intp), 0, CELLS - 1)


def _cost(cell: Places, twice: bool) -> float:
    """ns a value, about, if every edge stands for as many values."""
    hard = (np.bincount(cell, minlength=CELLS) > 1 + twice)[cell]
    return float(hard.mean()) * _SEARCH + _COMPARE * twice
