"""Scores of binned states against the exact statistics, their corrections for chance, their states."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mlobs.drift.cells import yardstick
from mlobs.drift.profile import profile
from mlobs.drift.reference import Reference, build_reference
from mlobs.drift.score import ALL_STATISTICS, Score, score

LAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, n),
    "uniform": lambda rng, n: rng.random(n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "offset": lambda rng, n: 1e9 + rng.normal(size=n),
    "integers": lambda rng, n: rng.integers(0, 30, n).astype(float),
    "zero_inflated": lambda rng, n: np.where(rng.random(n) < 0.7, 0.0, rng.gamma(2.0, size=n)),
    "bimodal": lambda rng, n: rng.normal(np.where(rng.random(n) < 0.5, -5.0, 5.0), 0.1),
}


def scored(before: object, after: object) -> dict[str, Score]:
    reference = build_reference(pa.table({"x": before}), "r")
    state = profile(pa.table({"x": after}), reference.spec)
    return {one.statistic: one for one in score(reference.state, state, reference.spec, ALL_STATISTICS)}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("change", ["none", "shift", "far", "scale", "default"])
def test_ks_and_wasserstein_are_near_the_exact_ones_and_within_their_bounds(law: str, change: str) -> None:
    rng = np.random.default_rng(3)
    before, after = LAWS[law](rng, 50_000), LAWS[law](rng, 20_000)
    spread = np.subtract(*np.quantile(before, [0.75, 0.25])) or 1.0
    after = {
        "none": after,
        "shift": after + 0.3 * spread,
        "far": after + 3 * spread,
        "default": np.where(rng.random(len(after)) < 0.1, np.quantile(before, 0.3) + 1e-4 * spread, after),
        "scale": np.mean(after) + 1.3 * (after - np.mean(after)),
    }[change]
    found = scored(before, after)
    exact = stats.ks_2samp(before, after).statistic
    ks = found["ks"]
    assert ks.plain is not None
    assert ks.bound is not None
    assert abs(exact - ks.plain) <= min(ks.bound, 1e-3) + 1e-12
    if law == "cauchy":  # no mean: the distance is that of a few values in the far tails
        return
    distance = stats.wasserstein_distance(before, after)
    w1 = found["wasserstein"]
    assert w1.plain is not None
    assert w1.bound is not None
    assert abs(w1.plain - distance) <= w1.bound + 1e-6 * spread
    if change != "none":
        assert w1.plain == pytest.approx(distance, rel=0.05 if change == "default" else 0.01)


@pytest.mark.parametrize("kinds", [2, 50, 500, 10_000])
def test_categories_that_do_not_drift_score_near_zero_however_many_they_are(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    words = np.array([f"k{place}" for place in range(kinds)])
    found = scored(pa.array(rng.choice(words, 100_000)), pa.array(rng.choice(words, 3000)))
    for statistic, most in (
        ("psi", 0.02),
        ("js", 0.06),
        ("hellinger", 0.06),
        ("tv", 0.06),
        ("chi_square", 0.02),
    ):
        value = found[statistic].value
        assert value is not None
        assert value <= most
    assert found["psi"].p_value is not None
    assert found["psi"].p_value > 0.001
    assert set(found) == {"psi", "js", "hellinger", "tv", "chi_square"}


@pytest.mark.parametrize("statistic", ALL_STATISTICS)
def test_without_drift_the_corrected_value_is_far_below_the_plain_one(statistic: str) -> None:
    rng = np.random.default_rng(11)
    corrected, plain = [], []
    for _ in range(30):
        found = scored(rng.normal(size=20_000), rng.normal(size=1000))[statistic]
        corrected.append(found.value)
        plain.append(found.plain)
    if statistic == "chi_square":  # plain is the statistic itself, the value an association in [0, 1]
        assert np.median(corrected) < 0.02
    else:
        assert np.median(corrected) <= 0.5 * np.median(plain)


def test_a_large_drift_is_not_corrected_away() -> None:
    rng = np.random.default_rng(12)
    found = scored(rng.normal(size=20_000), rng.normal(1, 1, 1000))
    for statistic in ("psi", "js", "ks", "hellinger", "tv", "wasserstein"):
        one = found[statistic]
        assert one.value == pytest.approx(one.plain, rel=0.03)


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (np.full(1000, 5.0), "constant"),
        (np.full(1000, 5.00025), "constant_changed"),
        (np.full(1000, 6.0), "constant_changed"),
        (np.full(5, 5.0), "insufficient"),
        (np.full(1000, np.nan), "no_data"),
        (pa.nulls(1000, pa.float64()), "no_data"),
    ],
)
def test_every_awkward_column_has_a_status(after: object, status: str) -> None:
    found = scored(np.full(1000, 5.0), after)
    assert {one.status for one in found.values()} == {status}


def test_a_change_of_a_constant_within_rounding_scores_nothing_and_a_real_one_all() -> None:
    rounding = scored(np.full(1000, 5.0), np.full(1000, 5.00025))
    real = scored(np.full(1000, 5.0), np.full(1000, 6.0))
    assert {one.value for one in rounding.values()} == {0.0}
    assert real["ks"].value == pytest.approx(1.0, abs=0.01)
    assert real["wasserstein"].value == pytest.approx(1.0, rel=0.01)


def test_weights_make_a_biased_sample_say_what_the_whole_says() -> None:
    """Rows above zero are kept in one of ten; inverse weights undo it."""
    rng = np.random.default_rng(13)
    before, after = rng.normal(size=50_000), rng.normal(size=50_000)
    reference = build_reference(pa.table({"x": before}), "r")
    kept = (after < 0) | (rng.random(len(after)) < 0.1)
    weights = np.where(after < 0, 1.0, 10.0)[kept]
    table = pa.table({"x": after[kept]})
    plain = by_name(reference, profile(table, reference.spec))
    weighted = by_name(reference, profile(table, reference.spec, weights))
    assert plain["psi"].value > 0.5
    assert weighted["psi"].value < 0.005
    assert weighted["ks"].value < 0.01
    assert weighted["ks"].n_current < kept.sum()


def by_name(reference: Reference, state) -> dict[str, Score]:
    return {one.statistic: one for one in score(reference.state, state, reference.spec, ALL_STATISTICS)}


def test_a_yardstick_gives_the_same_scores() -> None:
    rng = np.random.default_rng(14)
    reference = build_reference(pa.table({"x": rng.normal(size=5000)}), "r")
    state = profile(pa.table({"x": rng.normal(0.2, 1, 1000)}), reference.spec)
    stick = yardstick(reference.state, reference.spec)
    assert score(stick, state, reference.spec) == score(reference.state, state, reference.spec)


def test_one_odd_row_in_a_cell_that_the_reference_has_empty_is_no_alarm() -> None:
    before, after = np.zeros(50_000), np.zeros(1000)
    before[:60], after[:1] = 3.0, 9.0
    assert scored(before, after)["psi"].p_value > 0.001


def test_three_percent_where_there_was_a_tenth_of_one_is_an_alarm() -> None:
    rng = np.random.default_rng(15)
    before = np.where(rng.random(50_000) < 0.999, 0.0, rng.gamma(2.0, size=50_000))
    after = np.where(rng.random(5000) < 0.97, 0.0, rng.gamma(2.0, size=5000))
    assert scored(before, after)["psi"].p_value < 1e-6
