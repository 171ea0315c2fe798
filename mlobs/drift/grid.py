"""Fixed bins of a numeric column, and the fast way into them.

The bins belong to the reference: edges at its quantiles, one bin of its own for every value that stands for
more than a bin's share (an atom), and edges at both ends of what was seen, and at zero where it is not far.
Bin i holds edges[i-1] <= x < edges[i]; an atom a is the bin [a, next float after a).

A value's place is its distance from the first edge, in fixed-point units: 4,096 to a 4,096th of the training
range; `lookup` takes places to bins, exactly. Beside the count each bin keeps the sum of its values' places,
rounded: integers, which add up to the same total in whatever order they come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlobs.drift.lookup import Lookup, Room, lookup_of, room_for

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CELLS = 4096
"""Units of `scale` in the training range."""
QUANTILES = 256
TAIL = 6
"""Further edges in each tail, each at half the share of the one before: distances of heavy tails need
them.
"""
CHUNK = 16384
"""Values at a time: what fits the cache costs half."""
FINE = 4096.0
"""Fixed-point units in a unit of `scale`."""
_CLIP = float(2**34)
"""Greatest place: 1,024 training ranges; a chunk's sum stays below 2**53."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Edges with the way to them. Build with `grid_of(edges)`."""

    edges: Floats
    origin: float
    scale: float
    """4,096ths of the training range in one unit of the column."""
    lookup: Lookup

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    def count(self, values: Floats, low: float, high: float, room: Room | None = None) -> tuple[Ints, Ints]:
        """(rows, fixed-point sums) of each bin, shape (bins,), of finite `values`, the least of which is
        `low` and the greatest `high`. About 6 ns a value. `room` is for `CHUNK` values, or for all where
        there are fewer; for who counts several columns."""
        size = min(len(values), CHUNK)
        scale = self.scale * FINE
        first, last = (low - self.origin) * scale, (high - self.origin) * scale
        far = not -_CLIP <= first <= last <= _CLIP
        base, shift = (0, 0) if far else _together(size, first, last)
        room = (room or room_for(size)).part(size)
        if len(values) <= CHUNK:
            return self._count(values, room, far, base, shift)
        counts, sums = np.zeros(self.bins, dtype=np.int64), np.zeros(self.bins, dtype=np.int64)
        for start in range(0, len(values), CHUNK):
            part = values[start : start + CHUNK]
            rows, added = self._count(part, room.part(len(part)), far, base, shift)
            counts += rows
            sums += added
        return counts, sums

    def _count(self, values: Floats, room: Room, far: bool, base: int, shift: int) -> tuple[Ints, Ints]:
        bins, places, scale = self.bins, room.places, self.scale * FINE
        if far:
            _far_places(values, self.origin, scale, places)
        else:
            np.subtract(values, self.origin, out=places)
            places *= scale
        found = self.lookup.bins(values, room)
        np.rint(places, out=places)
        if not shift:
            return np.bincount(found, minlength=bins), np.bincount(found, places, bins).astype(np.int64)
        places += (1 << shift) - base
        both = np.bincount(found, places, bins).astype(np.int64)
        rows = both >> shift
        both &= (1 << shift) - 1
        both += rows * base
        return rows, both

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
    return Grid(
        exact, origin, scale, lookup_of(exact, _far_places(exact, origin, scale * FINE, np.empty(len(exact))))
    )


def _together(size: int, first: float, last: float) -> tuple[int, int]:
    """(base, shift): `size` rounded places from `first` to `last`, less `base`, add up to less than 2**shift,
    and `size` times 2**shift stays below 2**53, so that one exact float64 counts and adds up. A shift of 0
    where they lie too far apart for that."""
    base = round(first)
    shift = 53 - size.bit_length()
    return (base, shift) if size * (round(last) - base) < 1 << shift else (0, 0)


def _far_places(values: Floats, origin: float, scale: float, out: Floats) -> Floats:
    """Places of values that may leave the range of the places: there they stand at its end."""
    with np.errstate(over="ignore"):
        np.subtract(values, origin, out=out)
        out *= scale
    return np.clip(out, -_CLIP, _CLIP, out=out)


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
