"""Measures of predictions against their truth, beside scikit-learn."""

import numpy as np
import pytest

from mlobs.stats.quality import auc, quality


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(500), 2)  # with ties
    labels = (rng.random(500) < scores).astype(float)
    weights = rng.choice([1.0, 100.0], 500)
    found = quality(scores, labels, weights, 0.5)
    said = scores >= 0.5
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    expected = {
        "auc": metrics.roc_auc_score(labels, scores, sample_weight=weights),
        "log_loss": metrics.log_loss(labels, clipped, sample_weight=weights),
        "brier": metrics.brier_score_loss(labels, scores, sample_weight=weights),
        "precision": metrics.precision_score(labels, said, sample_weight=weights),
        "recall": metrics.recall_score(labels, said, sample_weight=weights),
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_numbers_are_measured_by_their_distance() -> None:
    found = quality(np.array([1.0, 5.0]), np.array([2.0, 5.0]), np.array([1.0, 3.0]))
    assert found == {"mae": 0.25, "rmse": 0.5}


def test_what_is_not_defined_is_left_out() -> None:
    ones = np.ones(3)
    assert quality(np.empty(0), np.empty(0), np.empty(0)) == {}
    assert auc(ones, np.ones(3, bool), ones) is None
    assert set(quality(ones / 4, ones, ones, 0.5)) == {"log_loss", "brier", "recall"}
