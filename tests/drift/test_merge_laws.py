"""Merging: the same bytes in whatever batches and order, with weights; what is floating to 1e-9."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlobs.drift import bits, deep, hll
from mlobs.drift.codec import canonical_bytes, dump_state, load_state
from mlobs.drift.exactsum import as_float, exact_sum
from mlobs.drift.grid import FINE, grid_of, reference_edges
from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.spec import Spec
from mlobs.drift.state import empty_state, merge, merge_all
from tests.drift.test_score import LAWS

finite = st.floats(allow_nan=False, allow_infinity=False)
columns = hnp.arrays(np.float64, st.integers(1, 200), elements=finite)


def awkward(seed: int, rows: int) -> tuple[pa.Table, np.ndarray]:
    """Numbers with nulls, NaN, infinities and huge values; many categories; three weights."""
    rng = np.random.default_rng(seed)
    x = rng.lognormal(0, 2, rows)
    x[rng.random(rows) < 0.05] = np.nan
    x[rng.random(rows) < 0.02] = np.inf
    x[rng.random(rows) < 0.02] = -1e300
    table = pa.table(
        {
            "x": pa.array(x, mask=rng.random(rows) < 0.1),
            "n": rng.integers(-5, 60, rows),
            "k": pa.array([f"k{int(place)}" for place in rng.zipf(1.3, rows) % 3000]),
        }
    )
    return table, rng.choice([1.0, 10.0, 100 / 3], rows)


@pytest.fixture(scope="module")
def spec() -> Spec:
    table, _ = awkward(0, 2000)
    made = build_reference(table, "r").spec
    return Spec(made.columns, made.reference, deep=True, block=("x", "n"), duplicates=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(1, 10_000), cuts=st.lists(st.integers(0, 600), max_size=5), order=st.randoms())
def test_any_cut_and_order_give_the_same_canonical_bytes(spec: Spec, seed: int, cuts, order) -> None:
    table, weights = awkward(seed, 600)
    places = [0, *sorted(cuts), 600]
    parts = [profile(table.slice(a, b - a), spec, weights[a:b]) for a, b in pairwise(places)]
    whole = profile(table, spec, weights)
    order.shuffle(parts)
    merged = merge_all(parts, spec.reference)
    assert canonical_bytes(merged) == canonical_bytes(whole)
    for weight, stratum in whole.strata.items():
        for name, counts in stratum.columns.items():
            one, other = counts.deep.moments, merged.strata[weight].columns[name].deep.moments
            assert other.n == one.n
            assert other.mean == pytest.approx(one.mean, rel=1e-9, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(seeds=st.tuples(*[st.integers(1, 10_000)] * 3))
def test_merge_is_associative_and_commutative_and_the_empty_state_its_identity(spec: Spec, seeds) -> None:
    a, b, c = (profile(*_args(seed, spec)) for seed in seeds)
    same = canonical_bytes
    assert same(merge(merge(a, b), c)) == same(merge(a, merge(b, c)))
    assert same(merge(a, b)) == same(merge(b, a))
    assert same(merge(a, empty_state(spec.reference))) == same(a)
    assert same(merge(empty_state(spec.reference), a)) == same(a)


def _args(seed: int, spec: Spec):
    table, weights = awkward(seed, 100)
    return table, spec, weights


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(1, 10_000))
def test_a_state_comes_back_from_its_bytes(spec: Spec, seed: int) -> None:
    state = profile(*_args(seed, spec))
    again = load_state(dump_state(state), "here")
    assert dump_state(again) == dump_state(state)


@given(values=columns)
def test_the_exact_sum_is_that_of_math(values: np.ndarray) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:
        return
    assert as_float(exact_sum(values)) == expected


@given(values=columns)
def test_counts_in_a_grid_equal_a_binary_search(values: np.ndarray) -> None:
    grid = grid_of(reference_edges(values))
    with np.errstate(over="ignore"):
        tried = np.concatenate(
            [values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf), [0.0, -0.0]]
        )
    tried = tried[np.isfinite(tried)]
    counts, _ = grid.count(tried, float(tried.min()), float(tried.max()))
    expected = np.bincount(np.searchsorted(grid.edges, tried, side="right"), minlength=grid.bins)
    assert (counts == expected).all()


@pytest.mark.parametrize("law", [*LAWS, "wide"])
def test_counts_and_sums_of_a_long_column_are_those_of_their_definition(law: str) -> None:
    rng = np.random.default_rng(21)
    draw = LAWS.get(law, lambda rng, n: np.exp(rng.normal(0, 60, n)) * rng.choice([-1, 1], n))
    grid = grid_of(reference_edges(draw(rng, 50_000)))
    tried = np.concatenate([draw(rng, 70_000) * rng.choice([0.5, 1, 1, 3], 70_000), [-1e300, 0.0, 1e300]])
    counts, sums = grid.count(tried, float(tried.min()), float(tried.max()))
    bins = np.searchsorted(grid.edges, tried, side="right")
    assert (counts == np.bincount(bins, minlength=grid.bins)).all()
    units = np.rint(np.clip((tried - grid.origin) * grid.scale, -(2.0**22), 2.0**22) * FINE).astype(np.int64)
    expected = np.zeros(grid.bins, dtype=np.int64)
    np.add.at(expected, bins, units)
    assert (sums == expected).all()


@pytest.mark.parametrize("law", [*LAWS, "tenths"])
@pytest.mark.parametrize("rows", [1, 16_384, 40_000])
def test_counts_and_sums_that_share_a_float_are_those_of_their_definition(law: str, rows: int) -> None:
    """Within eight training ranges or so a bin's rows and its sum are one float64: see `grid._together`."""
    rng = np.random.default_rng(22)
    draw = LAWS.get(law, lambda rng, n: rng.integers(-40, 9, n) / 10)
    grid = grid_of(reference_edges(draw(rng, 50_000)))
    low, high = float(grid.edges[0]), float(grid.edges[-1])
    tried = np.clip(draw(rng, rows), low - (high - low), high + (high - low))
    counts, sums = grid.count(tried, float(tried.min()), float(tried.max()))
    bins = np.searchsorted(grid.edges, tried, side="right")
    assert (counts == np.bincount(bins, minlength=grid.bins)).all()
    units = np.rint((tried - grid.origin) * grid.scale * FINE).astype(np.int64)
    expected = np.zeros(grid.bins, dtype=np.int64)
    np.add.at(expected, bins, units)
    assert (sums == expected).all()


