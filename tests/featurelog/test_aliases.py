"""Features that were renamed, added, dropped or retyped: old records and new ones read as one log."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlobs.config import parse_settings
from mlobs.errors import ConfigError
from mlobs.featurelog.aliases import aliases_of
from mlobs.featurelog.compact import compact
from mlobs.featurelog.reader import LogReader, reader_of
from mlobs.featurelog.storage import DiskStorage
from tests.featurelog.helpers import column, opened, record, rows

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
RENAMED = {"fraud": {"amount": "amount_eur", "sum": "amount_eur"}}


def write(folder: Path, *features: dict[str, Any], start: int = 0) -> None:
    log = opened(folder)
    for number, one in enumerate(features, start):
        log.offer(record(number, one))
    assert log.close(5)


def read(folder: Path, aliases: Any = RENAMED) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(features, conflicts) of each record, by time."""
    table = LogReader(folder, aliases=aliases).poll().records["fraud"].sort_by("event_time")
    return [
        (row["features"], {name: json.loads(value) for name, value in row["conflicts"] or ()})
        for row in table.to_pylist()
    ]


@pytest.fixture(params=["spool", "lake", "half in the lake"])
def settle(request: pytest.FixtureRequest) -> Any:
    """Puts what was written where the parameter says; `half`: only what was written first."""

    def move(folder: Path, *, last: bool) -> None:
        if request.param == "lake" or (request.param == "half in the lake" and not last):
            compact(folder, DiskStorage(folder), 2000.0)

    return move


def test_old_records_are_read_under_the_new_name(tmp_path: Path, settle: Any) -> None:
    write(tmp_path, {"amount": 1, "zip": 5}, {"sum": 2.5, "zip": 6})
    settle(tmp_path, last=False)
    write(tmp_path, {"amount_eur": 3.5, "zip": 7}, start=2)
    settle(tmp_path, last=True)
    assert read(tmp_path) == [
        ({"amount_eur": 1.0, "zip": 5}, {}),
        ({"amount_eur": 2.5, "zip": 6}, {}),
        ({"amount_eur": 3.5, "zip": 7}, {}),
    ]


def test_the_new_name_counts_and_an_old_value_that_differs_stands_beside(tmp_path: Path, settle: Any) -> None:
    write(
        tmp_path,
        {"amount_eur": 3.0, "amount": 3.0},
        {"amount_eur": 3.0, "amount": 4.0},
        {"amount_eur": None, "amount": 5.0},
        {"amount_eur": math.nan, "amount": math.nan},
    )
    settle(tmp_path, last=True)
    found = read(tmp_path)
    assert [conflicts for _, conflicts in found] == [{}, {"amount": 4.0}, {}, {}]
    assert [features["amount_eur"] for features, _ in found][:3] == [3.0, 3.0, 5.0]


def test_an_old_value_of_another_type_is_preserved_and_not_made_to_fit(tmp_path: Path, settle: Any) -> None:
    write(tmp_path, {"amount_eur": 1.5}, {"amount_eur": 2.5})
    settle(tmp_path, last=False)
    write(tmp_path, {"amount": True}, {"amount_eur": 3.5, "amount": False}, start=2)
    settle(tmp_path, last=True)
    assert [(features["amount_eur"], conflicts) for features, conflicts in read(tmp_path)] == [
        (1.5, {}),
        (2.5, {}),
        (None, {"amount_eur": True}),
        (3.5, {"amount": False}),
    ]


def test_a_conflict_that_the_log_holds_moves_to_the_new_name(tmp_path: Path, settle: Any) -> None:
    write(tmp_path, {"amount": 1.5}, {"amount": 2.5}, {"amount": True})
    settle(tmp_path, last=True)
    assert read(tmp_path)[2] == ({"amount_eur": None}, {"amount_eur": True})


def test_the_type_of_the_new_name_stays_from_poll_to_poll(tmp_path: Path) -> None:
    write(tmp_path, {"amount_eur": 1.5})
    reader = LogReader(tmp_path, aliases=RENAMED)
    first = reader.poll()
    write(tmp_path, {"amount": True}, {"amount": False}, {"amount": 7}, start=1)
    table = reader.poll(first.cursor).records["fraud"].sort_by("event_time")
    assert [each["amount_eur"] for each in column(table, "features")] == [None, None, 7.0]
    assert [bool(each) for each in column(table, "conflicts")] == [True, True, False]


