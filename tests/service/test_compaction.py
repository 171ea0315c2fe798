"""`mlobs serve` compacts beside its ticks, in a process of its own."""

import logging
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mlobs import names
from mlobs.config import load_settings
from mlobs.errors import ConfigError
from mlobs.featurelog.reader import reader_of
from mlobs.featurelog.spool import list_segments
from mlobs.service import compaction
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
    told: list[tuple[str, str]] = []
    registry = CollectorRegistry()
    compactor = Compactor(settings, lambda *each: told.append(each), registry, clock=lambda: 1234.0)
    compactor.start()
    try:
        eventually(lambda: told, "the end of a run")
        assert not list_segments(tmp_path / "log")
        fill(tmp_path / "log")
        rest, afresh = reader.poll(cursor), reader.poll(None)
    finally:
        compactor.stop()
    assert sum(map(len, rest.records.values())) == 5
    assert sum(map(len, afresh.records.values())) == 10
    assert (rest.stats.gaps, rest.stats.duplicates) == (0, 0)
    assert set(told) == {("compaction", "")}
    assert registry.get_sample_value(names.COMPACTION_LAST_SUCCESS) == 1234.0
    assert registry.get_sample_value(names.COMPACTION_HELD) == 0.0
    assert list((tmp_path / "lake" / "lake").rglob("*.parquet"))


def test_a_run_that_fails_is_told_in_words_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings("s", feature_log=str(tmp_path / "none"), lake=LakeSettings(every=0.01))
    told: list[tuple[str, str]] = []
    registry = CollectorRegistry()
    with caplog.at_level(logging.WARNING, "mlobs.service"):
        compactor = Compactor(settings, lambda *each: told.append(each), registry)
        compactor.start()
        eventually(lambda: len(told) >= 2, "two failures")
        compactor.stop()
    assert {stage for stage, _ in told} == {"compaction"}
    assert all("a directory" in trouble for _, trouble in told)
    assert "stay in the spool" in caplog.text
    assert registry.get_sample_value(names.COMPACTION_LAST_SUCCESS) == 0.0


def test_segments_that_wait_for_the_shipper_are_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    (tmp_path / "spool" / "ship.json").write_text('{"at": {}}')  # shipping began, and is behind
    told: list[tuple[str, str]] = []
    registry = CollectorRegistry()
    settings = Settings("s", feature_log=str(tmp_path), lake=LakeSettings(every=0.01))
    with caplog.at_level(logging.WARNING, "mlobs.service"):
        compactor = Compactor(settings, lambda *each: told.append(each), registry)
        compactor.start()
        eventually(lambda: len(told) >= 2, "two runs")
        compactor.stop()
    assert registry.get_sample_value(names.COMPACTION_HELD) == 1.0
    assert caplog.text.count("1 segments: they wait for `mlobs log ship`") == 1, "once, and not at each run"
    assert len(list_segments(tmp_path)) == 1


def test_a_run_that_hangs_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LONGEST", 0.0)
    monkeypatch.setattr(compaction, "_PATIENCE", 0.5)
    hanging = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    monkeypatch.setattr(compaction, "command", lambda _settings: [sys.executable, "-c", hanging])
    told: list[tuple[str, str]] = []
    settings = Settings("s", feature_log=str(tmp_path), lake=LakeSettings(every=600.0))
    compactor = Compactor(settings, lambda *each: told.append(each), CollectorRegistry())
    compactor.start()
    eventually(lambda: told, "the end of the run")
    compactor.stop()
    assert told == [("compaction", "ended after 0s without a result")]


def test_without_a_lake_nothing_runs(tmp_path: Path) -> None:
    assert command(Settings("s", feature_log=str(tmp_path))) == []


def test_a_lake_needs_a_spool(tmp_path: Path) -> None:
    file = tmp_path / "mlobs.yaml"
    file.write_text("service: s\nfeature_log: ./log\nlake: {to: s3://b/p, every: 10m, keep: 90d}\n")
    assert load_settings(file).lake == LakeSettings("s3://b/p", 600.0, 90 * 86400.0)
    file.write_text("service: s\nfeature_log: kafka://b:1/t\nlake: {}\n")
    with pytest.raises(ConfigError, match="directory"):
        load_settings(file)
