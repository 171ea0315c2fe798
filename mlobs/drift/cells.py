"""The reference side of a score, prepared once: its counts as one matrix, coarse cells, edges. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlobs.drift.deep import word_hash
from mlobs.drift.grid import FINE, Floats
from mlobs.drift.spec import CATEGORY, NUMBER, ColumnSpec, Spec
from mlobs.drift.state import State

NUMBER_CELL: Final = 1 / 20
CATEGORY_CELL: Final = 1 / 100
LEAST_CELL: Final = 1 / 10_000
"""What stands beside a large atom keeps a coarse cell of its own from this share of the reference on."""


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A state as matrices, one row a column that has a distribution; weights applied. `w` is the widest
    column.
    """

    cells: Floats
    """(rows, w)."""
    sums: Floats
    """(rows, w): value sums in units of the column's look-up cells, from its origin."""
    effective: Floats
    """(rows,): effective number of values (Kish)."""
    low: Floats
    high: Floats
    """(rows,): extremes; low > high without values, and for categories."""


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """A reference, ready to be laid beside any number of windows. Build with `yardstick`."""

    spec: Spec
    names: tuple[str, ...]
    numeric: npt.NDArray[np.bool_]
    counted: Counted
    groups: npt.NDArray[np.intp]
    """(rows, w): the coarse cell of each cell."""
    coarse: Floats
    """(rows, g): the reference's counts of the coarse cells."""
    edges: Floats
    """(rows, w): the upper edge of each bin in look-up cells; the last of a row is that of the one before
    it.
    """
    atoms: npt.NDArray[np.bool_]
    """(rows, w): bins that hold a single value."""
    scale: Floats
    """(rows,): look-up cells in one unit of the column."""
    origin: Floats
    """(rows,): where they begin."""

    def coarsened(self, cells: Floats) -> Floats:
        """Counts of the coarse cells, (rows, g), of counts of all cells, (rows, w)."""
        width = self.coarse.shape[1]
        flat = self.groups + np.arange(len(cells))[:, None] * width
        counted = np.bincount(flat.ravel(), cells.ravel(), len(cells) * width)
        return counted.reshape(len(cells), width).astype(np.float64)


def yardstick(reference: State, spec: Spec) -> Yardstick:
    """The reference side for the columns of `spec` that have cells. Some 30 us a column."""
    chosen = [column for column in spec.columns.values() if column.cells]
    names = tuple(column.name for column in chosen)
    width = max((column.cells for column in chosen), default=1)
    counted = counted_state(reference, spec, names, width)
    groups = np.zeros((len(names), width), dtype=np.intp)
    edges = np.zeros((len(names), width))
    atoms = np.zeros((len(names), width), dtype=bool)
    scale, origin = np.ones(len(names)), np.zeros(len(names))
    for row, column in enumerate(chosen):
        own = groups_of(column, counted.cells[row, : column.cells])
        groups[row, : column.cells] = own
        groups[row, column.cells :] = own[-1]
        if column.grid is not None:
            scale[row], origin[row] = column.grid.scale, column.grid.origin
            places = (column.grid.edges - column.grid.origin) * column.grid.scale
            edges[row, : len(places)] = places
            edges[row, len(places) :] = places[-1]
            atoms[row, : column.grid.bins] = column.grid.atoms
    numeric = np.array([column.kind == NUMBER for column in chosen], dtype=bool)
    coarse_width = int(groups.max(initial=0)) + 1
    flat = groups + np.arange(len(names))[:, None] * coarse_width
    coarse = np.bincount(flat.ravel(), counted.cells.ravel(), len(names) * coarse_width)
    coarse = coarse.reshape(len(names), coarse_width)
    return Yardstick(
        spec, names, numeric, counted, groups, coarse.astype(np.float64), edges, atoms, scale, origin
    )


def counted_state(state: State, spec: Spec, names: Sequence[str], width: int) -> Counted:
    """A state as matrices with the weights applied."""
    shape = (len(names), width)
    cells, sums, squares = np.zeros(shape), np.zeros(shape), np.zeros(len(names))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    sizes = [spec.columns[name].cells for name in names]
    for weight, stratum in state.strata.items():
        part, sum_part = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, name in enumerate(names):
            counts = stratum.columns.get(name)
            if counts is None or len(counts.cells) != sizes[row]:
                continue
            part[row, : sizes[row]] = counts.cells
            if len(counts.sums):
                sum_part[row, : sizes[row]] = counts.sums
                low[row], high[row] = min(low[row], counts.low), max(high[row], counts.high)
        cells += weight * part
        sums += (weight / FINE) * sum_part
        squares += weight * weight * part.sum(axis=1)
    total = cells.sum(axis=1)
    effective = np.divide(total * total, squares, out=np.zeros_like(total), where=squares > 0)
    return Counted(cells, sums, effective, low, high)


def groups_of(column: ColumnSpec, reference: Floats) -> npt.NDArray[np.intp]:
    """The coarse cell of each cell of a column."""
    if column.kind == CATEGORY or column.grid is None:
        return _category_groups(column, reference)
    return coarse_groups(reference, column.grid.atoms, NUMBER_CELL)


def _category_groups(column: ColumnSpec, reference: Floats) -> npt.NDArray[np.intp]:
    """A category of some share keeps a cell; the others are joined in the order of their hashes.

    Joined by frequency, cells of a short reference would hold the categories that chance made frequent in
    it, and every other sample would differ from it. Unseen categories join the rare ones of their hash where
    the reference had categories once; else they have a cell of their own.
    """
    total = max(float(reference.sum()), 1.0)
    known, unseen = len(column.categories), column.first_unseen
    own = [place for place in range(known) if reference[place] >= total * CATEGORY_CELL]
    rest = [place for place in range(known) if reference[place] < total * CATEGORY_CELL]
    rest.sort(key=lambda place: word_hash(column.categories[place]))
    ends = unseen if column.novel else len(reference)
    order = np.array([*own, *rest, *range(known, ends)], dtype=np.intp)
    groups = np.empty(len(reference), dtype=np.intp)
    groups[order] = coarse_groups(reference[order], np.ones(len(order), dtype=bool), CATEGORY_CELL)
    groups[ends:] = groups[known : known + len(reference) - ends]
    return groups


def coarse_groups(counts: Floats, atoms: npt.NDArray[np.bool_], least: float) -> npt.NDArray[np.intp]:
    """The coarse cell of each bin, shape of `counts`: neighbours joined until they hold the share `least`.

    Depends on the reference alone, so that two windows are comparable.
    """
    total = counts.sum()
    if total <= 0:
        return np.zeros(len(counts), dtype=np.intp)
    found, group, held = [], 0, 0.0
    for share, atom in zip((counts / total).tolist(), atoms.tolist(), strict=True):
        if held >= least or (atom and share >= least and held >= LEAST_CELL):
            group, held = group + 1, 0.0
        found.append(group)
        held += share
    groups = np.array(found, dtype=np.intp)
    if held < LEAST_CELL and group:
        groups[groups == group] = group - 1
    return groups
