"""`mlobs drift backfill` as a user calls it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.errors import ConfigError, MissingExtraError, NothingJudgedError, UnreadableError, UsageError
from tests.drift.test_check_command import run as check_run
from tests.drift.test_engines import flat, write_days
from tests.drift.traffic import day_table, reference_table


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool has its own tests; two seconds each for starting one would be much here. One has it."""
    if "next_run" not in request.node.name:
        monkeypatch.setattr("mlobs.drift.engines.local.LocalEngine", lambda workers: LocalEngine(0))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_reference(
        build_reference(reference_table(), "days", slicing=Slicing(day="day")), tmp_path / "r.mlref"
    )
    write_days(tmp_path / "data", 4)
    return tmp_path


def called(place: Path, *options: str, data: str = "data") -> Result:
    return CliRunner().invoke(
        app,
        [
            "drift", "backfill", str(place / data), "--reference", str(place / "r.mlref"),
            "--store", f"sqlite:///{place / 'b.db'}", "--workers", "1", *options,
        ],
    )  # fmt: skip


def test_windows_without_drift_end_with_0_and_a_next_run_knows_the_files(place: Path) -> None:
    first, second = called(place, "--json"), called(place, "--json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    found = [json.loads(done.stdout) for done in (first, second)]
    assert [(one["slices"]["done"], one["slices"]["skipped"]) for one in found] == [(4, 0), (4, 4)]
    assert [window["verdict"] for window in found[0]["windows"]] == ["ok"] * 4
    assert not any(window["changed"] for window in found[1]["windows"])


def test_a_window_that_drifted_ends_with_1_and_a_broken_file_is_a_warning(place: Path) -> None:
    pq.write_table(flat(2, temp=np.full(400, -12.0)), place / "data" / "day02.parquet")
    (place / "data" / "day03.parquet").write_bytes(b"PAR1")
    done = called(place)
    assert done.exit_code == 1
    assert "1 of 3 windows drifted" in done.stdout
    assert "warning: not read:" in done.stderr
    assert "day03.parquet" in done.stderr


def test_windows_are_kept_apart_by_version_and_segment(place: Path) -> None:
    done = called(place, "--json", "--version", "model_version", "--segment", "segment", "--min-rows", "50")
    keys = {(one["version"], one["segment"]) for one in json.loads(done.stdout)["windows"]}
    assert keys == {("v1", "a"), ("v1", "b"), ("v2", "a"), ("v2", "b")}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--engine", "spork"), UsageError),
        (("--window", "7m"), UsageError),
        (("--zone", "Mars/Olympus"), UsageError),
        (("--min-rows", "100000"), NothingJudgedError),
        (("--time", "no_such_column"), NothingJudgedError),
        (("--store", "nonsense://"), ConfigError),
    ],
)
def test_what_cannot_be_done_is_a_clear_error(
    place: Path, options: tuple[str, str], problem: type[Exception]
) -> None:
    assert isinstance(called(place, *options).exception, problem)


def test_a_folder_that_is_not_there_ends_with_2(place: Path) -> None:
    refused = called(place, data="nowhere").exception
    assert isinstance(refused, UnreadableError)
    assert refused.exit_code == 2


@pytest.mark.skipif(importlib.util.find_spec("pyspark") is not None, reason="pyspark is installed")
def test_without_pyspark_the_extra_is_named(place: Path) -> None:
    refused = called(place, "--engine", "spark").exception
    assert isinstance(refused, MissingExtraError)
    assert "[spark]" in str(refused)


def test_check_takes_a_folder_through_an_engine_and_says_what_it_says_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("days").mkdir()
    pq.write_table(reference_table(4), "a.parquet")
    parts = [day_table(day, 400, seed=3) for day in range(2)]
    for place, part in enumerate(parts):
        pq.write_table(part, f"days/{place}.parquet")
    pq.write_table(pa.concat_tables(parts), "b.parquet")
    words = ("--reference", "a.parquet", "--columns", "amount,temp,country", "--json", "--current")
    alone = check_run("check", *words, "b.parquet")
    spread = check_run("check", *words, "days", "--engine", "local", "--workers", "1")
    assert alone[0] == spread[0] == 0
    one, other = (json.loads(output)["columns"] for _, output in (alone, spread))
    assert one == other
    Path("days/2.parquet").write_bytes(b"PAR1 and no more")
    assert check_run("check", *words, "days", "--engine", "local", "--workers", "1")[0] == 2
    assert check_run("check", *words, "days", "--engine", "dask")[0] == 2


