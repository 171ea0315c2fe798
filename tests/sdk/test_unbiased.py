"""What is kept of real calls, by its weights, tells of all of them without bias: at every rate, whatever
share of the calls is an error or near the threshold.
"""

from __future__ import annotations

import math
import random
from collections import Counter

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

import mlobs
from mlobs.settings import ModelSettings, Settings
from mlobs.testing import capture

CALLS = 1500


@mlobs.observe(model="unbiased", prediction_id="id")
def answer(request: dict) -> float:
    if request["score"] > 0.9:
        raise ValueError("bad")
    return float(request["score"])


def offered(rng: random.Random, rate: float, near: float) -> tuple[list[tuple[float, float]], list[float]]:
    """(weight, score) of the kept calls, and the scores of all of them."""
    model = ModelSettings("unbiased", decision_threshold=0.5, near_threshold=near)
    scores = []
    with capture(Settings(service="test", sample=rate, models=(model,))) as seen:
        for _ in range(CALLS):
            score = rng.random()
            scores.append(score)
            try:
                answer({"id": f"{rng.getrandbits(64):016x}", "score": score})
            except ValueError:
                continue
    assert seen.value("mlobs_internal_errors_total") in (None, 0)
    return [(record.weight, float(record.features["score"])) for record in seen.records], scores


@seed(1)
@settings(max_examples=25, deadline=None, database=None, phases=[Phase.generate])
@given(st.floats(0.02, 1.0), st.sampled_from([0.0, 0.01, 0.2]), st.integers(0, 10**6))
def test_weighted_statistics_of_kept_calls_are_unbiased(rate: float, near: float, start: int) -> None:
    """Count and sum of all calls within 4.5 standard errors; errors and calls near the threshold are all
    there, with weight 1.
    """
    kept, scores = offered(random.Random(start), rate, near)

    def always(score: float) -> bool:
        return score > 0.9 or abs(score - 0.5) <= near

    for power in (0, 1):
        true = sum(score**power for score in scores)
        estimate = sum(weight * score**power for weight, score in kept)
        drawn = sum(score ** (2 * power) for score in scores if not always(score))
        assert abs(estimate - true) <= 4.5 * math.sqrt(drawn * (1 - rate) / rate) + 1e-6 * CALLS
    certain = Counter(score for score in scores if always(score))
    assert Counter(score for _, score in kept if always(score)) == certain
    assert {weight for weight, score in kept if always(score)} <= {1.0}
