"""Wasserstein-1 distance from bins that know the sum of their values.

Within a bin the integral of F - G follows exactly from counts and sums (integration by parts), so the
distance is exact wherever F - G keeps its sign in the bin. Where the sign changes the values count as spread
evenly if the sums agree with that, and the bin's share in the error bound is its width times what the two
functions can do in it.
"""

from __future__ import annotations

import numpy as np

from mlobs.stats.distances import Floats, shares
from mlobs.stats.steps import Steps, bins_of, part_of, steps_of

_ROUNDING = 1e-12
"""What running sums of shares are off by at most: no mass."""


def binned_wasserstein(
    edges: Floats,
    counts: Floats,
    sums: Floats,
    others: Floats,
    other_sums: Floats,
    noise: Floats,
    steps: Steps | None = None,
) -> tuple[Floats, Floats, Floats]:
    """(distance, its mean by chance alone, error bound), each (rows,).

    `edges` (rows, k): upper edge of each bin, the last ones repeated; `counts` and `sums` (rows, k) of one
    sample, `others` and `other_sums` of the other; `noise` (rows,): 1/n + 1/m. In the unit of the edges.
    `steps` are those of both samples, for who has them. Range [0, inf).
    """
    if steps is None:
        steps = steps_of(bins_of(edges), part_of(shares(counts)), part_of(shares(others)))
    (upper, lower, width), (p, upto), (q, others_upto), apart, left = steps
    n, m = (np.maximum(c.sum(axis=1, keepdims=True), 1e-300) for c in (counts, others))
    integral = upper * apart
    integral -= lower * left
    integral -= sums / n - other_sums / m
    parts = np.abs(integral)
    at = np.flatnonzero(left * apart < 0)
    if len(at):
        parts.put(at, _crossing(*(of_all.take(at) for of_all in (integral, width, left, apart))))
    # F - G moves within the bin between left - q and left + p: where that spans 0, the sign may change.
    spans = (q - left > _ROUNDING) & (left + p > _ROUNDING) & (width > 0)
    bound = np.where(spans, width * np.minimum(p + q, 1.0), 0.0).sum(axis=1)
    middle = upto + others_upto
    middle /= 2
    spread = np.sqrt(np.maximum(middle * (1 - middle), 0.0))
    chance = (width * spread).sum(axis=1) * np.sqrt(noise) * np.sqrt(2 / np.pi)
    return np.asarray(parts.sum(axis=1)), np.asarray(chance), np.asarray(bound)


def _crossing(integral: Floats, width: Floats, left: Floats, apart: Floats) -> Floats:
    """The integral of |F - G| over bins in which F - G changes its sign; from edge to edge, if the sums agree
    with values spread evenly, and what is known for sure otherwise."""
    level = np.maximum(np.abs(left), np.abs(apart))
    spread_evenly = np.abs(integral - width * (left + apart) / 2) < width * level / 4
    crosses = (left * apart < -0.1 * level**2) & spread_evenly
    even = width * (left**2 + apart**2) / (2 * np.abs(apart - left))
    known = np.abs(integral)
    return np.where(crosses, np.maximum(even, known), known)