def test_check_names_the_file_whose_column_is_of_another_type_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is that of the same rows in one file; the file is said besides."""
    monkeypatch.chdir(tmp_path)
    Path("days").mkdir()
    pq.write_table(day_table(0, 2000, seed=3), "a.parquet")
    odd = {
        "1": day_table(1, temp=pa.array(["warm"] * 400)),
        "2": day_table(2, gust=np.full(400, 7)),
        "3": day_table(3, gust=pa.nulls(400)).drop_columns("country"),
    }
    for name in "01234":
        pq.write_table(odd.get(name, day_table(int(name))), f"days/{name}.parquet")
    words = ("check", "--reference", "a.parquet", "--current", "days", "--engine", "local")
    code, output = check_run(*words, "--json")
    assert code == 1
    found = {one["name"]: one for one in json.loads(output[: output.rindex("}") + 1])["columns"]}
    assert found["temp"]["status"] == "type"
    assert "20 % of rows hold no number" in found["temp"]["detail"]
    assert "it is double, string in " in found["temp"]["detail"]
    assert "days/1.parquet now" in found["temp"]["detail"]
    warnings = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert [line.partition("/")[0] for line in warnings] == [
        "warning: temp is double, but string in ",
        "warning: country is string, but missing in ",
    ]
    assert warnings[1].endswith("days/3.parquet")
    pq.write_table(pa.concat_tables([day_table(4)] * 2), "days/5.parquet")
    for name in "123":
        Path(f"days/{name}.parquet").unlink()
    assert "warning" not in check_run(*words, "--json")[1]
    for name in "78":  # most files have nothing but nulls: no other type, and nothing to tell
        pq.write_table(day_table(int(name), gust=pa.nulls(400)), f"days/{name}.parquet")
    for name in "45":
        Path(f"days/{name}.parquet").unlink()
    assert "warning" not in check_run(*words, "--json")[1]
    pq.write_table(day_table(6).append_column("late", pa.nulls(400)), "days/6.parquet")
    assert "unknown to the reference: late" in check_run(*words)[1]


def test_declared_checks_are_judged_in_every_window(place: Path) -> None:
    checks = place / "checks.yaml"
    checks.write_text("features:\n  temp: {range: [0, 20]}\n")
    found = json.loads(called(place, "--json", "--checks", str(checks)).stdout)
    assert [window["verdict"] for window in found["windows"]] == ["drifted"] * 4
    assert "declared" in found["windows"][0]["detail"]
    # Another range is another profile; another share judges what is kept.
    checks.write_text("features:\n  temp: {range: [0, 20], most: {range: 100%}}\n")
    found = json.loads(called(place, "--json", "--checks", str(checks)).stdout)
    assert found["slices"]["skipped"] == 4
    assert [window["verdict"] for window in found["windows"]] == ["ok"] * 4


def test_declared_rows_are_judged_in_every_window(place: Path) -> None:
    checks = place / "checks.yaml"
    checks.write_text("rows: {volume: [500, 900], duplicates: 0%, freshness: 1h}\n")
    pq.write_table(pa.concat_tables([flat(2)] * 2), place / "data" / "day02.parquet")
    done = called(place, "--json", "--checks", str(checks))
    assert done.exit_code == 1
    assert "rows.freshness is judged by `mlobs serve` only" in done.stderr
    assert "volume" not in done.stderr
    details = [window["detail"] for window in json.loads(done.stdout)["windows"]]
    assert ["volume" in detail for detail in details] == [True, True, False, True]
    assert ["duplicates" in detail for detail in details] == [False, False, True, False]


def test_renamed_columns_are_judged_under_the_name_in_force(place: Path) -> None:
    table = flat(2)
    names = ["wind" if name == "gust" else name for name in table.schema.names]
    pq.write_table(table.rename_columns(names), place / "data" / "day02.parquet")
    assert called(place, "--json").exit_code == 1
    done = called(place, "--json", "--alias", "wind=gust")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["slices"]["skipped"]) == (0, 0)
    assert [window["verdict"] for window in found["windows"]] == ["ok"] * 4
