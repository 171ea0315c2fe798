"""How good predictions were, once the truth is known. Pure; every sum is weighted by sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

_TINY = 1e-15


def quality(scores: Any, labels: Any, weights: Any, threshold: float | None = None) -> dict[str, float]:
    """Measures by name of `scores` against `labels`, float arrays without NaN of one length.

    Labels of 0 and 1 with scores in [0, 1]: `auc` (with both classes there), `log_loss`, `brier`, and with a
    decision `threshold` (score >= threshold is yes) `precision` and `recall` where they are defined. Other
    labels: `mae` and `rmse`. Empty for no rows or no weight. O(n log n).
    """
    total = float(weights.sum())
    if not total > 0:
        return {}
    if not np.isin(labels, (0.0, 1.0)).all() or scores.min() < 0 or scores.max() > 1:
        gaps = scores - labels
        return {
            "mae": float(weights @ np.abs(gaps)) / total,
            "rmse": float(np.sqrt(weights @ gaps**2 / total)),
        }
    yes = labels == 1.0
    found = {
        "log_loss": float(weights @ -np.log(np.clip(np.where(yes, scores, 1 - scores), _TINY, 1.0))) / total,
        "brier": float(weights @ (scores - labels) ** 2) / total,
    }
    area = auc(scores, yes, weights)
    if area is not None:
        found["auc"] = area
    if threshold is not None:
        said = scores >= threshold
        hits = float(weights[said & yes].sum())
        for name, whole in (("precision", said), ("recall", yes)):
            if weights[whole].sum() > 0:
                found[name] = hits / float(weights[whole].sum())
    return found


def auc(scores: Any, yes: Any, weights: Any) -> float | None:
    """The chance that a yes scores above a no, ties counted half; None where a class is missing."""
    positive, negative = float(weights[yes].sum()), float(weights[~yes].sum())
    if positive <= 0 or negative <= 0:
        return None
    _, place = np.unique(scores, return_inverse=True)
    no = np.bincount(place, np.where(yes, 0.0, weights))
    own = np.bincount(place, np.where(yes, weights, 0.0))
    below = np.cumsum(no) - no
    return float(own @ (below + no / 2)) / (positive * negative)
