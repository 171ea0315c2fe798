"""The block of second moments: merging, the decoupled pair, awkward columns."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from mlobs.drift.arrays import kind_of
from mlobs.drift.export import DriftMetrics
from mlobs.drift.multivariate import joint_scores
from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.spec import ColumnSpec, Spec
from mlobs.drift.state import State, merge
from mlobs.drift.verdicts import Stream, judge
from tests.drift.test_check_command import run


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


def pair_table(seed: int, rho: float, rows: int = 4000) -> pa.Table:
    drawn = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], rows)
    return pa.table({"x": drawn[:, 0], "y": drawn[:, 1], "w": pa.array(["a", "b"] * (rows // 2))})


def test_check_scores_columns_together_and_sees_a_pair_come_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, table in (("a", pair_table(1, 0.9)), ("b", pair_table(2, 0.9)), ("c", pair_table(3, 0.0))):
        pq.write_table(table, f"{name}.parquet")
    values = {}
    for name in "bc":
        words = ("--reference", "a.parquet", "--current", f"{name}.parquet", "--joint", "x,y", "--json")
        code, output = run("check", *words)
        assert code == 0  # a score without a verdict: no single column has moved
        values[name] = {one["statistic"]: one["value"] for one in json.loads(output)["joint"]}
    assert values["b"]["gaussian"] < 0.01
    assert values["c"]["gaussian"] > 1.0
    assert values["c"]["pca"] > 2.0 > values["b"]["pca"]
    code, output = run("check", "--reference", "a.parquet", "--current", "c.parquet", "--joint", "x,w")
    assert code == 2


def test_serve_exports_the_joint_scores_without_a_verdict() -> None:
    reference = build_reference(pair_table(1, 0.9), "r", block=("x", "y"))
    state = profile(pair_table(3, 0.0), reference.spec)
    window = judge(Stream("m", "v", ""), 0, 60, state, reference, reference.spec, 100, 0.05)
    assert window.verdict == "ok"
    found = {one.statistic: one for one in window.verdicts if one.feature == "(joint)"}
    assert found["gaussian"].value > 1.0
    assert found["gaussian"].status == "exported"
    assert "most changed: x with y" in found["gaussian"].detail
    registry = CollectorRegistry()
    DriftMetrics(registry, ["m"]).show(window)
    labels = {"model": "m", "feature": "(joint)", "statistic": "gaussian", "reference": "r"}
    assert registry.get_sample_value("mlobs_drift_score", labels) == found["gaussian"].value
