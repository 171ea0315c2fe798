"""The reference side of a score, prepared once: its counts as one matrix, coarse cells, edges. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mlobs.drift.deep import word_hash
from mlobs.drift.grid import FINE, Floats
from mlobs.drift.spec import CATEGORY, NUMBER, ColumnSpec, Spec
from mlobs.drift.state import State
from mlobs.stats.distances import shares
from mlobs.stats.kolmogorov import Side
from mlobs.stats.steps import Bins, Part, bins_of, part_of

NUMBER_CELL: Final = 1 / 20
CATEGORY_CELL: Final = 1 / 100
LEAST_CELL: Final = 1 / 10_000
"""What stands beside a large atom keeps a coarse cell of its own from this share of the reference on."""


class Layout(NamedTuple):
    """Where the cells of each column lie in one array: numbers first, `shape` (k, w), each as wide as the
    widest of them; then categories."""

    names: tuple[str, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    """Cells that a column has of its own."""
    shape: tuple[int, int]
    cells: int
    order: tuple[int, ...]
    """The columns' places in `names`, in the order of the spec."""


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A state as matrices for the columns that have a distribution, weights applied: `rows` columns, `k` of
    them numbers, `w` cells the widest of those.
    """

    cells: Floats
    """Of all columns: see `Layout`."""
    sums: Floats
    """(k, w): value sums in units of the column's look-up cells, from its origin."""
    effective: Floats
    """(rows,): effective number of values (Kish)."""
    low: Floats
    high: Floats
    """(rows,): extremes; low > high without values, and for categories."""

    @property
    def bins(self) -> Floats:
        """(k, w): the cells of the numbers."""
        return self.cells[: self.sums.size].reshape(self.sums.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """A reference, ready to be laid beside any number of windows. Build with `yardstick`."""

    spec: Spec
    layout: Layout
    counted: Counted
    groups: npt.NDArray[np.intp]
    """The coarse cell of each cell, numbered through all columns."""
    coarse: Floats
    """(rows, g): shares of the coarse cells."""
    part: Part
    """Shares of the numbers' bins."""
    bins: Bins
    """Their edges in look-up cells; the last of a row is that of the one before it."""
    atoms: npt.NDArray[np.bool_]
    """(k, w): bins that hold a single value."""
    scale: Floats
    """(k,): look-up cells in one unit of the column."""
    origin: Floats
    """(k,): where they begin."""

    def coarsened(self, cells: Floats) -> Floats:
        """Shares of the coarse cells, (rows, g), of counts of all cells."""
        return _coarse(self.groups, cells, *self.coarse.shape)

    def side(self, counted: Counted, part: Part) -> Side:
        """The numbers of a state, in look-up cells."""
        k = len(self.scale)
        low, high = ((ends[:k] - self.origin) * self.scale for ends in (counted.low, counted.high))
        return Side(part.shares, counted.bins, counted.sums, low, high)


def yardstick(reference: State, spec: Spec) -> Yardstick:
    """The reference side for the columns of `spec` that have cells. Some 30 us a column."""
    layout = layout_of(spec)
    counted = counted_state(reference, layout)
    (k, _), rows = layout.shape, len(layout.names)
    groups = np.zeros(layout.cells, dtype=np.intp)
    edges, atoms = np.zeros(layout.shape), np.zeros(layout.shape, dtype=bool)
    scale, origin = np.ones(k), np.zeros(k)
    ends = (*layout.starts[1:], layout.cells)
    for row, (name, start, size, end) in enumerate(
        zip(layout.names, layout.starts, layout.sizes, ends, strict=True)
    ):
        column = spec.columns[name]
        own = groups_of(column, counted.cells[start : start + size])
        groups[start : start + size] = own
        groups[start + size : end] = own[-1]
        if column.grid is not None:
            scale[row], origin[row] = column.grid.scale, column.grid.origin
            places = (column.grid.edges - column.grid.origin) * column.grid.scale
            edges[row, : len(places)] = places
            edges[row, len(places) :] = places[-1]
            atoms[row, : column.grid.bins] = column.grid.atoms
    width = int(groups.max(initial=0)) + 1
    groups += np.repeat(np.arange(rows) * width, np.diff((*layout.starts, layout.cells)))
    coarse = _coarse(groups, counted.cells, rows, width)
    part = part_of(shares(counted.bins))
    with np.errstate(over="ignore", invalid="ignore"):  # values near the end of the floats
        bins = bins_of(edges)
    return Yardstick(spec, layout, counted, groups, coarse, part, bins, atoms, scale, origin)


def _coarse(groups: npt.NDArray[np.intp], cells: Floats, rows: int, width: int) -> Floats:
    return shares(np.bincount(groups, cells, rows * width).reshape(rows, width))


def layout_of(spec: Spec) -> Layout:
    """The layout of the columns of `spec` that have cells."""
    chosen = [column for column in spec.columns.values() if column.cells]
    order = sorted(range(len(chosen)), key=lambda place: chosen[place].kind != NUMBER)
    columns = [chosen[place] for place in order]
    numbers = [column for column in columns if column.kind == NUMBER]
    width = max((column.cells for column in numbers), default=0)
    widths = [width if column.kind == NUMBER else column.cells for column in columns]
    return Layout(
        tuple(column.name for column in columns),
        tuple(accumulate(widths[:-1], initial=0)) if widths else (),
        tuple(column.cells for column in columns),
        (len(numbers), width),
        sum(widths),
        tuple(sorted(range(len(order)), key=order.__getitem__)),
    )


def counted_state(state: State, layout: Layout) -> Counted:
    """A state as matrices with the weights applied."""
    rows = len(layout.names)
    cells, sums = np.zeros(layout.cells), np.zeros(layout.shape[0] * layout.shape[1])
    total, squares = np.zeros(rows), np.zeros(rows)
    low, high = [np.inf] * rows, [-np.inf] * rows
    for weight, stratum in state.strata.items():
        part, sum_part = np.zeros_like(cells), np.zeros_like(sums)
        for row, (name, start, size) in enumerate(
            zip(layout.names, layout.starts, layout.sizes, strict=True)
        ):
            counts = stratum.columns.get(name)
            if counts is None or len(counts.cells) != size:
                continue
            part[start : start + size] = counts.cells
            if row < layout.shape[0]:
                sum_part[start : start + size] = counts.sums
                low[row], high[row] = min(low[row], counts.low), max(high[row], counts.high)
        held = np.add.reduceat(part, layout.starts) if rows else total
        cells += weight * part
        sums += (weight / FINE) * sum_part
        total += weight * held
        squares += weight * weight * held
    effective = np.divide(total * total, squares, out=np.zeros_like(total), where=squares > 0)
    return Counted(cells, sums.reshape(layout.shape), effective, np.array(low), np.array(high))


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
