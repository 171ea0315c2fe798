"""Distances between two distributions over the same cells; rows are compared all at once.

Every function takes two arrays of shares of shape (..., k) whose last axis sums to 1 (cells that a shorter
row does not have are 0 in both), and returns shape (...). All are >= 0 and 0 on equal input. Cost: a few
passes over the cells. Nothing raises for finite input.

Definitions: PSI and Jensen-Shannon after Lin, "Divergence measures based on the Shannon entropy" (1991);
Hellinger as in Le Cam (1986), in [0, 1]; Kolmogorov-Smirnov on the cells' common edges.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LN2 = float(np.log(2.0))


def shares(counts: npt.ArrayLike, total: npt.ArrayLike | None = None) -> Floats:
    """`counts` of shape (..., k) over their sum; all 0 where there is nothing to share."""
    values = np.asarray(counts, dtype=np.float64)
    whole = values.sum(axis=-1, keepdims=True) if total is None else np.asarray(total, dtype=np.float64)
    return np.asarray(values / np.where(whole > 0, whole, np.inf))


def psi(p: Floats, q: Floats, n: npt.ArrayLike, m: npt.ArrayLike) -> Floats:
    """Population stability index, sum of (p - q) ln(p / q); n and m are the sample sizes behind p and q.

    A cell that is empty on one side alone would make it infinite: it counts there as half a row
    (0.5 / n or 0.5 / m). Range [0, inf).
    """
    half_p = 0.5 / np.maximum(np.asarray(n, dtype=np.float64), 1.0)[..., None]
    half_q = 0.5 / np.maximum(np.asarray(m, dtype=np.float64), 1.0)[..., None]
    both_empty = (p <= 0) & (q <= 0)
    a = np.where(p > 0, p, half_p)
    b = np.where(q > 0, q, half_q)
    terms = np.where(both_empty, 0.0, (a - b) * np.log(a / b))
    return np.asarray(terms.sum(axis=-1))


def jensen_shannon_divergence(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon divergence in bits, in [0, 1]. Its square root is the distance that scipy gives (base
    2).
    """
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / middle), 0.0)
        right = np.where(q > 0, q * np.log(q / middle), 0.0)
    return np.asarray(np.maximum((left.sum(axis=-1) + right.sum(axis=-1)) / (2 * _LN2), 0.0))


def hellinger_squared(p: Floats, q: Floats) -> Floats:
    """Squared Hellinger distance, half the squared distance of the roots, in [0, 1]."""
    return np.asarray(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=-1) / 2)


def total_variation(p: Floats, q: Floats) -> Floats:
    """Half the sum of |p - q|, in [0, 1]: the greatest difference that any set of cells shows."""
    return np.asarray(np.abs(p - q).sum(axis=-1) / 2)


def kolmogorov_smirnov(p: Floats, q: Floats) -> Floats:
    """Greatest difference of the two distribution functions at the cells' edges, in [0, 1]; cells in order.

    The exact distance lies above it by at most the largest share of a cell that is no single value.
    """
    return np.asarray(np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1, initial=0.0))


def chi_square(p: Floats, q: Floats, n: npt.ArrayLike, m: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Pearson's statistic of homogeneity for two samples of sizes n and m, and its degrees of freedom.

    Equals scipy's `chi2_contingency(..., correction=False)` on the two rows of counts. Cells that are empty
    in both are left out. Range [0, inf).
    """
    left = np.asarray(n, dtype=np.float64)[..., None]
    right = np.asarray(m, dtype=np.float64)[..., None]
    pooled = (left * p + right * q) / np.maximum(left + right, 1e-300)
    used = pooled > 0
    effective = (left * right / np.maximum(left + right, 1e-300))[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(used, (p - q) ** 2 / pooled, 0.0)
    return np.asarray(terms.sum(axis=-1) * effective), np.asarray(np.maximum(used.sum(axis=-1) - 1, 0), float)
