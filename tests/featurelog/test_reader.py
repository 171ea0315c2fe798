"""The reading half: every record once, whatever is torn, flipped, repeated or missing."""

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from mlobs.errors import UnreadableError
from mlobs.featurelog import reader as reading
from mlobs.featurelog.blocks import pack_block
from mlobs.featurelog.frames import RECORDS, pack
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.spool import SPOOL, list_segments
from tests.featurelog.helpers import column, features_of, label, opened, read_all, record, rows


def written(folder: Path, batches: list[list[object]]) -> bytes:
    """A sealed segment with one commit a batch; its bytes."""
    log = opened(folder)
    for batch in batches:
        for each in batch:
            log.offer(each)  # type: ignore[arg-type]
        assert log.flush(5)
    assert log.close(5)
    return list_segments(folder)[-1].path.read_bytes()


def test_polling_resumes_where_the_cursor_stands(tmp_path: Path) -> None:
    log = opened(tmp_path)
    reader = LogReader(tmp_path)
    cursor, seen = None, []
    for step in range(5):
        for number in range(step * 10, step * 10 + 10):
            log.offer(record(number))
        assert log.flush(5)
        chunk = reader.poll(cursor)
        cursor = chunk.cursor
        seen.append([row["prediction_id"] for row in rows(chunk)])
    assert seen == [[f"p{number}" for number in range(step * 10, step * 10 + 10)] for step in range(5)]
    assert log.close(5)
    last = reader.poll(cursor)
    assert last.records == {}
    assert reader.poll(last.cursor).stats.gaps == 0


def test_a_limit_cuts_the_reading_into_chunks_and_loses_nothing(tmp_path: Path) -> None:
    written(tmp_path, [[record(n) for n in range(start, start + 20)] for start in range(0, 200, 20)])
    reader, cursor, found, more = LogReader(tmp_path), None, [], True
    while more:
        chunk = reader.poll(cursor, limit=30)
        found += [row["prediction_id"] for row in rows(chunk)]
        cursor, more = chunk.cursor, chunk.more
    assert found == [f"p{number}" for number in range(200)]


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    chunk = read_all(tmp_path / "none")
    assert chunk.records == {}
    assert len(chunk.labels) == 0
    assert "prediction_id" in chunk.labels.column_names


def test_a_cursor_of_another_kind_is_refused(tmp_path: Path) -> None:
    for broken in (b"nonsense", b"\x80", b"\x81\xa1v\x09"):
        with pytest.raises(UnreadableError, match="cursor"):
            LogReader(tmp_path).poll(broken)


def test_a_segment_cut_at_every_byte_loses_no_whole_commit(tmp_path: Path) -> None:
    data = written(tmp_path, [[record(0)], [record(1), record(2)], [record(3)]])
    path = list_segments(tmp_path)[0].path
    for cut in range(len(data), -1, -1):
        with path.open("r+b") as handle:
            handle.truncate(cut)
        chunk = read_all(tmp_path)
        ids = [row["prediction_id"] for row in rows(chunk)]
        assert ids in ([], ["p0"], ["p0", "p1", "p2"], ["p0", "p1", "p2", "p3"])
        assert (chunk.stats.unreadable, chunk.stats.duplicates) == (0, 0)
        assert chunk.stats.torn <= 1


def test_a_torn_tail_waits_while_the_segment_grows(tmp_path: Path) -> None:
    data = written(tmp_path, [[record(0)], [record(1)]])
    sealed = list_segments(tmp_path)[0].path
    growing = sealed.with_suffix(".open")
    sealed.rename(growing)
    reader, cursor, found = LogReader(tmp_path), None, []
    for end in range(0, len(data) + 1, 7):
        growing.write_bytes(data[:end])
        chunk = reader.poll(cursor)
        cursor = chunk.cursor
        found += [row["prediction_id"] for row in rows(chunk)]
        assert (chunk.stats.torn, chunk.stats.unreadable) == (0, 0)
    growing.write_bytes(data)
    found += [row["prediction_id"] for row in rows(reader.poll(cursor))]
    assert found == ["p0", "p1"]


