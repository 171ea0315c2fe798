"""A logistic regression on January and February, and its coefficients as plain numbers that serve fast.

A pandas and scikit-learn pipeline costs milliseconds a row; the same coefficients in a dictionary cost 20 us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mlobs.demo.flights import CATEGORIES, NUMBERS, Flights
from mlobs.demo.scoring import Coefficients

RARE = 30
"""Categories with fewer training rows than this share the weight 0: they are told nothing about."""


@dataclass(frozen=True, slots=True)
class Trained:
    coefficients: Coefficients
    auc: float
    """On the training rows."""
    rows: int


def train(flights: Flights) -> Trained:
    """Fit on the labelled rows; the decision threshold flags as many rows as were late."""
    labelled = flights.table.filter(flights.table["label"].is_valid())
    y = labelled["label"].to_numpy().astype(int)
    columns: list[NDArray[np.float64]] = []
    numbers: dict[str, tuple[float, float]] = {}
    for name in NUMBERS:
        values = labelled[name].to_numpy().astype(float)
        mean, scale = float(np.nanmean(values)), float(np.nanstd(values)) or 1.0
        numbers[name] = (mean, scale)
        columns.append(np.nan_to_num((values - mean) / scale, nan=0.0))
    categories: list[tuple[str, str]] = []
    for name in CATEGORIES:
        values, counts = np.unique(
            labelled[name].to_numpy(zero_copy_only=False).astype(str), return_counts=True
        )
        rows = labelled[name].to_numpy(zero_copy_only=False).astype(str)
        for value in values[counts >= RARE]:
            categories.append((name, str(value)))
            columns.append((rows == value).astype(float))
    x = np.column_stack(columns)
    fitted = LogisticRegression(C=1.0, max_iter=200).fit(x, y)
    weights = fitted.coef_[0]
    probabilities = fitted.predict_proba(x)[:, 1]
    coefficients = Coefficients(
        intercept=float(fitted.intercept_[0]),
        numbers={
            name: (*numbers[name], float(weight))
            for name, weight in zip(NUMBERS, weights[: len(NUMBERS)], strict=True)
        },
        categories=_by_name(categories, weights[len(NUMBERS) :]),
        threshold=float(np.quantile(probabilities, 1.0 - y.mean())),
    )
    return Trained(coefficients, float(roc_auc_score(y, probabilities)), len(y))


def _by_name(
    categories: list[tuple[str, str]], weights: NDArray[np.float64]
) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in CATEGORIES}
    for (name, value), weight in zip(categories, weights, strict=True):
        found[name][value] = float(weight)
    return found
