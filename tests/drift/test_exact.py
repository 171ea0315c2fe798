"""Exact statistics equal scipy's; binned ones are near them, within their own bound; laws of distances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlobs.drift import exact
from mlobs.drift.compare import compare, made_exact
from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.score import ALL_STATISTICS, Score, score
from mlobs.drift.state import weighted_cells
from mlobs.stats import distances
from tests.drift.test_check_command import check
from tests.drift.test_score import LAWS

MORE_LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = LAWS | {
    "exponential": lambda rng, n: rng.exponential(3.0, n),
    "student": lambda rng, n: rng.standard_t(3, n),
    "beta": lambda rng, n: rng.beta(0.5, 0.5, n),
    "pareto": lambda rng, n: rng.pareto(2.5, n),
    "poisson": lambda rng, n: rng.poisson(4, n).astype(float),
    "prices": lambda rng, n: np.round(rng.lognormal(3, 1, n), 2),
    "tiny": lambda rng, n: rng.normal(0, 1e-200, n),
    "scores": lambda rng, n: rng.beta(0.3, 30, n),
    "steps": lambda rng, n: rng.choice([0.0, 1.0, 10.0, 1e6], n, p=[0.4, 0.3, 0.2, 0.1]),
}
PAIRS = st.tuples(st.integers(2, 30), st.integers(0, 10_000))


def binned(before: np.ndarray, after: np.ndarray) -> tuple[dict[str, Score], dict[str, Score]]:
    """(scores from bins, exact scores) of a numeric column."""
    tables = [pa.table({"x": values}) for values in (before, after)]
    reference = build_reference(tables[0], "r")
    result = compare(reference, [tables[1]], "c")
    column = [lambda name, table=table: table[name].combine_chunks() for table in tables]
    made = made_exact(result, reference.spec, *column)
    return dict(result.columns[0].scores), dict(made.columns[0].scores)


@pytest.mark.parametrize("law", MORE_LAWS)
@pytest.mark.parametrize("size", [300, 20_000])
def test_exact_numbers_equal_scipy_and_binned_ones_lie_within_their_bound(law: str, size: int) -> None:
    rng = np.random.default_rng(17)
    before, after = MORE_LAWS[law](rng, 2 * size), MORE_LAWS[law](rng, size)
    after = after + 0.2 * (np.subtract(*np.quantile(before, [0.8, 0.2])) or 1.0)
    rough, fine = binned(before, after)
    peer = stats.ks_2samp(before, after, method="asymp")
    assert fine["ks"].plain == pytest.approx(peer.statistic, abs=1e-12)
    assert fine["ks"].p_value == pytest.approx(peer.pvalue, rel=1e-9, abs=1e-300)
    distance = stats.wasserstein_distance(before, after)
    assert fine["wasserstein"].plain == pytest.approx(distance, rel=1e-9)
    assert abs(fine["ks"].plain - rough["ks"].plain) <= rough["ks"].bound + 1e-12
    assert abs(rough["wasserstein"].plain - distance) <= rough["wasserstein"].bound + 1e-12 * abs(distance)
    if size > 1000:
        assert abs(fine["ks"].plain - rough["ks"].plain) <= 1e-3
        if law != "cauchy":  # no mean: the distance is that of a few values in the far tails
            assert rough["wasserstein"].plain == pytest.approx(distance, rel=0.01)


@pytest.mark.parametrize("kinds", [2, 40, 700])
def test_exact_categories_equal_scipy(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    drawn = [rng.integers(0, kinds, 3000) + shift for shift in (0, kinds // 4)]
    words = [pa.array([f"k{value}" for value in values]) for values in drawn]
    reference = build_reference(pa.table({"x": words[0]}), "r")
    result = compare(reference, [pa.table({"x": words[1]})], "c")
    found = made_exact(result, reference.spec, lambda _: words[0], lambda _: words[1]).columns[0].scores
    counts = np.stack([np.bincount(values, minlength=2 * kinds) for values in drawn])
    counts = counts[:, counts.sum(axis=0) > 0]
    peer = stats.chi2_contingency(counts, correction=False)
    assert found["chi_square"].plain == pytest.approx(peer.statistic, rel=1e-9)
    assert found["chi_square"].p_value == pytest.approx(peer.pvalue, rel=1e-9)
    p, q = counts / counts.sum(axis=1, keepdims=True)
    assert found["js"].plain == pytest.approx(jensenshannon(p, q, base=2), rel=1e-9)
    assert found["tv"].plain == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-9)
    assert found["hellinger"].plain == pytest.approx(np.sqrt(1 - np.sqrt(p * q).sum()), rel=1e-9)


def test_check_takes_exact_with_two_tables_and_refuses_a_stored_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    sides = [rng.normal(size=3000), rng.normal(0.1, 1, 3000)]
    for name, values in zip("ab", sides, strict=True):
        pq.write_table(pa.table({"x": values, "w": pa.array(["p", "q"] * 1500)}), f"{name}.parquet")
    code, output = check("b.parquet", "a.parquet", "--exact", "--json")
    scores = json.loads(output)["columns"][0]["scores"]
    assert code == 0
    assert scores["ks"]["plain"] == pytest.approx(stats.ks_2samp(*sides).statistic, abs=1e-12)
    assert scores["ks"]["bound"] == 0.0
    Path("r.mlref").write_bytes(b"MLREF\0")
    code, message = check("b.parquet", "r.mlref", "--exact")
    assert code == 2
    assert "name its table" in message


def drawn(pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    cells, seed = pair
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(cells, rng.choice([0.05, 0.5, 5.0])), 2)
    return p, q


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "psi": lambda p, q: distances.psi(p, q, np.array(1000), np.array(1000)),
    "js": distances.jensen_shannon_divergence,
    "hellinger": distances.hellinger_squared,
    "tv": distances.total_variation,
    "ks": distances.kolmogorov_smirnov,
    "chi_square": lambda p, q: distances.chi_square(p, q, np.array(1000), np.array(1000))[0],
}


@pytest.mark.parametrize("name", DISTANCES)
@given(pair=PAIRS)
def test_a_distance_is_not_negative_zero_on_itself_and_symmetric(name: str, pair: tuple[int, int]) -> None:
    p, q = drawn(pair)
    distance = DISTANCES[name]
    assert distance(p, q) >= 0
    assert distance(p, p) == pytest.approx(0.0, abs=1e-12)
    assert distance(p, q) == pytest.approx(float(distance(q, p)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["js", "hellinger"])
@given(pair=PAIRS, third=st.integers(0, 10_000))
def test_roots_of_the_divergences_keep_the_triangle(name: str, pair: tuple[int, int], third: int) -> None:
    p, q = drawn(pair)
    r = np.random.default_rng(third).dirichlet(np.ones(pair[0]))
    side = lambda a, b: float(np.sqrt(DISTANCES[name](a, b)))  # noqa: E731 - three uses in one line
    assert side(p, q) <= side(p, r) + side(r, q) + 1e-9


@given(pair=PAIRS)
def test_joining_cells_never_lengthens_a_distance(pair: tuple[int, int]) -> None:
    p, q = drawn(pair)
    joined = [np.append(values[:-2], values[-2:].sum()) for values in (p, q)]
    for name in ("js", "hellinger", "tv", "ks", "chi_square"):
        assert DISTANCES[name](*joined) <= DISTANCES[name](p, q) * (1 + 1e-9) + 1e-12


SAMPLES = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32))


@given(x=SAMPLES, y=SAMPLES, scale=st.sampled_from([0.5, 2.0, 1024.0]), shift=st.sampled_from([0.0, 4096.0]))
def test_wasserstein_scales_with_the_unit_and_ks_does_not(
    x: np.ndarray, y: np.ndarray, scale: float, shift: float
) -> None:
    x, y = np.sort(x), np.sort(y)
    plain = exact.wasserstein(x, y)[0]
    assert exact.wasserstein(x * scale, y * scale)[0] == pytest.approx(plain * scale, rel=1e-9)
    assert exact.wasserstein(x, x)[0] == 0.0
    assert exact.wasserstein(y, x)[0] == pytest.approx(plain, rel=1e-12)
    assert exact.wasserstein(x, x + shift)[0] == pytest.approx(shift, rel=1e-6, abs=1e-6)
    assert exact.kolmogorov_smirnov(x * scale, y * scale) == exact.kolmogorov_smirnov(x, y)
    assert exact.kolmogorov_smirnov(x, y) == exact.kolmogorov_smirnov(y, x)


@settings(max_examples=20, deadline=None)
@given(law=st.sampled_from(sorted(MORE_LAWS)), seed=st.integers(0, 10_000), rows=st.integers(50, 3000))
def test_a_state_scores_zero_against_itself(law: str, seed: int, rows: int) -> None:
    table = pa.table({"x": MORE_LAWS[law](np.random.default_rng(seed), rows)})
    reference = build_reference(table, "r")
    for one in score(reference.state, profile(table, reference.spec), reference.spec, ALL_STATISTICS):
        assert one.plain == pytest.approx(0.0, abs=1e-12)
        assert one.value == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), low=st.sampled_from([0.02, 0.1, 0.5]), high=st.sampled_from([0.2, 0.7, 1.0])
)
def test_weights_are_unbiased_whatever_the_rates(seed: int, low: float, high: float) -> None:
    """Rows kept at `low` below the median and `high` above: weighted counts are those of all on average."""
    rng = np.random.default_rng(seed)
    rows, rounds = 1000, 40
    values = rng.normal(size=rows)
    reference = build_reference(pa.table({"x": values}), "r")
    rate = np.where(values < 0, low, high)
    column = reference.spec.columns["x"]
    total = np.zeros(column.cells)
    for _ in range(rounds):
        kept = rng.random(rows) < rate
        state = profile(pa.table({"x": values[kept]}), reference.spec, 1 / rate[kept])
        total += weighted_cells(state, "x", column.cells)
        assert state.effective_rows <= kept.sum() * (1 + 1e-9)
    place = np.searchsorted(column.grid.edges, values, side="right")
    variance = np.bincount(place, (1 - rate) / rate, column.cells) / rounds
    wanted = np.bincount(place, minlength=column.cells)
    # The weights are rounded to 11 bits: 0.05 %. Six standard errors, as every cell of every example counts.
    assert (np.abs(total / rounds - wanted) <= 6 * np.sqrt(variance) + 6e-4 * wanted + 0.5).all()
    assert total.sum() / rounds == pytest.approx(rows, abs=5 * np.sqrt(variance.sum()) + 1)
