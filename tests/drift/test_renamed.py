"""Renamed columns in `mlobs drift`: read under the name in force, whichever file has which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.aliased import under_names_in_force, with_old_names
from mlobs.drift.columns import as_table
from mlobs.drift.declared import renamed_columns
from mlobs.drift.engines.base import Job, Keying
from mlobs.drift.engines.ledger import job_id
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.reference import build_reference
from tests.drift.test_check_command import run
from tests.drift.traffic import day_table

ROWS = 2000
NOW = ("--alias", "amount_eur=amount")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlobs.drift.engines.local.LocalEngine", lambda workers: LocalEngine(0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """old.parquet and new.parquet of one law, `amount` in the one is `amount_eur` in the other."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(day_table(0, ROWS, seed=1), "old.parquet")
    pq.write_table(later(day_table(1, ROWS, seed=1)), "new.parquet")
    return tmp_path


def later(table: pa.Table) -> pa.Table:
    return table.rename_columns(["amount_eur" if name == "amount" else name for name in table.schema.names])


def columns(output: str) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in json.loads(output[: output.rindex("}") + 1])["columns"]}


def test_a_renamed_column_is_gone_and_new_without_an_alias_and_the_same_with_it(folder: Path) -> None:
    words = ("check", "--reference", "old.parquet", "--current", "new.parquet")
    assert run(*words)[0] == 1
    code, output = run(*words, *NOW, "--json")
    assert code == 0, output
    assert "unknown" not in output
    assert list(columns(output)) == ["amount_eur", "temp", "country", "gust"]
    pq.write_table(day_table(1, ROWS, seed=1), "named_as_before.parquet")
    plain = run("check", "--reference", "old.parquet", "--current", "named_as_before.parquet", "--json")[1]
    assert columns(output)["amount_eur"] | {"name": "amount"} == columns(plain)["amount"]


@pytest.mark.parametrize(
    "more", [(), ("--exact",), ("--columns", "amount_eur,temp"), ("--joint", "amount_eur,temp")]
)
def test_either_side_may_have_either_name(folder: Path, more: tuple[str, ...]) -> None:
    for before, after in (("old", "new"), ("new", "old"), ("old", "old")):
        words = ("--reference", f"{before}.parquet", "--current", f"{after}.parquet", *NOW, *more)
        code, output = run("check", *words)
        assert (code, "amount_eur" in output) == (0, True), output


def test_a_built_reference_and_a_folder_of_both_names(folder: Path) -> None:
    assert run("reference", "build", "old.parquet", "-o", "old.mlref")[0] == 0
    assert run("reference", "build", "old.parquet", "-o", "new.mlref", *NOW)[0] == 0
    Path("days").mkdir()
    for place, table in enumerate((day_table(1, ROWS, seed=1), later(day_table(2, ROWS, seed=1)))):
        pq.write_table(table, f"days/{place}.parquet")
    for kept in ("old.mlref", "new.mlref"):
        words = ("check", "--reference", kept, "--current", "days", "--engine", "local")
        code, output = run(*words, *NOW, "--json")
        assert code == 0, output
        assert columns(output)["amount_eur"]["rows"] == 2 * ROWS
        assert run(*words)[0] == 1


def test_aliases_come_from_the_file_of_checks_and_from_mlobs_yaml_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("checks.yaml").write_text("features:\n  amount_eur: {aliases: [amount]}\n")
    words = ("check", "--reference", "old.parquet", "--current", "new.parquet", "--checks", "checks.yaml")
    assert run(*words)[0] == 0
    Path("mlobs.yaml").write_text(
        "models:\n- {name: m, features: {amount_eur: {aliases: [amount]}}}\nservice: s\nfeature_log: ./log\n"
    )
    monkeypatch.setenv("MLOBS_HASH_KEY", "00" * 32)
    code, output = run("reference", "build", "old.parquet", "-o", "r.mlref", "--config", "mlobs.yaml")
    assert code == 0, output
    assert "amount_eur" in run("reference", "show", "r.mlref")[1]


@pytest.mark.parametrize(
    "given", [["amount"], ["a="], ["a=a"], ["a=b", "c=b"], ["a=b", "b=c"], ["b=c", "a=b"]]
)
def test_what_is_no_alias_is_refused(folder: Path, given: list[str]) -> None:
    words = [word for one in given for word in ("--alias", one)]
    code, output = run("check", "--reference", "old.parquet", "--current", "new.parquet", *words)
    assert (code, "--alias" in output) == (2, True), output


def test_where_a_row_has_both_the_name_in_force_counts() -> None:
    table = pa.table({"old": [1.0, 2.0, None], "x": [7, 8, 9], "new": pa.array([None, 5, None], pa.int64())})
    found = as_table(under_names_in_force(table, {"old": "new"}))
    assert found.to_pydict() == {"new": [1.0, 5.0, None], "x": [7, 8, 9]}
    mixed = pa.table({"old": [1.5, 2.0], "new": pa.array(["a", None]).dictionary_encode()})
    assert as_table(under_names_in_force(mixed, {"old": "new"})).to_pydict() == {"new": ["a", "2"]}
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["old", "old"])
    assert under_names_in_force(twice, {"old": "new"}).schema.names == ["new", "new"]
    assert with_old_names(["new", "y"], {"old": "new", "older": "new", "z": "a"}) == [
        "new",
        "y",
        "old",
        "older",
    ]


def test_times_and_nulls_under_two_names_stay_what_they_are() -> None:
    """pandas writes a column without a value as nulls of no type; units of time differ between writers."""
    seconds = pa.array([None, 5], pa.timestamp("s", "UTC"))
    millis = pa.array([7000, 8000], pa.timestamp("ms", "UTC"))
    for old, new, kind in (
        (pa.array([1.5, 2.5]), pa.nulls(2), pa.float64()),
        (pa.nulls(2), pa.array(["a", "b"]).dictionary_encode(), pa.string()),
        (millis, pa.nulls(2), millis.type),
        (millis, seconds, millis.type),
        (pa.nulls(2), pa.nulls(2), pa.null()),
        (millis, pa.array([None, 5.0]), pa.string()),
        (millis, pa.array([None, 5], pa.date32()), pa.string()),
    ):
        found = as_table(under_names_in_force(pa.table({"old": old, "new": new}), {"old": "new"}))
        assert found.schema.field("new").type == kind
    found = as_table(under_names_in_force(pa.table({"old": millis, "new": seconds}), {"old": "new"}))
    assert found["new"].cast(pa.int64()).to_pylist() == [7000, 5000]


def test_a_reference_with_both_names_keeps_the_one_in_force() -> None:
    table = pa.table({"old": np.arange(100.0), "new": np.arange(100.0)})
    kept = renamed_columns(build_reference(table, "r"), {"old": "new"})
    assert list(kept.spec.columns) == ["new"]


def test_other_aliases_are_another_job() -> None:
    plain = Job(b"reference", Keying())
    assert job_id(plain, ["lake"]) != job_id(
        Job(b"reference", Keying(), (("amount", "amount_eur"),)), ["lake"]
    )
