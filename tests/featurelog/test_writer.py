"""The writing half: what is offered is delivered, dropped with a reason, or queued."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlobs.errors import ConfigError
from mlobs.featurelog import spool
from mlobs.featurelog.writer import FeatureLog
from mlobs.settings import MaskSettings
from tests.featurelog.helpers import KEY, column, features_of, label, opened, read_all, record, rows


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FeatureLog]:
    log = opened(tmp_path / "log")
    yield log
    log.close(5)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        threading.Event().wait(0.005)


def test_what_is_flushed_can_be_read(log: FeatureLog) -> None:
    for number in range(300):
        log.offer(record(number))
    log.offer_label(label(7))
    assert log.flush(5)
    chunk = read_all(log.folder)
    assert sorted(row["prediction_id"] for row in rows(chunk)) == sorted(
        f"p{number}" for number in range(300)
    )
    assert column(chunk.labels, "prediction_id") == ["p7"]
    assert (chunk.stats.duplicates, chunk.stats.gaps, chunk.stats.unreadable) == (0, 0, 0)


def test_a_record_keeps_its_fields(log: FeatureLog) -> None:
    log.offer(record(3, trace_id="t" * 32, span_id="s" * 16, weight=100.0, segment="retail", variant="b"))
    assert log.flush(5)
    (row,) = rows(read_all(log.folder))
    assert row["event_id"] == f"{log.writer}-0"
    expected = {
        "prediction_id": "p3", "event_time": 1003.0, "model": "fraud", "model_version": "1", "variant": "b",
        "segment": "retail", "prediction": 0.5, "decision": "deny", "outcome": "ok", "duration_s": 0.01,
        "trace_id": "t" * 32, "span_id": "s" * 16, "sampling_reason": "rate", "weight": 100.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["stage_durations_s"] == {"inference": 0.005}


def test_the_ledger_balances_while_threads_offer(tmp_path: Path) -> None:
    log = opened(tmp_path, max_records=500)
    threads = [threading.Thread(target=lambda: [log.offer(record(n)) for n in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert log.ledger().balanced
    for thread in threads:
        thread.join()
    log.flush(5)
    ledger = log.ledger()
    assert ledger.balanced
    assert ledger.offered == 8000
    assert ledger.queued == 0
    assert log.close(5)
    chunk = read_all(tmp_path)
    assert len(rows(chunk)) == ledger.delivered
    assert chunk.stats.gaps == ledger.offered - ledger.delivered


def test_a_full_buffer_drops_the_newest_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(spool.SpoolWriter, "append", lambda self, data: released.wait(10) and None)
    log = opened(tmp_path, max_records=10)
    log.offer(record(0))
    until(lambda: not log._buffer)
    for number in range(1, 21):
        log.offer(record(number))
    assert log.ledger().dropped == {"buffer_full": 10}
    assert log.ledger().balanced
    assert not log.flush(0.05)
    released.set()
    assert not log.flush(5), "the dropped ones are not durable"
    assert log.flush(5)
    log.close(5)


def test_offers_after_close_are_dropped_as_closed(log: FeatureLog) -> None:
    log.offer(record())
    assert log.close(5)
    log.offer(record())
    assert log.ledger().dropped == {"closed": 1}
    assert log.ledger().balanced
    assert log.close(5), "a second close is harmless"


def test_closing_seals_the_segment(log: FeatureLog) -> None:
    log.offer(record())
    assert log.close(5)
    assert [segment.sealed for segment in spool.list_segments(log.folder)] == [True]


def test_a_log_that_was_never_offered_anything_leaves_no_segment(log: FeatureLog) -> None:
    assert log.close(5)
    assert spool.list_segments(log.folder) == []


def test_a_disk_that_fails_loses_nothing_that_fits_the_buffer(
    log: FeatureLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail = True
    true_write = os.write

    def write(handle: int, data: bytes) -> int:
        if fail:
            true_write(handle, bytes(data)[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return true_write(handle, data)

    monkeypatch.setattr(spool.os, "write", write)
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            log.offer(record(number))
        until(lambda: log.ledger().retried > 2)
    assert log.ledger().queued == 50
    assert len([each for each in caplog.records if "cannot be written" in each.message]) == 1
    fail = False
    assert log.flush(5)
    chunk = read_all(log.folder)
    assert len(rows(chunk)) == 50
    assert (chunk.stats.gaps, chunk.stats.duplicates, chunk.stats.unreadable) == (0, 0, 0)


def test_a_log_that_somebody_removes_begins_anew(log: FeatureLog) -> None:
    """What was written before is gone with the files; what comes after is not written into the void."""
    for number in range(3):
        log.offer(record(number))
        assert log.flush(5)
        shutil.rmtree(log.folder / "spool")
    log.offer(record(3))
    assert log.close(5)
    assert column(read_all(log.folder).records["fraud"], "prediction_id") == ["p3"]


def test_a_segment_that_somebody_removes_is_not_sealed_for_ever(tmp_path: Path) -> None:
    writer = spool.SpoolWriter(tmp_path, "w", sync=True, segment_bytes=1, monotonic=time.monotonic)
    writer.append(b"one")
    shutil.rmtree(tmp_path / "spool")
    assert writer.due()
    writer.seal()
    writer.append(b"two")
    writer.seal()
    assert [each.path.read_bytes() for each in spool.list_segments(tmp_path)] == [b"two"]


def test_the_reserve_of_free_disk_is_not_touched(tmp_path: Path) -> None:
    log = opened(tmp_path, reserve_bytes=1 << 60, max_records=5)
    for number in range(9):
        log.offer(record(number))
        until(lambda: log.ledger().retried > 0)
    until(lambda: log.ledger().retried > 1)
    log.offer(record(9))
    assert "disk_full" in log.ledger().dropped
    assert log.ledger().balanced
    assert not log.close(0.2)


def test_a_forked_child_writes_its_own_segment(log: FeatureLog) -> None:
    for number in range(5):
        log.offer(record(number))
    assert log.flush(5)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(5, 8):
                log.offer(record(number))
            status = 0 if log.close(5) and log.ledger().offered == 3 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log.offer(record(8))
    assert log.flush(5)
    chunk = read_all(log.folder)
    assert sorted(row["prediction_id"] for row in rows(chunk)) == [f"p{number}" for number in range(9)]
    assert len({row["event_id"].rpartition("-")[0] for row in rows(chunk)}) == 2
    assert chunk.stats.gaps == 0


def test_a_child_that_offers_nothing_leaves_the_parents_log_alone(log: FeatureLog) -> None:
    log.offer(record(0))
    child = os.fork()
    if child == 0:
        account = log.ledger()  # the parent's record is the parent's to tell of
        os._exit(0 if account.offered == 0 and account.balanced and log.flush(1) and log.close(1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log.flush(5)
    assert len(rows(read_all(log.folder))) == 1


def test_a_dead_writers_segment_is_sealed_by_the_next(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        dying = opened(tmp_path)
        dying.offer(record(1))
        dying.flush(5)
        os._exit(0)
    os.waitpid(child, 0)
    assert [segment.sealed for segment in spool.list_segments(tmp_path)] == [False]
    log = opened(tmp_path)
    log.offer(record(2))
    assert log.flush(5)
    assert [segment.sealed for segment in spool.list_segments(tmp_path)] == [True, False]
    assert log.close(5)
    assert len(rows(read_all(tmp_path))) == 2


def test_a_living_writers_segment_is_left_alone(log: FeatureLog) -> None:
    log.offer(record(1))
    assert log.flush(5)
    assert spool.seal_stale(log.folder) == []


@pytest.mark.parametrize(
    "features",
    [
        {
            "a": float("nan"),
            "b": float("inf"),
            "c": None,
            "d": 10**400,
            "e": b"\xff",
            "f": "\ud800",
            "g": [1],
            "h": {},
        },
        {1: 2, None: 3},
        [("not", "a mapping")],
        {"x" * 100_000: "y" * 1_000_000},
        {"o": object(), "t": (1, 2), "s": {1}},
    ],
)
def test_strange_features_never_cost_the_record(log: FeatureLog, features: object) -> None:
    log.offer(record(0))
    log.offer(record(1, features))
    log.offer(record(2))
    assert log.flush(5)
    assert [row["prediction_id"] for row in rows(read_all(log.folder))].count("p1") == 1
    assert log.ledger().dropped == {}


def test_a_cyclic_feature_is_null_and_counted(log: FeatureLog) -> None:
    loop: list[object] = []
    loop.append(loop)
    log.offer(record(0, {"loop": loop}))
    assert log.flush(5)
    assert features_of(read_all(log.folder)) == [{"loop": None}]
    assert log.odd()["nested"] == 1


def test_a_features_dict_whose_methods_raise_costs_its_features_alone(log: FeatureLog) -> None:
    class Hostile(dict):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise RuntimeError("no")

        keys = values = items = __iter__  # type: ignore[assignment]

    log.offer(record(0, Hostile(a=1)))
    assert log.flush(5)
    assert len(rows(read_all(log.folder))) == 1


def test_a_broken_setting_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    schema = tmp_path / "mask.yaml"
    schema.write_text("fields: {amount: cleer, note: 7}\nmodles: {}\n")
    key = tmp_path / "key"
    key.write_text("short")
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "log", durability="iron", mask=MaskSettings(schema=str(schema), key_file=str(key)))
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "did you mean 'clear'" in text
    assert "did you mean 'models'" in text
    assert "short" not in text.replace("shorter", "")
    assert not (tmp_path / "log").exists()


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="a directory"):
        opened(tmp_path / "file")


def test_without_a_key_a_random_one_is_kept_beside_the_log_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log = opened(tmp_path, environ={})
    assert "random key" in caplog.text
    log.offer(record(0))
    assert log.close(5)
    kept = tmp_path / "hash.key"
    assert kept.stat().st_mode & 0o777 == 0o600
    again = opened(tmp_path, environ={})
    again.offer(record(0))
    assert again.close(5)
    first, second = features_of(read_all(tmp_path))
    assert first["country"] == second["country"]
    assert kept.read_text().strip() not in caplog.text


def test_a_key_never_shows_in_a_repr(log: FeatureLog) -> None:
    assert KEY not in repr(log._configured_keys)
    assert KEY not in repr(log._masker)


def test_segments_roll_by_size(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=5_000)
    for number in range(400):
        log.offer(record(number))
        if number % 50 == 49:
            assert log.flush(5)
    assert log.close(5)
    assert len(spool.list_segments(tmp_path)) > 2
    chunk = read_all(tmp_path)
    assert len(rows(chunk)) == 400
    assert chunk.stats.gaps == 0


def test_at_disk_level_every_commit_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    true_sync, true_folder = os.fdatasync, spool.sync_folder
    monkeypatch.setattr(spool.os, "fdatasync", lambda handle: (synced.append("data"), true_sync(handle))[1])
    monkeypatch.setattr(spool, "sync_folder", lambda path: (synced.append(path.name), true_folder(path))[1])
    log = opened(tmp_path / "a" / "log", durability="disk")
    log.offer(record(0))
    assert log.flush(5)
    assert synced == [tmp_path.joinpath("a/log").name, "a", spool.SPOOL, "data"], "names before data"
    log.offer(record(1))
    assert log.flush(5)
    assert synced.count("data") == 2
    assert log.close(5)
    assert synced[-1] == spool.SPOOL, "the rename is durable too"
