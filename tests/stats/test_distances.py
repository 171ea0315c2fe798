"""The distances against scipy and numpy, and the laws that they keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlobs.stats import distances
from mlobs.stats.kolmogorov import Side, binned_kolmogorov
from mlobs.stats.margin import kolmogorov_p, margin_test
from mlobs.stats.wasserstein import binned_wasserstein

counts = hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(0, 10_000))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(2, 40))
    pair = [
        draw(hnp.arrays(np.int64, size, elements=st.integers(0, 10_000)).filter(lambda a: a.sum() > 0))
        for _ in range(2)
    ]
    return pair[0], pair[1]


def both(pair: tuple[np.ndarray, np.ndarray]):
    return distances.shares(pair[0]), distances.shares(pair[1]), pair[0].sum(), pair[1].sum()


SYMMETRIC = {
    "psi": distances.psi,
    "jensen_shannon": lambda p, q, n, m: distances.jensen_shannon_divergence(p, q),
    "hellinger": lambda p, q, n, m: distances.hellinger_squared(p, q),
    "total_variation": lambda p, q, n, m: distances.total_variation(p, q),
    "kolmogorov_smirnov": lambda p, q, n, m: distances.kolmogorov_smirnov(p, q),
    "chi_square": lambda p, q, n, m: distances.chi_square(p, q, n, m)[0],
}
BOUNDED = {"jensen_shannon", "hellinger", "total_variation", "kolmogorov_smirnov"}


@pytest.mark.parametrize("name", SYMMETRIC)
@given(pair=pairs())
def test_a_distance_is_non_negative_symmetric_and_zero_on_itself(name: str, pair) -> None:
    p, q, n, m = both(pair)
    distance = SYMMETRIC[name]
    there, back = float(distance(p, q, n, m)), float(distance(q, p, m, n))
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-9, abs=1e-12)
    assert float(distance(p, p, n, n)) == pytest.approx(0, abs=1e-12)
    if name in BOUNDED:
        assert there <= 1 + 1e-12


@given(pair=pairs(), factor=st.integers(2, 50))
def test_shares_and_not_sizes_decide(pair, factor: int) -> None:
    p, q, _, _ = both(pair)
    scaled, _, _, _ = both((pair[0] * factor, pair[1]))
    assert distances.total_variation(scaled, q) == pytest.approx(distances.total_variation(p, q), abs=1e-12)


@given(pair=pairs())
def test_jensen_shannon_equals_scipy(pair) -> None:
    p, q, _, _ = both(pair)
    expected = np.nan_to_num(jensenshannon(p, q, base=2))
    assert np.sqrt(distances.jensen_shannon_divergence(p, q)) == pytest.approx(expected, abs=1e-7)


@given(pair=pairs())
def test_chi_square_equals_scipy(pair) -> None:
    a, b = pair
    used = (a + b) > 0
    if used.sum() < 2:
        return
    expected = stats.chi2_contingency(np.array([a[used], b[used]]), correction=False)
    found, freedom = distances.chi_square(*both(pair))
    assert float(found) == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert int(freedom) == expected.dof


@given(pair=pairs())
def test_hellinger_total_variation_psi_and_ks_equal_their_definitions(pair) -> None:
    a, b = pair[0] + 1, pair[1] + 1
    p, q, n, m = both((a, b))
    assert np.sqrt(distances.hellinger_squared(p, q)) == pytest.approx(
        np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / np.sqrt(2), abs=1e-9
    )
    assert distances.total_variation(p, q) == pytest.approx(0.5 * np.abs(p - q).sum(), abs=1e-9)
    psi = np.sum((p - q) * np.log(p / q))
    assert distances.psi(p, q, n, m) == pytest.approx(psi, rel=1e-9, abs=1e-9)
    values = np.arange(len(a))
    ks = stats.ks_2samp(np.repeat(values, a % 50 + 1), np.repeat(values, b % 50 + 1)).statistic
    shares = distances.shares(a % 50 + 1), distances.shares(b % 50 + 1)
    assert distances.kolmogorov_smirnov(*shares) == pytest.approx(ks, abs=1e-9)


def test_a_cell_that_is_empty_on_one_side_keeps_psi_finite() -> None:
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert 0 < float(distances.psi(p, q, 100, 100)) < 10


def test_empty_samples_have_no_distance_and_raise_nothing() -> None:
    zero = np.zeros(4)
    assert float(distances.psi(zero, zero, 0, 0)) == 0
    assert float(margin_test(zero[None], zero[None], np.zeros(1), np.zeros(1))[1][0]) == 1


def test_the_margin_test_keeps_its_level_at_the_margin() -> None:
    """At PSI = margin exactly, p < 0.05 comes in 5 % of the samples; accepted here: 3 to 7.5 % of 2,000."""
    rng = np.random.default_rng(5)
    k, n, m, margin = 20, 3000, 100_000, 0.01
    q = np.full(k, 1 / k)
    low, high = 0.0, 0.2
    for _ in range(60):  # the size of the change that gives the margin
        middle = (low + high) / 2
        p = q * (1 + middle * np.where(np.arange(k) % 2, 1, -1))
        low, high = (middle, high) if distances.psi(p, q, n, m) < margin else (low, middle)
    one = rng.multinomial(m, q, size=2000) / m
    other = rng.multinomial(n, p, size=2000) / n
    _, tail = margin_test(one, other, np.full(2000, m), np.full(2000, n), margin)
    assert 0.03 < np.mean(tail < 0.05) < 0.075


def test_the_margin_test_finds_half_a_deviation_in_300_rows() -> None:
    rng = np.random.default_rng(6)
    edges = stats.norm.ppf(np.arange(1, 20) / 20)
    q = np.full((1, 20), 1 / 20)
    found = 0
    for _ in range(200):
        p = np.bincount(np.searchsorted(edges, rng.normal(0.5, 1, 300)), minlength=20)[None] / 300
        found += float(margin_test(q, p, np.array([1e5]), np.array([300.0]))[1][0]) < 0.001 / 50
    assert found > 160


def test_the_kolmogorov_p_value_is_near_the_exact_law() -> None:
    distance = np.linspace(0.01, 0.3, 30)
    exact = stats.kstwo.sf(distance, 150)
    found = kolmogorov_p(distance, 300, 300)
    assert np.abs(found - exact).max() < 0.01
    assert (found >= exact - 1e-3).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.tuples(*[st.integers(1, 80)] * 2), cuts=st.integers(1, 12))
def test_the_binned_kolmogorov_distance_is_within_its_bound_of_the_exact_one(seed, sizes, cuts) -> None:
    """Whatever the values and the edges: few values, clustered, in few bins."""
    rng = np.random.default_rng(seed)
    a, b = (
        np.round(rng.normal(rng.normal(), rng.choice([0.01, 1, 5]), n), rng.integers(1, 9)) for n in sizes
    )
    edges = np.unique(rng.normal(0, 3, cuts))

    def side(x: np.ndarray) -> Side:
        place, size = np.searchsorted(edges, x, side="right"), len(edges) + 1
        counts, sums = np.bincount(place, minlength=size)[None], np.bincount(place, x, size)[None]
        return Side(counts / len(x), counts, sums, np.array([x.min()]), np.array([x.max()]))

    with np.errstate(invalid="ignore"):
        upper = np.append(edges, edges[-1])[None]
        found, bound = binned_kolmogorov(upper, np.zeros(upper.shape, bool), side(a), side(b))
    assert abs(found[0] - stats.ks_2samp(a, b).statistic) <= bound[0] + 1e-12
    assert 0 <= found[0] <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    law=st.sampled_from(["normal", "uniform", "lognormal", "integers"]),
    shift=st.sampled_from([0.0, 0.01, 0.3, 2.0]),
)
def test_binned_wasserstein_is_within_its_bound_of_the_exact_one(seed: int, law: str, shift: float) -> None:
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda n: rng.normal(size=n),
        "uniform": rng.random,
        "lognormal": lambda n: rng.lognormal(size=n),
        "integers": lambda n: rng.integers(0, 9, n).astype(float),
    }[law]
    a, b = draw(2000), draw(1500) + shift
    edges = np.unique(np.concatenate([np.quantile(a, np.arange(1, 64) / 64), [min(a.min(), b.min())],
                                      [np.nextafter(max(a.max(), b.max()), np.inf)]]))  # fmt: skip

    def side(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.searchsorted(edges, x, side="right")
        size = len(edges) + 1
        return np.bincount(place, minlength=size)[None] * 1.0, np.bincount(place, x, size)[None]

    upper = np.append(edges, edges[-1])[None]
    found, _, bound = binned_wasserstein(upper, *side(a), *side(b), np.array([1 / 2000 + 1 / 1500]))
    exact = stats.wasserstein_distance(a, b)
    assert abs(found[0] - exact) <= bound[0] + 1e-9 * max(exact, 1)
