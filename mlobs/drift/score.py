"""`score(reference, current, statistics)`: how far two states of the same bins lie apart, for every column
at once.

PSI, Jensen-Shannon, Hellinger, total variation and chi-square are taken on coarse cells (a twentieth of the
reference each, atoms that are larger on their own; for categories a hundredth), KS on all bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlobs.drift.grid import Floats
from mlobs.drift.spec import CATEGORY, NUMBER, ColumnSpec, Spec
from mlobs.drift.state import State, weighted_cells
from mlobs.stats import distances
from mlobs.stats.margin import PSI_MARGIN, kolmogorov_p, margin_test

PSI: Final = "psi"
JS: Final = "js"
KS: Final = "ks"
STATISTICS: Final = (PSI, JS, KS)

OK: Final = "ok"
INSUFFICIENT: Final = "insufficient"
NO_DATA: Final = "no_data"

NUMBER_CELL: Final = 1 / 20
CATEGORY_CELL: Final = 1 / 100
LEAST_EXPECTED: Final = 5.0
LEAST_CELL: Final = 1 / 1000
"""What stands beside a large atom keeps a coarse cell of its own from this share of the reference on."""


@dataclass(frozen=True, slots=True)
class Score:
    """One statistic of one column.

    `value` is corrected for what chance alone makes of so many cells and rows; `plain` is not. `bound`: how
    far the exact value may lie from `plain` because of the bins. `p_value` only for a test (`psi`: of the
    margin; `ks`).
    """

    feature: str
    statistic: str
    value: float | None
    plain: float | None
    n_reference: float
    n_current: float
    status: str
    p_value: float | None = None
    bound: float | None = None


def coarse_groups(counts: Floats, atoms: npt.NDArray[np.bool_], least: float) -> npt.NDArray[np.intp]:
    """The coarse cell of each bin, shape of `counts`: neighbours joined until they hold the share `least`.

    Depends on the reference alone, so that two windows are comparable.
    """
    total = counts.sum()
    groups = np.zeros(len(counts), dtype=np.intp)
    if total <= 0:
        return groups
    share = counts / total
    group, held = 0, 0.0
    for place in range(len(counts)):
        big_atom = bool(atoms[place]) and share[place] >= least
        if held >= least or (big_atom and held >= LEAST_CELL):
            group, held = group + 1, 0.0
        groups[place] = group
        held += share[place]
    if held < LEAST_CELL and group:
        groups[groups == group] = group - 1
    return groups


def well_filled(q: Floats, p: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Shares with the cells joined that expect fewer than five of `rows` by the reference shares `q`.

    The chi-square law needs that many: one odd row in a cell that is nearly empty would be an alarm. What
    still expects too few after joining goes to the smallest of the other cells.
    """
    sparse = q * rows[:, None] < LEAST_EXPECTED
    if not sparse.any():
        return q, p
    joined = [np.where(sparse, share, 0.0).sum(axis=1) for share in (q, p)]
    rest = [np.where(sparse, 0.0, share) for share in (q, p)]
    at = np.where(sparse, np.inf, q).argmin(axis=1)
    # Enough together: a cell of their own, in the place of the first of them.
    at = np.where(joined[0] * rows >= LEAST_EXPECTED, sparse.argmax(axis=1), at)
    for share, extra in zip(rest, joined, strict=True):
        share[np.arange(len(share)), at] += extra
    return rest[0], rest[1]


def groups_of(column: ColumnSpec, reference: Floats) -> npt.NDArray[np.intp]:
    """The coarse cell of each cell of a column."""
    if column.kind == NUMBER:
        assert column.grid is not None
        return coarse_groups(reference, column.grid.atoms, NUMBER_CELL)
    # Categories stand most frequent first; rare and unseen ones join the rarest.
    return coarse_groups(reference, np.ones(len(reference), dtype=bool), CATEGORY_CELL)


