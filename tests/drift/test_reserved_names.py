"""Features that are called as columns of the log are: never taken for the model's own output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.codec import load_state
from mlobs.drift.engines.base import FileSlice, Job, Keying
from mlobs.drift.engines.kernel import profile_slice
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.mlref import dump_reference
from mlobs.drift.reference import build_reference
from mlobs.drift.rows import feature_table
from mlobs.featurelog.maskschema import logged_as
from tests.drift.test_check_command import run
from tests.drift.traffic import records

ROWS = 1000
RESERVED = ("prediction", "label", "score", "event_time", "weight", "model_version", "segment")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlobs.drift.engines.local.LocalEngine", lambda workers: LocalEngine(0))


def table(seed: int, shift: float = 0.0, rise: float = 0.0) -> pa.Table:
    """`risk` is the model's output, `prediction` that of another model, which is a feature."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "risk": rng.normal(0 + rise, 1, ROWS),
            "prediction": rng.normal(100 + shift, 1, ROWS),
            "x": rng.random(ROWS),
        }
    )


def log(flat: pa.Table) -> pa.Table:
    return records(flat.drop_columns("risk"), 0.0).append_column("prediction", flat["risk"])


def test_in_the_log_a_feature_called_prediction_stands_apart_from_the_output() -> None:
    found = feature_table(log(table(1)))
    assert sorted(found.schema.names) == ["features.prediction", "prediction", "x"]
    assert np.mean(found["prediction"]) == pytest.approx(0, abs=0.2)
    aside = pa.array([[("prediction", '"high"')]] + [None] * (ROWS - 1), pa.map_(pa.string(), pa.string()))
    struct = pa.StructArray.from_arrays([pa.array([None] + [100.0] * (ROWS - 1))], names=["prediction"])
    odd = pa.table({"features": struct, "prediction": [0.5] * ROWS, "conflicts": aside})
    assert feature_table(odd)["features.prediction"][0].as_py() == "high"
    assert feature_table(odd)["prediction"][0].as_py() == 0.5


def test_every_reserved_name_may_be_a_feature_of_the_log(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    flat = pa.table({name: rng.normal(size=ROWS) for name in (*RESERVED, "risk")})
    reference = build_reference(flat, "r", score_column="risk")
    assert set(reference.spec.columns) == {*RESERVED, "features.prediction"}
    pq.write_table(log(flat), tmp_path / "log.parquet")
    job = Job(dump_reference(reference), Keying(time="event_time", weight="weight"))
    outcome = profile_slice(FileSlice(str(tmp_path / "log.parquet"), ""), job)
    assert not outcome.problem
    state = load_state(outcome.states[0][1], "test").strata[1.0]
    assert {name: counts.missing for name, counts in state.columns.items()} == dict.fromkeys(state.columns, 0)
    assert not state.extra
    for name, counts in state.columns.items():
        assert counts.cells.tolist() == reference.state.strata[1.0].columns[name].cells.tolist()


@pytest.mark.parametrize("engine", [(), ("--engine", "local")])
def test_of_two_columns_the_one_that_moved_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(1), "a.parquet")
    run("reference", "build", "a.parquet", "-o", "a.mlref", "--score", "risk")
    for changed, moved in (({"shift": 3.0}, "features.prediction"), ({"rise": 3.0}, "prediction")):
        pq.write_table(table(2, **changed), "b.parquet")
        for kept in ("a.parquet", "a.mlref"):
            words = ("--reference", kept, "--current", "b.parquet", "--score", "risk", "--json", *engine)
            code, output = run("check", *words)
            found = {
                one["name"]: one["verdict"] for one in json.loads(output[: output.rindex("}") + 1])["columns"]
            }
            assert (code, [name for name, verdict in found.items() if verdict == "drifted"]) == (1, [moved])
            assert len(found) == 3
            assert "unknown" not in output
    code, output = run(
        "check",
        "--reference",
        "a.mlref",
        "--current",
        "a.parquet",
        "--score",
        "risk",
        "--columns",
        "prediction",
    )
    assert (code, "features.prediction" in output) == (0, False), output


@pytest.mark.parametrize("engine", [(), ("--engine", "local")])
def test_a_file_of_the_log_is_judged_by_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(1).rename_columns(["risk", "prediction", "y"]), "a.parquet")
    run("reference", "build", "a.parquet", "-o", "a.mlref", "--score", "risk", "--alias", "x=y")
    names = ["prediction", "y" if not engine else "x"]
    for shift, code in ((0.0, 0), (3.0, 1)):
        pq.write_table(log(table(2, shift).rename_columns(["risk", *names])), "log.parquet")
        words = ("--reference", "a.mlref", "--current", "log.parquet", "--alias", "x=y", *engine)
        found, output = run("check", *words, "--json")
        assert found == code, output
        columns = json.loads(output[: output.rindex("}") + 1])["columns"]
        moved = [one["name"] for one in columns if one["verdict"] == "drifted"]
        assert (moved, "unknown" in output) == (["features.prediction"] * code, False)


def test_a_table_with_a_struct_called_features_is_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flat = log(table(1)).select(["features", "prediction"])
    pq.write_table(flat, "a.parquet")
    code, output = run("check", "--reference", "a.parquet", "--current", "a.parquet", "--json")
    found = {one["name"]: one["verdict"] for one in json.loads(output[: output.rindex("}") + 1])["columns"]}
    assert (code, found) == (0, {"features": "absent", "prediction": "ok"})
    pq.write_table(log(table(1)), "b.parquet")
    code, output = run("check", "--reference", "b.parquet", "--current", "b.parquet", "--json")
    names = [one["name"] for one in json.loads(output)["columns"]]
    assert (code, names) == (0, ["features.prediction", "x", "prediction"])


def test_masking_knows_which_of_the_two_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "mask.yaml"
    path.write_text("version: 1\nfields: {prediction: hash}\nprediction: clear\n")
    find = logged_as(str(path))
    assert [find("m", name)[0] for name in ("prediction", "features.prediction")] == ["clear", "hash"]


def test_keyed_rows_of_a_flat_table_have_both(tmp_path: Path) -> None:
    pq.write_table(table(1), tmp_path / "a.parquet")
    reference = build_reference(table(1), "r", score_column="risk", features=["prediction"])
    assert set(reference.spec.columns) == {"prediction", "features.prediction"}
    job = Job(dump_reference(reference), Keying(score="risk"))
    outcome = profile_slice(FileSlice(str(tmp_path / "a.parquet"), ""), job)
    assert [name for name, _ in outcome.types] == ["prediction", "features.prediction", "x"]
    renamed = replace(job, aliases=(("risk", "hazard"),), keying=Keying(score="hazard"))
    found = profile_slice(FileSlice(str(tmp_path / "a.parquet"), ""), renamed)
    assert (found.problem, found.states) == ("", outcome.states)
