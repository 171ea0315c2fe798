"""What single columns cannot show: means and covariances of several numeric columns at once. Pure.

Two distances between the blocks of a reference and a window: the symmetric Kullback-Leibler divergence of
the Gaussian laws that they describe (Kullback 1959), which sees a pair that has come apart while each column
keeps its own distribution, and the error of rebuilding the window from the reference's principal components
(Jackson and Mudholkar 1979). Both work in units of the reference's deviations and shrink the covariances, so
that a short window or a constant column gives a finite number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mlobs.drift.block import Block, merge_blocks
from mlobs.drift.grid import Floats
from mlobs.drift.score import INSUFFICIENT, NO_DATA, OK, OVERFLOW
from mlobs.drift.state import State

SHRINKAGE: Final = 0.01
"""Weight of the diagonal in every covariance, beside what the sample size asks for."""
KEPT_VARIANCE: Final = 0.9
ROWS_PER_COLUMN: Final = 10


@dataclass(frozen=True, slots=True)
class JointScore:
    """One multivariate statistic over `names`. `value` is None without enough complete rows (`status`)."""

    statistic: str
    names: tuple[str, ...]
    value: float | None
    n_reference: int
    n_current: int
    status: str
    pair: tuple[str, str] | None = None
    """The two columns whose correlation changed most."""


def joint_scores(reference: State, current: State) -> list[JointScore]:
    """Gaussian divergence and PCA error of the blocks of two states (all weights taken as one).

    Divergence: >= 0, 0 on itself, less its mean by chance (d + d (d + 1) / 2) (1/n + 1/m) / 2 . PCA error:
    mean squared residual of the window over that of the reference, 1 without a change. Cost: one eigenvalue
    problem of d x d. Needs ten complete rows a column on both sides, else `insufficient`. Empty where no
    block was kept.
    """
    before, after = _whole(reference), _whole(current)
    if before is None or after is None:
        return []
    names = before.names
    fewest = min(before.n, after.n)
    status = NO_DATA if not fewest else INSUFFICIENT if fewest < ROWS_PER_COLUMN * len(names) else OK
    if not all(np.isfinite(block.comoment).all() for block in (before, after)):
        status = OVERFLOW
    if status != OK:
        return [JointScore(kind, names, None, before.n, after.n, status) for kind in ("gaussian", "pca")]
    unit = np.sqrt(np.maximum(np.diag(before.covariance), 1e-300))
    unit = np.where(np.diag(before.covariance) > 0, unit, 1.0)
    shift = (after.mean - before.mean) / unit
    first, second = (_shrunk(block.covariance / np.outer(unit, unit), block.n) for block in (before, after))
    divergence = gaussian_divergence(first, second, shift)
    size = len(names)
    chance = (size + size * (size + 1) / 2) * (1 / before.n + 1 / after.n) / 2
    apart = np.abs(_correlation(second) - _correlation(first))
    row, column = np.unravel_index(int(apart.argmax()), apart.shape)
    pair = (names[int(row)], names[int(column)])
    return [
        JointScore("gaussian", names, max(divergence - chance, 0.0), before.n, after.n, OK, pair),
        JointScore("pca", names, reconstruction(first, second, shift), before.n, after.n, OK),
    ]


def joint_text(one: JointScore) -> str:
    """Which columns it is of, and where the change is, for people."""
    text = ", ".join(one.names)
    return f"{text}; most changed: {one.pair[0]} with {one.pair[1]}" if one.pair else text


def gaussian_divergence(first: Floats, second: Floats, shift: Floats) -> float:
    """Half the sum of both Kullback-Leibler divergences of two Gaussian laws: (d, d), (d, d) and the
    difference of means (d,). Symmetric; log-determinants cancel."""
    inverse, other = np.linalg.inv(first), np.linalg.inv(second)
    size = len(shift)
    spread = np.trace(inverse @ second) + np.trace(other @ first) - 2 * size
    return float(max((spread + shift @ (inverse + other) @ shift) / 4, 0.0))


def reconstruction(first: Floats, second: Floats, shift: Floats) -> float:
    """Mean squared error of the window rebuilt from the components that hold 90 % of the reference's
    variance, over the reference's own error. 1 where the reference leaves none and the window neither."""
    values, vectors = np.linalg.eigh(first)
    order = np.argsort(values)[::-1]
    kept = int(np.searchsorted(np.cumsum(values[order]) / values.sum(), KEPT_VARIANCE)) + 1
    rest = vectors[:, order[kept:]]
    own = float(values[order[kept:]].sum())
    now = float(np.trace(rest.T @ second @ rest) + ((rest.T @ shift) ** 2).sum())
    return now / own if own > 0 else 1.0


def _whole(state: State) -> Block | None:
    from_strata = [stratum.block for stratum in state.strata.values() if stratum.block is not None]
    if not from_strata:
        return None
    whole = from_strata[0]
    for block in from_strata[1:]:
        whole = merge_blocks(whole, block)
    return whole


def _shrunk(covariance: Floats, n: int) -> Floats:
    """Towards its diagonal, more for a short window; a constant column gets a small variance of its own."""
    weight = min(1.0, SHRINKAGE + len(covariance) / max(n, 1))
    diagonal = np.diag(np.maximum(np.diag(covariance), 1e-6))
    return np.asarray((1 - weight) * covariance + weight * diagonal)


def _correlation(covariance: Floats) -> Floats:
    unit = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / np.outer(unit, unit))