def test_a_flipped_byte_costs_one_block_which_shows_as_a_gap(tmp_path: Path) -> None:
    data = written(tmp_path, [[record(n)] for n in range(5)])
    path = list_segments(tmp_path)[0].path
    rng = random.Random(5)
    for _ in range(60):
        place = rng.randrange(len(data) * 3 // 4)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        chunk = read_all(tmp_path)
        assert len(rows(chunk)) == 4
        assert (chunk.stats.unreadable, chunk.stats.gaps) == (1, 1)


def test_a_copied_segment_gives_duplicates_and_every_record_once(tmp_path: Path) -> None:
    data = written(tmp_path, [[record(n) for n in range(10)], [record(n) for n in range(10, 20)]])
    segment = list_segments(tmp_path)[0]
    (segment.path.parent / f"{segment.writer}-00000001.seg").write_bytes(data)
    chunk = read_all(tmp_path)
    assert sorted(row["prediction_id"] for row in rows(chunk)) == sorted(f"p{n}" for n in range(20))
    assert (chunk.stats.duplicates, chunk.stats.gaps) == (20, 0)


def test_a_missing_segment_in_the_middle_is_a_gap(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1)
    for number in range(30):
        log.offer(record(number))
        assert log.flush(5)
    assert log.close(5)
    segments = list_segments(tmp_path)
    middle = segments[len(segments) // 2]
    os.unlink(middle.path)
    chunk = read_all(tmp_path)
    assert chunk.stats.gaps == 30 - len(rows(chunk)) > 0


def test_segments_that_expired_before_the_reader_came_are_no_gap(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1)
    for number in range(10):
        log.offer(record(number))
        assert log.flush(5)
    assert log.close(5)
    os.unlink(list_segments(tmp_path)[0].path)
    assert read_all(tmp_path).stats.gaps == 0


def test_writers_are_merged_by_event_time(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    for number in range(40):
        (one if number % 2 else two).offer(record(number))
        assert one.flush(5)
        assert two.flush(5)
    times = [row["event_time"] for row in rows(read_all(tmp_path))]
    assert max(abs(time - place - 1000) for place, time in enumerate(times)) <= 2
    one.close(5)
    two.close(5)


def test_types_are_kept_and_a_conflict_is_preserved_beside(tmp_path: Path) -> None:
    schema = tmp_path / "mask.yaml"
    schema.write_text("fields: {n: clear, i: clear, s: clear, b: clear}")
    from mlobs.settings import MaskSettings

    log = opened(tmp_path / "log", mask=MaskSettings(schema=str(schema)))
    values = [
        {"n": 1.5, "i": 1, "s": "x", "b": True},
        {"n": 2, "i": 2, "s": "y", "b": None},
        {"n": "three", "i": 3, "s": 3, "b": 0},
        {"n": 2**60 + 1, "i": None, "s": None, "b": False},
    ]
    for number, features in enumerate(values):
        log.offer(record(number, features))
        assert log.flush(5)
    assert log.close(5)
    chunk = read_all(tmp_path / "log")
    table = chunk.records["fraud"]
    kinds = {field.name: field.type for field in table.column("features").type}
    assert kinds == {"n": pa.float64(), "i": pa.int64(), "s": pa.string(), "b": pa.bool_()}
    assert features_of(chunk) == [
        {"n": 1.5, "i": 1, "s": "x", "b": True},
        {"n": 2.0, "i": 2, "s": "y", "b": None},
        {"n": None, "i": 3, "s": None, "b": None},
        {"n": None, "i": None, "s": None, "b": False},
    ]
    assert [dict(each) if each else {} for each in column(table, "conflicts")] == [
        {},
        {},
        {"n": '"three"', "s": "3", "b": "0"},
        {"n": str(2**60 + 1)},
    ]


def test_the_type_of_a_feature_stays_from_chunk_to_chunk(tmp_path: Path) -> None:
    log = opened(tmp_path)
    reader = LogReader(tmp_path)
    log.offer(record(0, {"a": 1.0}))
    assert log.flush(5)
    first = reader.poll(None)
    log.offer(record(1, {"a": "text"}))
    assert log.flush(5)
    second = reader.poll(first.cursor)
    assert features_of(second) == [{"a": None}]
    assert second.records["fraud"].column("features").type.field("a").type == pa.float64()
    log.close(5)


def test_nan_and_infinity_are_values_and_none_is_null(tmp_path: Path) -> None:
    written(
        tmp_path, [[record(0, {"a": float("nan")}), record(1, {"a": None}), record(2, {"a": float("inf")})]]
    )
    values = read_all(tmp_path).records["fraud"].column("features").combine_chunks().field("a")
    assert values.null_count == 1
    assert values[0].as_py() != values[0].as_py()
    assert values[2].as_py() == float("inf")


def test_added_and_missing_features_are_null_where_they_are_missing(tmp_path: Path) -> None:
    written(
        tmp_path, [[record(0, {"a": 1.0}), record(1, {"a": 2.0, "b": 3}), record(2, {"b": 4}), record(3, {})]]
    )
    assert sorted(map(repr, features_of(read_all(tmp_path)))) == sorted(
        map(repr, [{"a": 1.0, "b": None}, {"a": 2.0, "b": 3}, {"a": None, "b": 4}, {"a": None, "b": None}])
    )


def test_unknown_fields_of_a_newer_writer_survive(tmp_path: Path) -> None:
    fields = {
        "model": ["fraud"],
        "prediction_id": ["p0"],
        "event_time": [5.0],
        "mood": ["fine"],
        "record_version": [9],
    }
    (tmp_path / SPOOL).mkdir()
    payload = pack_block("h-b-1", [0], 1, fields, {"a": [1.0]}, {})
    (tmp_path / SPOOL / "h-b-1-00000000.seg").write_bytes(pack(RECORDS, 1, payload) + pack(77, 0, payload))
    (row,) = rows(read_all(tmp_path))
    assert row["mood"] == "fine"
    assert row["record_version"] == 9
    assert row["segment"] is None


def test_a_block_that_is_no_block_is_counted_and_passed_over(tmp_path: Path) -> None:
    data = written(tmp_path, [[record(0)]])
    path = list_segments(tmp_path)[0].path
    lying = pack_block("h-b-1", [0, 1], 2, {"model": ["fraud", "fraud"], "event_time": [1.0]}, {}, {})
    path.write_bytes(pack(RECORDS, 1, b"\xc1") + pack(RECORDS, 2, lying) + data)
    chunk = read_all(tmp_path)
    assert len(rows(chunk)) == 1
    assert chunk.stats.unreadable == 2


def test_evidence_is_found_by_trace_and_by_prediction(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(50):
        log.offer(record(number, trace_id=f"{number:032x}", stage_durations_s={"a": 0.25, "b": 0.5}))
        assert number % 10 or log.flush(5)
    assert log.flush(5)
    reader = LogReader(tmp_path)
    found = reader.find(trace_ids=[f"{7:032x}", f"{41:032x}", "none"], prediction_ids=["p8"])
    assert [each.prediction_id for each in found] == ["p7", "p8", "p41"]
    assert found[0].stage_durations_s == {"a": 0.25, "b": 0.5}
    assert found[0].features["amount"] == 7.0
    assert reader.find(prediction_ids=["p8"], start=1009.0) == []
    assert reader.find() == []
    log.close(5)


def test_labels_come_in_the_order_of_their_writer(tmp_path: Path) -> None:
    written(tmp_path, [[label(1, 0), label(1, 1), label(2, None), label(3, True), label(4, 0.5)]])
    labels = read_all(tmp_path).labels
    assert column(labels, "prediction_id") == ["p1", "p1", "p2", "p3", "p4"]
    assert column(labels, "label") == [0.0, 1.0, None, None, 0.5]
    assert dict(column(labels, "conflicts")[3]) == {"label": "true"}


def test_a_scan_gives_the_newest_records_of_a_time_range(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=2000)
    for number in range(100):
        log.offer(record(number, model="fraud" if number % 2 else "churn"))
        assert number % 10 or log.flush(5)
    assert log.flush(5)
    reader = LogReader(tmp_path)
    for _again in range(2):
        table = reader.scan(1010.0, 1059.0, "fraud")
        assert column(table, "event_time") == [1010.0 + n for n in range(50) if n % 2]
        newest = reader.scan(1000.0, 1059.0, limit=10)
        assert column(newest, "event_time") == [1050.0 + n for n in range(10)]
        assert column(newest, "prediction") == [0.5] * 10
        assert newest.column("conflicts").null_count == 10
        assert len(reader.scan(5000.0, 6000.0)) == 0
    assert {"stage_durations_s", "duration_s", "trace_id", "features"} <= set(newest.column_names)
    log.close(5)


def test_a_segment_that_a_listing_missed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of a large folder may not see a file that is renamed while they list it."""
    log = opened(tmp_path, segment_bytes=1)
    for number in range(4):
        log.offer(record(number))
        assert log.flush(5)
    assert log.close(5)
    reader, whole = LogReader(tmp_path), list_segments(tmp_path)
    missed = next(each for each in whole if each.number == 1)
    monkeypatch.setattr(reading, "list_segments", lambda _folder: [each for each in whole if each != missed])
    chunk = reader.poll()
    assert column(chunk.records["fraud"], "prediction_id") == ["p0"]
    monkeypatch.undo()
    chunk = reader.poll(chunk.cursor)
    assert column(chunk.records["fraud"], "prediction_id") == ["p1", "p2", "p3"]
    assert (chunk.stats.gaps, chunk.stats.duplicates) == (0, 0)
