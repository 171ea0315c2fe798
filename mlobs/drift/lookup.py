"""From a value to its bin without a search: a table over equal cells, exact for every float.

A place (see `grid`) falls into one of 4,096 cells, the cell says how many edges lie before it, and one exact
comparison decides between both sides of the edge within. Two edges in a cell take a second comparison, where
that is common, or a search, where it is rare. Where nearly all edges are those of atoms the cell guesses the
atom, and one comparison confirms it. Both ends of the table may stand within the tails of the edges: few
values lie beyond, and are searched; the body of a heavy-tailed column gets the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

CELLS: Final = 4096
_CUTS: Final = (0, 2, 4, 6, 8, 10, 14, 20)
"""Edges that the table may leave out at each end; the outer ones hold less than a bin's share: see `grid`."""
_SEARCH: Final = 60.0
_COMPARE: Final = 1.4
"""What a search and a comparison cost a value, in ns: they decide which table is taken, and no result."""
_ATOMIC: Final = 0.75
"""Share of the edges that belong to atoms from which on a cell guesses its atom."""
_FINEST: Final = 2.0**16
"""Cells in one place at most: see `_WHOLE`."""
_WHOLE: Final = 2.0**52
"""From here on a float64 is whole, and its bits count up by one: adding it makes a number one with a cell of
its own in the low bits. A quarter of the price of a conversion. Holds for what is within 2**51."""
_WHOLE_BITS: Final = int(np.float64(_WHOLE).view(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """Build with `lookup_of(edges, places)`."""

    edges: Floats
    cells: float
    """Cells in one place."""
    shift: float
    """Where the cells begin, and `_WHOLE`."""
    below: Places
    """For each cell the number of edges in the cells before it; what no number of edges is where it takes a
    search."""
    upper: Floats
    """The edge above each bin, infinite above the last one and above what takes a search."""
    twice: bool
    atoms: Places | None
    """For each cell the bin of the atom in it, 0 where there is none; only for columns of atoms."""
    lower: Floats
    """The edge below each bin, NaN below the first one."""

    def bins(self, values: Floats, room: Room) -> Places:
        """`searchsorted(edges, values, side="right")` of finite values, shape (n,), in `room.found`; about 3
        ns a value. `room.places` must be those of `values`, within 2**34."""
        cell = self._cells(room.places, room.spare)
        if self.atoms is None:
            return self._compared(values, cell, room)
        found = self.atoms.take(cell, out=room.found, mode="clip")
        guessed = self.lower.take(found, out=room.spare, mode="clip")  # over the cells
        other = np.not_equal(values, guessed, out=room.flags).nonzero()[0]
        if len(other):
            small = room_for(len(other))
            cell = self._cells(room.places[other], small.spare)
            found[other] = self._compared(values[other], cell, small)
        return found

    def _cells(self, places: Floats, out: Floats) -> Places:
        """Numbers of cells, in the memory of `out`; what lies beyond the table counts to the cell at its
        end."""
        np.multiply(places, self.cells, out=out)
        out += self.shift
        cell = out.view(np.int64)
        cell -= _WHOLE_BITS
        return cell

    def _compared(self, values: Floats, cell: Places, room: Room) -> Places:
        """`cell` lies in `room.spare`, and is used up."""
        found = self.below.take(cell, out=room.found, mode="clip")
        for _ in range(1 + self.twice):
            above = self.upper.take(found, out=room.spare, mode="clip")
            found += np.greater_equal(values, above, out=room.flags)
        hard = np.greater(found, len(self.edges), out=room.flags).nonzero()[0]
        if len(hard):
            found[hard] = self.edges.searchsorted(values[hard], side="right")
        return found


class Room(NamedTuple):
    """Memory for n values that column after column works in: what is in the cache already costs less. A room
    is for one thread."""

    places: Floats
    spare: Floats
    found: Places
    flags: npt.NDArray[np.bool_]

    def part(self, size: int) -> Room:
        """Room for `size` values, no more than there is."""
        if size == len(self.places):
            return self
        return Room(self.places[:size], self.spare[:size], self.found[:size], self.flags[:size])


def room_for(size: int) -> Room:
    """Room for `size` values."""
    return Room(
        np.empty(size), np.empty(size), np.empty(size, dtype=np.int64), np.empty(size, dtype=np.bool_)
    )


def lookup_of(edges: Floats, places: Floats) -> Lookup:
    """The cheapest table for ascending `edges` and their places, (n,) each. Some 200 us."""
    last = len(edges) - 1
    _, cut, twice = min(
        (_cost(_cells(places, *_transform(places, cut)), twice), cut, twice)
        for cut in _CUTS
        if cut == 0 or 2 * cut < last
        for twice in (False, True)
    )
    cells, shift = _transform(places, cut)
    cell = _cells(places, cells, shift)
    per_cell = np.bincount(cell, minlength=CELLS)
    below = np.cumsum(per_cell) - per_cell
    below[per_cell > 1 + twice] = len(edges) + 1
    upper = np.concatenate([edges, [np.inf, np.inf]])
    lower = np.concatenate([[np.nan], edges])
    return Lookup(edges, cells, shift, below, upper, twice, _atoms(edges, cell, per_cell), lower)


def _atoms(edges: Floats, cell: Places, per_cell: Places) -> Places | None:
    """The bin of the atom that a cell holds alone; None unless those are most of the edges."""
    single = (edges[1:] == np.nextafter(edges[:-1], np.inf)) & (cell[1:] == cell[:-1])
    first = np.flatnonzero(single & (per_cell[cell[1:]] == 2))
    if 2 * len(first) < _ATOMIC * len(edges):
        return None
    atoms = np.zeros(CELLS, dtype=np.int64)
    atoms[cell[first]] = first + 1
    return atoms


def _transform(places: Floats, cut: int) -> tuple[float, float]:
    """(cells in a place, shift): the edges but for `cut` at each end lie in the cells 1 to CELLS - 2."""
    low, high = float(places[cut]), float(places[-1 - cut])
    cells = min((CELLS - 3) / (high - low), _FINEST) if high > low else 1.0
    return cells, _WHOLE + (1.0 - low * cells)


def _cells(places: Floats, cells: float, shift: float) -> Places:
    number = (places * cells + shift).view(np.int64) - _WHOLE_BITS
    return np.clip(number, 0, CELLS - 1)


def _cost(cell: Places, twice: bool) -> float:
    """ns a value, about, if every edge stands for as many values."""
    hard = (np.bincount(cell, minlength=CELLS) > 1 + twice)[cell]
    return float(hard.mean()) * _SEARCH + _COMPARE * twice
