"""Checks that were inferred, gone through by a person, and used: by `drift check` and by `mlobs serve`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mlobs.cli.drift import app
from mlobs.config import load_settings
from mlobs.config.checks import load_checks, with_checks
from mlobs.drift.checks import exceeds
from mlobs.drift.declared import declare
from mlobs.drift.mlref import read_reference
from mlobs.drift.watch import load_references, notes_of
from mlobs.errors import ConfigError
from mlobs.settings import FeatureSettings, RowsSettings
from tests.drift.test_check_command import run
from tests.drift.traffic import day_table, reference_table

ROWS = 3000
EVIL = 'a "b": #c\n\u202e'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pq.write_table(reference_table(), "days.parquet")
    assert build("--checks", "checks.yaml")[0] == 0
    return tmp_path


def build(*options: str) -> tuple[int, str]:
    return run("reference", "build", "days.parquet", "--day", "day", "-o", "r.mlref", *options)


def columns(*options: str) -> dict[str, dict[str, object]]:
    words = ["check", "--reference", "r.mlref", "--current", "c.parquet", "--json", *options]
    return {column["name"]: column for column in json.loads(CliRunner().invoke(app, words).stdout)["columns"]}


def awkward() -> pa.Table:
    """Some of everything: 4 % null, 7 % zero, 3 % unseen, a value out of range."""
    table = day_table(0, ROWS, seed=1)
    amount, temp = table["amount"].to_numpy().copy(), table["temp"].to_numpy().copy()
    amount[: int(0.07 * ROWS)] = 0.0
    amount[-1] = 1e9
    country = table["country"].to_pylist()
    country[: int(0.03 * ROWS)] = ["xx"] * int(0.03 * ROWS)
    return day_table(
        0, ROWS, seed=1, amount=amount, temp=pa.array(temp, mask=np.arange(ROWS) % 25 == 0),
        country=pa.array(country),
    )  # fmt: skip


def edited(old: str, new: str) -> None:
    text = Path("checks.yaml").read_text()
    assert old in text
    Path("checks.yaml").write_text(text.replace(old, new))


def test_a_file_in_which_nothing_was_changed_changes_no_verdict(folder: Path) -> None:
    for table in (awkward(), day_table(0, ROWS, seed=1), day_table(0, ROWS, temp=np.full(ROWS, -5.0))):
        pq.write_table(table, "c.parquet")
        plain, reviewed = columns(), columns("--checks", "checks.yaml")
        for name, column in plain.items():
            assert (reviewed[name]["verdict"], reviewed[name]["status"]) == (
                column["verdict"],
                column["status"],
            )


def test_what_a_person_writes_into_the_file_is_judged(folder: Path) -> None:
    pq.write_table(awkward(), "c.parquet")
    assert [column["status"] for column in columns().values()][1:] == ["ok", "ok", "constant"]
    for name, old, new, status in (
        ("temp", "type: number\n    range: [15.0", "most: {null: 1%}\n    range: [15.0", "null"),
        ("country", '"us"]', '"us"]\n    most: {unseen: 0}', "unseen"),
        ("gust", "range: [6.9993, 7.0007]", "range: [8, 9]", "range"),
    ):
        edited(old, new)
        assert columns("--checks", "checks.yaml")[name]["status"] == status


def test_a_share_of_all_rows_turns_a_check_off(folder: Path) -> None:
    pq.write_table(day_table(0, ROWS, seed=1, temp=pa.nulls(ROWS, pa.float64())), "c.parquet")
    assert columns()["temp"]["status"] == "null"
    edited('  "temp":\n', '  "temp":\n    most: {null: 100%}\n')
    assert columns("--checks", "checks.yaml")["temp"]["verdict"] == "absent"


def test_every_line_that_is_commented_out_reads_when_it_is_not(folder: Path) -> None:
    text = Path("checks.yaml").read_text()
    Path("all.yaml").write_text(re.sub(r"# (most|duplicates|volume|freshness):", r"\1:", text))
    features, rows = load_checks("all.yaml")
    assert features["amount"].most == {"null": 0.05, "zero": 0.05, "range": 0.05, "type": 0.05}
    assert rows == RowsSettings(0.05, (200.0, 800.0), 900.0)


def test_a_file_that_a_person_has_gone_through_is_never_written_over(folder: Path) -> None:
    before = Path("checks.yaml").read_text()
    code, message = build("--checks", "checks.yaml")
    assert code == 2
    assert "no such file yet" in message
    assert Path("checks.yaml").read_text() == before


def test_names_of_any_kind_come_back(folder: Path) -> None:
    table = reference_table().append_column(EVIL, pa.array(["x: y", "{z}"] * 4000))
    pq.write_table(table, "days.parquet")
    assert build("--checks", "evil.yaml")[0] == 0
    features, _ = load_checks("evil.yaml")
    assert features[EVIL].categories == ("x: y", "{z}")


def test_faults_of_the_file_are_told_with_line_and_remedy(folder: Path) -> None:
    Path("bad.yaml").write_text(
        "features:\n  a: {most: {nul: 1%}}\n  b: {rage: [1, 2]}\nrows: {volume: [5, 1]}\n"
    )
    code, message = run(
        "check", "--reference", "r.mlref", "--current", "days.parquet", "--checks", "bad.yaml"
    )
    assert code == 2
    for part in ("bad.yaml:2: features.a.most.nul", "bad.yaml:3: features.b.rage", "range", "bad.yaml:4"):
        assert part in message


def test_serve_reads_the_file_and_mlobs_yaml_goes_before_it(folder: Path) -> None:
    Path("mlobs.yaml").write_text(
        "service: s\nmodels:\n  - name: m\n    reference: r.mlref\n    checks: checks.yaml\n"
        "    features: {temp: {range: [0, 99], most: {zero: 2%}}, country: {type: number}}\n"
        "    rows: {freshness: 10m}\n"
    )
    edited("  critical: false", "  critical: true\n  duplicates: 2%")
    edited('  "temp":\n', '  "temp":\n    most: {null: 1%}\n')
    settings = with_checks(load_settings("mlobs.yaml"))
    (model,) = settings.models
    assert model.rows == RowsSettings(0.02, None, 600.0, critical=True)
    assert model.features["temp"] == FeatureSettings(
        "temp", "number", (0.0, 99.0), None, most={"null": 0.01, "zero": 0.02}
    )
    watched = load_references(settings)["m"]
    assert watched.spec.columns["temp"].limits == (0.0, 99.0)
    assert watched.spec.duplicates
    notes = notes_of(watched, model, 0.05)
    assert "declared as number, but the reference holds it as category" in notes["country", "type"]


def test_a_missing_checks_file_stops_the_start_and_says_whose_it_is(folder: Path) -> None:
    Path("mlobs.yaml").write_text("service: s\nmodels: [{name: m, reference: r.mlref, checks: none.yaml}]\n")
    with pytest.raises(ConfigError, match=r"models\.m\.checks.*none\.yaml"):
        with_checks(load_settings("mlobs.yaml"))


# --- declared shares --------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0.001, 0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("rows", [100, 1000, 30_000])
def test_a_share_that_lies_at_what_was_declared_alarms_in_one_of_a_thousand(most: float, rows: int) -> None:
    shares = np.random.default_rng(rows).binomial(rows, most, 20_000) / rows
    alarms = np.mean([exceeds(share, most, rows) for share in shares])
    assert alarms < 0.002


def test_none_at_all_means_none_at_all() -> None:
    assert exceeds(1e-9, 0.0, 1000)
    assert not exceeds(0.0, 0.0, 1000)
    assert not exceeds(1.0, 1.0, 1000)
    assert exceeds(0.05, 0.01, 1000)


def test_repeated_rows_can_be_declared_where_the_reference_has_no_sketch(folder: Path) -> None:
    half = day_table(3, ROWS // 2, seed=1)
    pq.write_table(pa.concat_tables([half, half]), "c.parquet")
    assert run("check", "--reference", "r.mlref", "--current", "c.parquet")[0] == 0
    Path("rows.yaml").write_text("rows: {duplicates: 10%}\n")
    words = ("check", "--reference", "r.mlref", "--current", "c.parquet", "--checks", "rows.yaml")
    code, output = run(*words)
    assert code == 1
    assert "of rows repeat another row (duplicates); declared: at most 10 %" in output.replace("\n", " ")
    assert run(*words, "--engine", "local", "--workers", "1")[0] == 1
    declared = declare(read_reference("r.mlref").spec, {}, RowsSettings(duplicates=0.9))
    assert declared.most_duplicates == 0.9
