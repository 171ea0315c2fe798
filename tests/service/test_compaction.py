"""`mlobs serve` compacts beside its ticks, in a process of its own."""

import logging
from pathlib import Path

import pytest

from mlobs.config import load_settings
from mlobs.errors import ConfigError
from mlobs.featurelog.reader import reader_of
from mlobs.featurelog.spool import list_segments
from mlobs.service.compaction import Compactor, command
from mlobs.settings import LakeSettings, Settings
from tests.featurelog.helpers import opened, record
from tests.servers import eventually


def fill(folder: Path) -> None:
    log = opened(folder)
    for number in range(5):
        log.offer(record(number))
    assert log.close(5)


def test_segments_move_into_the_lake_and_the_reader_of_the_settings_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    lake = LakeSettings(str(tmp_path / "lake"), keep=90 * 86400.0)
    settings = Settings("fraud-api", feature_log=str(tmp_path / "log"), lake=lake)
    reader = reader_of(settings)
    assert reader is not None
    assert sum(map(len, reader.poll(None).records.values())) == 5
    cursor = reader.poll(None).cursor
    failures: list[str] = []
    compactor = Compactor(settings, failures.append)
    compactor.start()
    try:
        eventually(lambda: not list_segments(tmp_path / "log"), "the spool to be empty")
        fill(tmp_path / "log")
        rest, afresh = reader.poll(cursor), reader.poll(None)
    finally:
        compactor.stop()
    assert sum(map(len, rest.records.values())) == 5
    assert sum(map(len, afresh.records.values())) == 10
    assert (rest.stats.gaps, rest.stats.duplicates, failures) == (0, 0, [])
    assert list((tmp_path / "lake" / "lake").rglob("*.parquet"))


def test_a_run_that_fails_is_counted_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings("s", feature_log=str(tmp_path / "none"), lake=LakeSettings(every=0.01))
    failures: list[str] = []
    with caplog.at_level(logging.WARNING, "mlobs.service"):
        compactor = Compactor(settings, failures.append)
        compactor.start()
        eventually(lambda: len(failures) >= 2, "two failures")
        compactor.stop()
    assert set(failures) == {"compaction"}
    assert "stay in the spool" in caplog.text


def test_without_a_lake_nothing_runs(tmp_path: Path) -> None:
    assert command(Settings("s", feature_log=str(tmp_path))) == []


def test_a_lake_needs_a_spool(tmp_path: Path) -> None:
    file = tmp_path / "mlobs.yaml"
    file.write_text("service: s\nfeature_log: ./log\nlake: {to: s3://b/p, every: 10m, keep: 90d}\n")
    assert load_settings(file).lake == LakeSettings("s3://b/p", 600.0, 90 * 86400.0)
    file.write_text("service: s\nfeature_log: kafka://b:1/t\nlake: {}\n")
    with pytest.raises(ConfigError, match="directory"):
        load_settings(file)
