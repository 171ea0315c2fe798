"""The block of second moments: merging, the decoupled pair, awkward columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlobs.drift.arrays import kind_of
from mlobs.drift.multivariate import joint_scores
from mlobs.drift.profile import profile
from mlobs.drift.spec import ColumnSpec, Spec
from mlobs.drift.state import State, merge


def state(columns: dict[str, np.ndarray]) -> State:
    table = pa.table(columns)
    specs = {field.name: ColumnSpec(field.name, kind_of(field.type)) for field in table.schema}
    return profile(table, Spec(specs, deep=True, block=tuple(specs)))


def pair(seed: int, n: int, correlation: float, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    return {"x": x, "y": y + shift, "z": rng.normal(size=n)}


def by_name(a: State, b: State) -> dict[str, float | None]:
    return {one.statistic: one.value for one in joint_scores(a, b)}


def test_a_pair_that_comes_apart_is_seen_and_named() -> None:
    before, after = state(pair(1, 20_000, 0.9)), state(pair(2, 3000, 0.0))
    still = state(pair(3, 3000, 0.9))
    scores = joint_scores(before, after)
    assert scores[0].value is not None
    assert scores[0].value > 1.0
    assert scores[0].pair in (("x", "y"), ("y", "x"))
    assert by_name(before, still)["gaussian"] == pytest.approx(0.0, abs=0.01)


def test_the_pca_error_grows_when_the_pair_comes_apart_and_is_one_without_a_change() -> None:
    before = state(pair(1, 20_000, 0.95))
    assert by_name(before, state(pair(2, 3000, 0.0)))["pca"] > 3
    assert by_name(before, state(pair(3, 3000, 0.95)))["pca"] == pytest.approx(1.0, abs=0.15)


def test_blocks_merge_to_the_block_of_all_rows_even_far_from_zero() -> None:
    columns = {name: values + 1e9 for name, values in pair(4, 4000, 0.5).items()}
    whole = state(columns)
    parts = [state({name: values[part::3] for name, values in columns.items()}) for part in range(3)]
    for order in ((0, 1, 2), (2, 0, 1)):
        merged = merge(merge(parts[order[0]], parts[order[1]]), parts[order[2]])
        one, other = whole.strata[1.0].block, merged.strata[1.0].block
        assert other.n == one.n
        assert other.mean == pytest.approx(one.mean, rel=1e-12)
        assert other.covariance == pytest.approx(one.covariance, rel=1e-6, abs=1e-6)


def test_nulls_constants_and_short_windows_have_a_stated_result() -> None:
    columns = pair(5, 2000, 0.3)
    before = state(columns)
    short = joint_scores(before, state({name: values[:20] for name, values in columns.items()}))
    assert {one.status for one in short} == {"insufficient"}
    gone = joint_scores(before, state(columns | {"x": np.full(2000, np.nan)}))
    assert {one.status for one in gone} == {"no_data"}
    constant = joint_scores(before, state(columns | {"x": np.full(2000, 7.0)}))
    assert all(one.value is not None and np.isfinite(one.value) for one in constant)
