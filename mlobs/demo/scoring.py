"""The served model: a logistic regression's coefficients in dictionaries. Pure, and light to import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Coefficients:
    intercept: float
    numbers: Mapping[str, tuple[float, float, float]]
    """Name -> mean, scale, weight. A missing value counts as the mean."""
    categories: Mapping[str, Mapping[str, float]]
    """Name -> value -> weight. An unknown value has none."""
    threshold: float
    """Probability from which a flight is called late."""

    def as_json(self) -> dict[str, Any]:
        return {
            "intercept": self.intercept,
            "numbers": {name: list(values) for name, values in self.numbers.items()},
            "categories": {name: dict(values) for name, values in self.categories.items()},
            "threshold": self.threshold,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Coefficients:
        return cls(
            intercept=value["intercept"],
            numbers={name: (mean, scale, weight) for name, (mean, scale, weight) in value["numbers"].items()},
            categories=value["categories"],
            threshold=value["threshold"],
        )


def encode(model: Coefficients, features: Mapping[str, Any]) -> list[float]:
    """Each feature's contribution to the log odds."""
    terms = [model.intercept]
    for name, (mean, scale, weight) in model.numbers.items():
        value = features.get(name)
        if value is not None:
            terms.append((value - mean) / scale * weight)
    for name, weights in model.categories.items():
        terms.append(weights.get(features.get(name, ""), 0.0))
    return terms


def probability(terms: list[float]) -> float:
    """Of a delay, from the contributions."""
    return 1.0 / (1.0 + math.exp(-math.fsum(terms)))