def score(
    reference: State,
    current: State,
    spec: Spec,
    statistics: Sequence[str] = STATISTICS,
    min_rows: float = 30.0,
    margin: float = PSI_MARGIN,
) -> list[Score]:
    """Scores of every column of `spec` that has a distribution, statistics in the order given.

    Columns without rows on one side are `no_data`, with fewer than `min_rows` effective values
    `insufficient`.
    """
    names = [c.name for c in spec.columns.values() if c.kind in (NUMBER, CATEGORY) and c.cells]
    width = max((spec.columns[name].cells for name in names), default=0)
    fine = np.zeros((2, len(names), width))
    coarse = np.zeros((2, len(names), width))
    sizes = np.zeros((2, len(names)))
    largest = np.zeros(len(names))
    for row, name in enumerate(names):
        column = spec.columns[name]
        for side, state in enumerate((reference, current)):
            cells = weighted_cells(state, name, column.cells)
            fine[side, row, : column.cells] = cells
            sizes[side, row] = _effective(state, name, cells)
        groups = groups_of(column, fine[0, row, : column.cells])
        for side in range(2):
            coarse[side, row] = np.bincount(groups, fine[side, row, : column.cells], width)
        largest[row] = _largest_open_bin(column, fine[:, row, : column.cells])
    measured = _measure(fine, coarse, sizes, largest, margin)
    scores = []
    for row, name in enumerate(names):
        n, m = float(sizes[0, row]), float(sizes[1, row])
        status = NO_DATA if not n or not m else INSUFFICIENT if min(n, m) < min_rows else OK
        for statistic in statistics:
            if statistic == KS and spec.columns[name].kind == CATEGORY:
                continue
            value, plain, p_value, bound = (None if a is None else float(a[row]) for a in measured[statistic])
            if status == NO_DATA:
                value = plain = p_value = bound = None
            scores.append(Score(name, statistic, value, plain, n, m, status, p_value, bound))
    return scores


_Measured = tuple[Floats, Floats, Floats | None, Floats | None]


def _measure(
    fine: Floats, coarse: Floats, sizes: Floats, largest: Floats, margin: float
) -> dict[str, _Measured]:
    n, m = sizes
    p, q = distances.shares(coarse[1]), distances.shares(coarse[0])
    cells = ((p > 0) | (q > 0)).sum(axis=-1)
    noise = 1.0 / np.maximum(n, 1.0) + 1.0 / np.maximum(m, 1.0)
    expected = np.maximum(cells - 1, 0) * noise
    plain_psi = distances.psi(p, q, m, n)
    _, p_margin = margin_test(*well_filled(q, p, np.minimum(n, m)), n, m, margin)
    divergence = distances.jensen_shannon_divergence(p, q)
    ks = distances.kolmogorov_smirnov(distances.shares(fine[1]), distances.shares(fine[0]))
    chance = 0.8687**2 * noise  # the mean of Kolmogorov's law is 0.8687 / sqrt(N)
    return {
        PSI: (np.maximum(plain_psi - expected, 0.0), plain_psi, p_margin, None),
        JS: (
            np.sqrt(np.maximum(divergence - expected / (8 * np.log(2)), 0.0)),
            np.sqrt(divergence),
            None,
            None,
        ),
        KS: (np.sqrt(np.maximum(ks**2 - chance, 0.0)), ks, kolmogorov_p(ks, n, m), largest),
    }


def _effective(state: State, name: str, cells: Floats) -> float:
    """Kish's effective number of the column's values."""
    total = float(cells.sum())
    squares = sum(
        weight * weight * stratum.columns[name].values
        for weight, stratum in state.strata.items()
        if name in stratum.columns
    )
    return total * total / squares if squares else 0.0


def _largest_open_bin(column: ColumnSpec, both: Floats) -> float:
    """The largest share, on either side, of a bin that is no atom: how far binned KS can lie from the exact
    one.
    """
    if column.kind != NUMBER or column.grid is None:
        return 0.0
    share = distances.shares(both)
    return float(share[:, ~column.grid.atoms].max(initial=0.0))