@pytest.mark.parametrize("ranges", [0.5, 6.0, 900.0])
def test_a_bin_that_holds_every_row_counts_and_adds_up_exactly(ranges: float) -> None:
    """The most that a float64 has to carry: 16,383 rows at the end of what fits, and what no longer does."""
    rng = np.random.default_rng(25)
    grid = grid_of(reference_edges(rng.random(50_000)))
    tried = 1.0 + ranges * rng.random(16_383) ** 0.1
    counts, sums = grid.count(tried, float(tried.min()), float(tried.max()))
    assert counts[-1] == counts.sum() == len(tried)
    assert (
        sums[-1]
        == sums.sum()
        == int(np.rint((tried - grid.origin) * grid.scale * FINE).astype(np.int64).sum())
    )


def test_a_guessed_atom_is_confirmed_by_the_value() -> None:
    """A column of tenths: the cells know their atoms. What lies beside one by a bit is not counted to it."""
    rng = np.random.default_rng(23)
    grid = grid_of(reference_edges(rng.integers(0, 100, 50_000) / 10))
    assert grid.lookup.atoms is not None
    exact = rng.integers(0, 100, 5000) / 10
    tried = np.concatenate([exact, np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf), exact + 0.03])
    counts, _ = grid.count(tried, float(tried.min()), float(tried.max()))
    expected = np.bincount(np.searchsorted(grid.edges, tried, side="right"), minlength=grid.bins)
    assert (counts == expected).all()


@pytest.mark.parametrize("rows", [1, 64, 65, 3000])
def test_a_sparse_histogram_of_few_values_is_that_of_many(rows: int) -> None:
    values = np.random.default_rng(24).normal(size=rows) * np.where(np.arange(rows) % 2, 1.0, 1e200)
    keys, counts = np.unique(bits.keys_of(values), return_counts=True)
    assert list(bits.sparse(values).items()) == list(zip(keys.tolist(), counts.tolist(), strict=True))


@given(values=columns)
def test_keys_of_the_histogram_keep_the_order_and_hold_their_values(values: np.ndarray) -> None:
    ordered = np.sort(values)
    keys = bits.keys_of(ordered)
    assert (np.diff(keys.astype(np.int64)) >= 0).all()
    assert (bits.lower_edge(keys) <= ordered).all()


@pytest.mark.parametrize("distinct", [0, 1, 10, 1000, 50_000])
def test_distinct_values_are_counted_within_four_standard_errors(distinct: int) -> None:
    values = np.random.default_rng(distinct).normal(size=distinct)
    found = hll.estimate(hll.of_numbers(np.repeat(values, 3)))
    assert found == pytest.approx(distinct, rel=4 * 0.016, abs=0.5)


def test_categories_beyond_the_cap_are_kept_by_smallest_hash_with_exact_counts() -> None:
    counts = {f"w{place}": place % 7 + 1 for place in range(5000)}
    names = list(counts)
    halves = [deep.of_words({name: counts[name] for name in names[part::2]}) for part in range(2)]
    merged = deep.merge_deep(*halves)
    assert len(merged.words) == deep.CATEGORY_CAP
    assert all(counts[word] == count for word, count in merged.words.items())
    assert sum(merged.words.values()) + merged.other == sum(counts.values())
