"""A mergeable profile: integer counts per sampling stratum, equal whatever order the rows came in.

A stratum holds the rows of one weight (one over the rate at which they were sampled): counts stay integers,
and the weights apply when shares are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mlobs.drift import hll
from mlobs.drift.block import Block, merge_blocks
from mlobs.drift.deep import Deep, merge_deep, smallest, word_hash
from mlobs.drift.grid import Floats, Ints
from mlobs.errors import UsageError

K = TypeVar("K", str, int)

EXAMPLES = 16
"""Unseen categories that are kept by name: those of smallest hash, so that merges agree in any order."""

_NOTHING: Final[Mapping[Any, int]] = MappingProxyType({})


class ColumnCounts(NamedTuple):
    """Counts of one column over `rows` rows. `cells` are those of its `ColumnSpec`.

    A tuple, as a window makes one a column and they are made five times as fast as frozen dataclasses.
    """

    rows: int
    cells: Ints
    sums: Ints
    """Fixed-point sums per bin for a number, empty otherwise."""
    null: int = 0
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    below: int = 0
    above: int = 0
    """Finite values under and over the limits."""
    wrong: int = 0
    """Values that are not of the column's type."""
    missing: int = 0
    """Rows of batches that have no such column."""
    low: float = float("inf")
    high: float = float("-inf")
    """Least and greatest finite value; low > high where there is none."""
    unseen: Mapping[str, int] = _NOTHING
    outside: Mapping[int, int] = _NOTHING
    """Log-linear histogram (see `bits`) of the finite values beyond the limits."""
    deep: Deep | None = None
    """What needs no reference; only where the spec asks for it."""

    @property
    def values(self) -> int:
        """Rows with a finite value or a category."""
        return int(self.cells.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Stratum:
    """The rows of one weight."""

    rows: int
    columns: Mapping[str, ColumnCounts]
    bad_rows: Mapping[str, int]
    """Rows that fail each check in some column, and under `any` those that fail one check or more."""
    extra: Mapping[str, int] = field(default_factory=dict)
    """Rows of batches with a column that the reference does not know."""
    block: Block | None = None
    """Means and co-moments of the columns that the spec names for it."""
    rows_seen: hll.Registers | None = None
    """Sketch of whole rows, where the spec asks for duplicates."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A profile of one window: strata by weight, and the id of the reference whose bins they count in."""

    reference: str
    strata: Mapping[float, Stratum]

    @property
    def rows(self) -> int:
        """Rows that were counted, unweighted."""
        return sum(stratum.rows for stratum in self.strata.values())

    @property
    def weighted_rows(self) -> float:
        """Rows of the traffic that they stand for."""
        return float(sum(weight * stratum.rows for weight, stratum in self.strata.items()))

    @property
    def effective_rows(self) -> float:
        """Kish's effective sample size: rows of equal weight that say as much. 0 without rows."""
        squares = sum(weight * weight * stratum.rows for weight, stratum in self.strata.items())
        return self.weighted_rows**2 / squares if squares else 0.0


def empty_state(reference: str) -> State:
    """The identity of `merge`."""
    return State(reference, {})


def merge(a: State, b: State) -> State:
    """The state of the rows of both; associative and commutative, exactly. About 2 us a column and stratum.

    Raises UsageError for states in the bins of different references.
    """
    if a.reference != b.reference:
        raise UsageError.of(
            "merge",
            f"states in the bins of reference {a.reference[:12]}",
            b.reference[:12],
            "profile them again",
        )
    strata = dict(a.strata)
    for weight, stratum in b.strata.items():
        known = strata.get(weight)
        strata[weight] = stratum if known is None else _merge_strata(known, stratum)
    return State(a.reference, strata)


def merge_all(states: Iterable[State], reference: str) -> State:
    """`merge` over many, from the empty state on."""
    return reduce(merge, states, empty_state(reference))


def _merge_strata(a: Stratum, b: Stratum) -> Stratum:
    columns = dict(a.columns)
    for name, counts in b.columns.items():
        columns[name] = merge_columns(columns[name], counts) if name in columns else counts
    return Stratum(
        a.rows + b.rows,
        columns,
        add(a.bad_rows, b.bad_rows),
        add(a.extra, b.extra),
        a.block if b.block is None else b.block if a.block is None else merge_blocks(a.block, b.block),
        # Of some rows only, it would call the others repeated.
        None if a.rows_seen is None or b.rows_seen is None else hll.merge(a.rows_seen, b.rows_seen),
    )


def merge_columns(a: ColumnCounts, b: ColumnCounts) -> ColumnCounts:
    """The counts of the rows of both."""
    return ColumnCounts(
        rows=a.rows + b.rows,
        cells=a.cells + b.cells,
        sums=a.sums + b.sums,
        null=a.null + b.null,
        nan=a.nan + b.nan,
        pos_inf=a.pos_inf + b.pos_inf,
        neg_inf=a.neg_inf + b.neg_inf,
        below=a.below + b.below,
        above=a.above + b.above,
        wrong=a.wrong + b.wrong,
        missing=a.missing + b.missing,
        low=min(a.low, b.low),
        high=max(a.high, b.high),
        unseen=keep_smallest(add(a.unseen, b.unseen), EXAMPLES) if a.unseen or b.unseen else {},
        outside=add(a.outside, b.outside) if a.outside or b.outside else {},
        deep=a.deep if b.deep is None else b.deep if a.deep is None else merge_deep(a.deep, b.deep),
    )


def add(a: Mapping[K, int], b: Mapping[K, int]) -> dict[K, int]:
    """Counts by key, added."""
    total = dict(a)
    for key, count in b.items():
        total[key] = total.get(key, 0) + count
    return total


def keep_smallest(counts: Mapping[str, int], cap: int) -> dict[str, int]:
    """The `cap` categories of smallest hash: see `deep.smallest`."""
    return smallest(counts, {word: word_hash(word) for word in counts}, cap)


def weighted_cells(state: State, name: str, cells: int, attribute: str = "cells") -> Floats:
    """Weighted counts of a column's cells (or fixed-point sums), shape (cells,)."""
    total: npt.NDArray[np.float64] = np.zeros(cells)
    for weight, stratum in state.strata.items():
        counts = stratum.columns.get(name)
        if counts is not None and len(getattr(counts, attribute)) == cells:
            total += weight * getattr(counts, attribute)
    return total
