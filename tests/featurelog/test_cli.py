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


def test_what_a_compaction_leaves_is_said_in_words(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(1))
    assert log.flush(5)
    said = run("compact", str(tmp_path)).stdout
    assert "0 segments" in said
    assert "1 segment left: a process still writes there" in said
    assert log.close(5)
    (tmp_path / "spool" / "ship.json").write_text('{"at": {}, "seen": {}}')
    said = run("compact", str(tmp_path)).stdout
    assert "1 segment held back: `mlobs log ship` has not shipped them yet" in said
    (tmp_path / "spool" / "ship.json").unlink()
    said = run("compact", str(tmp_path), "--keep", "90d").stdout
    assert said.startswith("1 segment: 1 record and 0 labels in 1 file")
    assert "held back" not in said
    assert "expired rows removed" in said


def test_a_broken_stretch_is_said_and_where_it_lies(folder: Path) -> None:
    (path,) = (folder / "spool").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    done = run("compact", str(folder))
    assert done.exit_code == 1
    assert f"1 unreadable stretch, set aside in spool/aside: {path.stem}" in done.stdout


def test_a_lake_elsewhere_is_looked_into_when_it_is_named(folder: Path, tmp_path: Path) -> None:
    lake = str(tmp_path / "elsewhere")
    assert run("compact", str(folder), "--to", lake).exit_code == 0
    assert run("stat", str(folder)).exit_code == 3
    assert json.loads(run("stat", str(folder), "--lake", lake, "--json").stdout)["records"] == 20
    assert len(run("tail", str(folder), "--lake", lake, "-n", "3").stdout.splitlines()) == 3


def test_stat_says_from_when_to_when(folder: Path) -> None:
    said = run("stat", str(folder)).stdout
    assert "1970-01-01T00:16:40+00:00" in said
    assert "1970-01-01T00:16:59+00:00" in said


def test_tail_of_a_model_that_is_not_there_says_so(folder: Path) -> None:
    found = run("tail", str(folder), "--model", "nix")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "no record of model 'nix'" in found.stderr
    assert run("tail", str(folder), "--model", "fraud", "-n", "2").stdout.count("\n") == 2
    assert run("tail", str(folder), "-n", "0").output == ""


def test_tail_shows_the_newest_of_all_writers(tmp_path: Path) -> None:
    """Two processes' segments, their calls interleaved in time; the last file that was written is not all."""
    writers = opened(tmp_path), opened(tmp_path)
    for number in range(40):
        writers[number % 2].offer(record(number, event_time=1e9 + number))
    for log in writers:
        assert log.close(5)
    lines = run("tail", str(tmp_path), "-n", "6").stdout.splitlines()
    assert [json.loads(line)["prediction_id"] for line in lines] == [f"p{n}" for n in range(34, 40)]
