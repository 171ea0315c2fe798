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