def test_evidence_has_the_new_name_too(tmp_path: Path, settle: Any) -> None:
    write(tmp_path, {"amount": 1.0}, {"amount_eur": 2.0})
    settle(tmp_path, last=True)
    reader = LogReader(tmp_path, aliases=RENAMED)
    (one,) = reader.find(prediction_ids=["p0"])
    assert one.features == {"amount_eur": 1.0}
    for model in ("fraud", ""):
        table = reader.scan(0.0, 5000.0, model)
        assert [each["amount_eur"] for each in column(table, "features")] == [1.0, 2.0]


def test_a_reader_that_knows_no_aliases_shows_both_names(tmp_path: Path, settle: Any) -> None:
    write(tmp_path, {"amount": 1.0}, {"amount_eur": 2.0})
    settle(tmp_path, last=True)
    assert read(tmp_path, {}) == [
        ({"amount": 1.0, "amount_eur": None}, {}),
        ({"amount": None, "amount_eur": 2.0}, {}),
    ]


@pytest.mark.parametrize("place", ["in-spool", "in-lake"])
def test_a_log_of_today_and_one_of_a_version_to_come_are_one(tmp_path: Path, place: str) -> None:
    """`featurelog-next` is frozen: block and record version 2, a frame of an unknown kind, unknown keys and
    fields, `amount` renamed, `country` a number where it was a text, `device` added.
    """
    for version in ("featurelog/v1", "featurelog-next"):
        shutil.copytree(GOLDEN / version / place, tmp_path, dirs_exist_ok=True)
    chunk = LogReader(tmp_path, aliases={"fraud": {"amount": "amount_eur"}}).poll()
    assert (chunk.stats.records, chunk.stats.labels, chunk.stats.gaps, chunk.stats.unreadable) == (
        12,
        4,
        0,
        0,
    )
    found = sorted(rows(chunk), key=lambda row: (row["record_version"], row["event_time"]))
    assert [row["record_version"] for row in found] == [1] * 6 + [2] * 6
    assert [row["features"]["amount_eur"] for row in found] == [float(number % 6) for number in range(12)]
    assert "amount" not in found[0]["features"]
    assert [row["tenant"] for row in found] == [None] * 6 + ["north"] * 6
    assert [row["features"]["device"] is None for row in found] == [True] * 6 + [True, False] * 3
    kinds = {type(row["features"]["country"]) for row in found} - {type(None)}
    assert len(kinds) == 1  # one type in the column, what is of the other beside it
    beside = [dict(row["conflicts"] or ()) for row in found]
    assert sum("country" in each for each in beside) == 6


@pytest.mark.parametrize("place", ["in-spool", "in-lake"])
def test_a_log_of_a_version_to_come_is_read_as_far_as_it_is_known(place: str) -> None:
    chunk = LogReader(GOLDEN / "featurelog-next" / place).poll()
    assert [row["features"]["country"] for row in rows(chunk)] == list(range(6))
    assert column(chunk.labels, "tenant") == ["north", "north"]
    assert (chunk.stats.gaps, chunk.stats.unreadable, chunk.stats.torn) == (0, 0, 0)


SETTINGS = """
service: s
feature_log: ./log
models:
  - name: fraud
    features:
      amount_eur: {type: number, aliases: [amount, sum]}
"""


def test_aliases_stand_in_the_settings(tmp_path: Path) -> None:
    settings = parse_settings(SETTINGS, tmp_path)
    assert aliases_of(settings) == RENAMED
    write(tmp_path / "log", {"sum": 1.0})
    reader = reader_of(settings)
    assert reader is not None
    assert rows(reader.poll())[0]["features"] == {"amount_eur": 1.0}


@pytest.mark.parametrize("more", ["      amount: {}\n", "      other: {aliases: [sum]}\n"])
def test_an_old_name_belongs_to_one_feature(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match="an old name of this feature alone"):
        parse_settings(SETTINGS + more, tmp_path)
