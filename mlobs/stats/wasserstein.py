"""Wasserstein-1 distance from bins that know the sum of their values.

Within a bin the integral of F - G follows exactly from counts and sums (integration by parts), so the
distance is exact wherever F - G keeps its sign in the bin. Where the sign changes the values count as spread
evenly if the sums agree with that, and the bin's share in the error bound is its width times what the two
functions can do in it.
"""

from __future__ import annotations

import numpy as np

from mlobs.stats.distances import Floats, shares


def binned_wasserstein(
    edges: Floats, counts: Floats, sums: Floats, others: Floats, other_sums: Floats, noise: Floats
) -> tuple[Floats, Floats, Floats]:
    """(distance, its mean by chance alone, error bound), each (rows,).

    `edges` (rows, k): upper edge of each bin, the last ones repeated; `counts` and `sums` (rows, k) of one
    sample, `others` and `other_sums` of the other; `noise` (rows,): 1/n + 1/m. In the unit of the edges.
    Range [0, inf).
    """
    p, q = shares(counts), shares(others)
    apart = np.cumsum(p - q, axis=1)
    left = np.concatenate([np.zeros((len(apart), 1)), apart[:, :-1]], axis=1)
    lower = np.concatenate([edges[:, :1], edges[:, :-1]], axis=1)
    n, m = (np.maximum(c.sum(axis=1, keepdims=True), 1e-300) for c in (counts, others))
    integral = edges * apart - lower * left - (sums / n - other_sums / m)
    width = edges - lower
    # F - G moves within the bin between left - q and left + p: where that spans 0, the sign may change.
    spans = (left - q < 0) & (left + p > 0) & (width > 0)
    swing = np.maximum(np.abs(apart - left), 1e-300)
    level = np.maximum(np.abs(left), np.abs(apart))
    spread_evenly = np.abs(integral - width * (left + apart) / 2) < width * level / 4
    crosses = (left * apart < -0.1 * level**2) & spread_evenly
    even = np.where(crosses, width * (left**2 + apart**2) / (2 * swing), np.abs(integral))
    parts = np.where(spans, np.maximum(even, np.abs(integral)), np.abs(integral))
    bound = np.where(spans, width * np.minimum(p + q, 1.0), 0.0).sum(axis=1)
    middle = (np.cumsum(p, axis=1) + np.cumsum(q, axis=1)) / 2
    spread = np.sqrt(np.maximum(middle * (1 - middle), 0.0))
    chance = (width * spread).sum(axis=1) * np.sqrt(noise) * np.sqrt(2 / np.pi)
    return np.asarray(parts.sum(axis=1)), np.asarray(chance), np.asarray(bound)
