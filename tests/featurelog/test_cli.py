"""`mlobs log`: stat, tail and compact as a user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlobs.cli.log import app
from mlobs.errors import MlobsError
from tests.featurelog.helpers import label, opened, record


def run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = opened(tmp_path)
    for number in range(20):
        log.offer(record(number, {"amount": float("nan")}))
    log.offer_label(label(1))
    assert log.close(5)
    return tmp_path


def test_stat_counts_before_and_after_compaction(folder: Path) -> None:
    before = run("stat", str(folder), "--json")
    done = run("compact", str(folder), "--json")
    after = run("stat", str(folder), "--json")
    assert (before.exit_code, done.exit_code, after.exit_code) == (0, 0, 0)
    assert json.loads(done.stdout)["records"] == 20
    found = json.loads(after.stdout)
    assert found == json.loads(before.stdout)
    assert {name: found[name] for name in ("records", "duplicates", "gaps", "unreadable", "labels")} == {
        "records": 20, "duplicates": 0, "gaps": 0, "unreadable": 0, "labels": 1,
    }  # fmt: skip


def test_stat_tells_of_gaps_by_its_exit_code(folder: Path) -> None:
    (path,) = (folder / "spool").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    found = run("stat", str(folder), "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["unreadable"] == 1


def test_stat_of_an_empty_directory_judges_nothing(tmp_path: Path) -> None:
    assert run("stat", str(tmp_path), "--json").exit_code == 3


def test_tail_prints_the_newest_as_strict_json(folder: Path) -> None:
    lines = run("tail", str(folder), "-n", "3").stdout.splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [each["prediction_id"] for each in found] == ["p17", "p18", "p19"]
    assert found[0]["features"] == {"amount": "nan"}


def test_a_place_that_is_no_log_and_a_duration_that_is_none_are_refused(tmp_path: Path) -> None:
    for args in (["stat", str(tmp_path / "none")], ["compact", str(tmp_path), "--keep", "soon"]):
        found = run(*args)
        assert isinstance(found.exception, MlobsError)
        assert found.exception.exit_code == 2


def test_a_dry_run_changes_nothing(folder: Path) -> None:
    assert run("compact", str(folder), "--keep", "1d", "--dry-run").exit_code == 0
    assert not (folder / "lake").exists()
