"""From spool to Parquet: whole or done again, on disk and on S3, read as one log."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.rows import cut
from mlobs.errors import ConfigError, UnavailableError
from mlobs.featurelog import compact as compacting
from mlobs.featurelog.compact import compact
from mlobs.featurelog.cursor import load_cursor
from mlobs.featurelog.lake import Entry, Lake
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.retention import expire, plan_expiry
from mlobs.featurelog.spool import list_segments
from mlobs.featurelog.storage import DiskStorage, Storage, open_storage
from mlobs.settings import MaskSettings
from tests.featurelog.helpers import column, features_of, label, opened, read_all, record, rows
from tests.servers import S3

NOW = 1_000_000.0


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return DiskStorage(tmp_path / "elsewhere")
    return s3_storage(request.getfixturevalue("moto_s3"))


def s3_storage(s3: S3) -> Storage:
    environ = {"AWS_ENDPOINT_URL": s3.endpoint}
    return open_storage(f"s3://{s3.bucket}/logs/fraud?region=us-east-1", environ)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


class Both(LogReader):
    """Reads the spool of one place and the lake of another."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        super().__init__(folder)
        self.lake = Lake(storage)


def fill(folder: Path, numbers: Iterable[int], **options: Any) -> None:
    log = opened(folder, **options)
    for number in numbers:
        log.offer(record(number, event_time=number * 600.0, model="fraud" if number % 3 else "churn"))
        log.offer_label(label(number))
    assert log.close(5)


def ids(tables: dict[str, pa.Table]) -> list[str]:
    return [value for table in tables.values() for value in column(table, "prediction_id")]


def test_segments_become_parquet_by_model_date_and_hour(tmp_path: Path, storage: Storage) -> None:
    fill(tmp_path, range(30))
    result = compact(tmp_path, storage, NOW)
    assert (result.segments, result.records, result.labels) == (1, 30, 30)
    assert list_segments(tmp_path) == []
    (entry,) = Lake(storage).entries()
    assert {file.name.rpartition("/")[0] for file in entry.files} >= {
        "lake/model=fraud/date=1970-01-01/hour=04",
        "lake/model=churn/date=1970-01-01/hour=00",
        "lake/labels/date=1970-01-01/hour=00",
    }
    assert sum(file.rows for file in entry.files) == 60
    chunk = Both(tmp_path, storage).poll()
    assert sorted(ids(chunk.records)) == sorted(f"p{n}" for n in range(30))
    assert (len(chunk.labels), chunk.stats.gaps, chunk.stats.duplicates) == (30, 0, 0)


def test_the_tables_are_the_same_before_and_after(tmp_path: Path) -> None:
    fill(tmp_path, range(25))
    before = read_all(tmp_path)
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    after = read_all(tmp_path)
    for model, table in before.records.items():
        order = [("event_time", "ascending")]
        assert after.records[model].sort_by(order).to_pylist() == table.sort_by(order).to_pylist()
        assert after.records[model].schema == table.schema
    assert after.labels.sort_by("event_time").to_pylist() == before.labels.sort_by("event_time").to_pylist()


def test_any_parquet_reader_can_read_a_file(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    for path in (tmp_path / "lake").rglob("*.parquet"):
        assert "prediction_id" in pq.read_table(path).column_names


@pytest.mark.parametrize("seed", range(8))
def test_a_reader_gets_every_record_once_while_segments_move(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    reader, storage = LogReader(tmp_path), DiskStorage(tmp_path)
    log = opened(tmp_path, segment_bytes=600)
    cursor, found, number = None, [], 0
    for step in range(40):
        what = rng.choice(["write", "write", "read", "read one", "compact"])
        if what == "write":
            for _ in range(rng.randrange(1, 30)):
                log.offer(record(number))
                number += 1
            assert log.flush(5)
        elif what == "compact":
            compact(tmp_path, storage, NOW + step)
        else:
            chunk = reader.poll(cursor, limit=5 if what == "read one" else 10**6)
            cursor = chunk.cursor
            found += ids(chunk.records)
            assert chunk.stats.duplicates == 0
    assert log.close(5)
    more = True
    while more:
        chunk = reader.poll(cursor, limit=7)
        cursor, more = chunk.cursor, chunk.more
        found += ids(chunk.records)
    assert sorted(found) == sorted(f"p{n}" for n in range(number))
    assert chunk.stats.gaps == 0


class Interrupted(Storage):
    """Fails, or dies, at the nth write or delete, before or after it happened."""

    class Died(BaseException):
        pass

    def __init__(self, inner: Storage, at: int, after: bool) -> None:
        self.inner, self.at, self.after, self.calls = inner, at, after, 0
        self.where = inner.where

    def names(self, folder: str) -> list[str]:
        return self.inner.names(folder)

    def read(self, name: str) -> bytes:
        return self.inner.read(name)

    def write(self, name: str, data: bytes) -> None:
        self._maybe(lambda: self.inner.write(name, data))

    def delete(self, name: str) -> None:
        self._maybe(lambda: self.inner.delete(name))

    def _maybe(self, do: Callable[[], None]) -> None:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.Died
        do()
        if self.calls == self.at:
            raise self.Died


@pytest.mark.parametrize("after", [False, True])
def test_a_compaction_that_dies_anywhere_is_done_again_with_the_same_result(
    tmp_path: Path, after: bool
) -> None:
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        fill(folder, range(20), segment_bytes=1)
        inner = DiskStorage(folder)
        reader, cursor, found = LogReader(folder), None, []
        try:
            compact(folder, Interrupted(inner, at, after), NOW, batch_bytes=2000)
            died = False
        except Interrupted.Died:
            died = True
        chunk = reader.poll(cursor)
        found += ids(chunk.records)
        assert chunk.stats.duplicates == 0
        compact(folder, inner, NOW + 5)
        chunk = reader.poll(chunk.cursor)
        found += ids(chunk.records)
        assert sorted(found) == sorted(f"p{n}" for n in range(20)), f"died at {at}"
        whole = read_all(folder)
        assert sorted(ids(whole.records)) == sorted(f"p{n}" for n in range(20))
        assert (whole.stats.duplicates, whole.stats.gaps, len(whole.labels)) == (0, 0, 20)
        named = {file.name for entry in Lake(inner).entries() for file in entry.files}
        there = {str(path.relative_to(folder)) for path in (folder / "lake").rglob("*.parquet")}
        assert there == named, "no file without an entry is left"
        if not died:
            assert at > 4
            break


@pytest.mark.parametrize("after", [False, True])
def test_a_compaction_that_dies_anywhere_on_s3_is_done_again_with_the_same_result(
    tmp_path: Path, moto_s3: S3, after: bool
) -> None:
    for at in itertools.count(1):
        folder, environ = tmp_path / str(at), {"AWS_ENDPOINT_URL": moto_s3.endpoint}
        inner = open_storage(f"s3://{moto_s3.bucket}/{after}{at}?region=us-east-1", environ)
        fill(folder, range(3, 6), segment_bytes=1)
        try:
            compact(folder, Interrupted(inner, at, after), NOW)
            died = False
        except Interrupted.Died:
            died = True
        compact(folder, inner, NOW + 5)
        chunk = Both(folder, inner).poll()
        assert sorted(ids(chunk.records)) == ["p3", "p4", "p5"], f"died at {at}"
        assert (chunk.stats.duplicates, chunk.stats.gaps, len(chunk.labels)) == (0, 0, 3)
        named = {file.name for entry in Lake(inner).entries() for file in entry.files}
        assert {name for name in inner.walk("lake") if name.endswith(".parquet")} == named
        if not died:
            assert at > 3
            break


def test_the_manifest_counts_the_rows_of_every_file(tmp_path: Path, storage: Storage) -> None:
    fill(tmp_path, range(40), segment_bytes=2000)
    compact(tmp_path, storage, NOW, batch_bytes=6000)
    files = [file for entry in Lake(storage).entries() for file in entry.files]
    assert len(files) > 6
    for file in files:
        found = pq.read_table(pa.BufferReader(storage.read(file.name)))
        assert (file.rows, sum(end - start for own in file.numbers.values() for start, end in own)) == (
            found.num_rows,
            found.num_rows,
        )
        times = found.column("event_time").to_pylist()
        assert (file.start, file.end) == (min(times), max(times))


def test_what_is_old_expires_on_either_storage_and_a_second_run_finds_nothing(
    tmp_path: Path, storage: Storage
) -> None:
    for day in (10, 11, 15):
        log = opened(tmp_path)
        log.offer(record(day, event_time=day * 86400.0))
        assert log.close(5)
        compact(tmp_path, storage, day * 86400.0)
    lake, keep, now = Lake(storage), 3 * 86400.0, 15 * 86400.0
    for expected in (2, 0):
        plan = plan_expiry(lake, keep, now)
        assert plan.rows == expected
        expire(lake, plan, keep)
    assert ids(Both(tmp_path, storage).poll().records) == ["p15"]
    assert len([name for name in storage.walk("lake") if name.endswith(".parquet")]) == 1


def test_a_compaction_that_dies_while_it_removes_segments_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, range(200), segment_bytes=1)
    storage = DiskStorage(tmp_path)
    with monkeypatch.context() as patch:
        true_unlink, left = Path.unlink, [1]

        def unlink(self: Path, missing_ok: bool = False) -> None:
            if self.suffix == ".seg":
                if not left:
                    raise Interrupted.Died
                left.pop()
            true_unlink(self, missing_ok)

        patch.setattr(Path, "unlink", unlink)
        fill(tmp_path, range(200, 210), segment_bytes=1)
        with pytest.raises(Interrupted.Died):
            compact(tmp_path, storage, NOW)
    assert len(ids(read_all(tmp_path).records)) == 210
    assert compact(tmp_path, storage, NOW).segments == 0
    assert list_segments(tmp_path) == []
    chunk = read_all(tmp_path)
    assert (len(ids(chunk.records)), chunk.stats.duplicates) == (210, 0)


def test_a_segment_with_a_broken_stretch_is_set_aside_and_its_good_part_kept(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(5):
        log.offer(record(number))
        assert log.flush(5)
    assert log.close(5)
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = compact(tmp_path, DiskStorage(tmp_path), NOW)
    assert (result.records, result.unreadable) == (4, 1)
    assert [each.name for each in (tmp_path / "spool" / "aside").iterdir()] == [path.name]
    chunk = read_all(tmp_path)
    assert (chunk.stats.unreadable, chunk.stats.gaps, len(rows(chunk))) == (1, 1, 4)


def test_two_compactions_do_not_run_at_once(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    with compacting.held(tmp_path), pytest.raises(UnavailableError, match="one that runs"):
        compact(tmp_path, DiskStorage(tmp_path), NOW)


def test_a_living_writers_segment_is_not_touched(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(0))
    assert log.flush(5)
    assert compact(tmp_path, DiskStorage(tmp_path), NOW).segments == 0
    assert log.close(5)


def test_a_clock_that_is_set_back_hides_no_commit(tmp_path: Path) -> None:
    storage, reader, cursor, found = DiskStorage(tmp_path), LogReader(tmp_path), None, []
    for number, now in enumerate([5e6, 5e6 + 86400, 1e6, 1e6 + 1]):
        fill(tmp_path, range(number, number + 1))
        compact(tmp_path, storage, now)
        chunk = reader.poll(cursor)
        cursor = chunk.cursor
        found += ids(chunk.records)
    assert found == ["p0", "p1", "p2", "p3"]


def test_a_batch_that_is_finished_hours_later_is_seen_by_who_read_on_meanwhile(tmp_path: Path) -> None:
    """Two machines, one lake: one dies before its commit, the other commits for a day."""
    storage, died, lives = DiskStorage(tmp_path / "lake"), tmp_path / "died", tmp_path / "lives"
    fill(died, range(3))
    with pytest.raises(Interrupted.Died):
        compact(died, Interrupted(storage, 1, after=True), NOW)
    fill(lives, range(10, 12))
    compact(lives, storage, NOW + 86400)
    reader = LogReader(tmp_path / "lake")
    chunk = reader.poll()
    assert sorted(ids(chunk.records)) == ["p10", "p11"]
    assert compact(died, storage, NOW + 86500).records == 3
    assert sorted(ids(reader.poll(chunk.cursor).records)) == ["p0", "p1", "p2"]


def test_a_batch_that_lost_a_segment_before_its_commit_loses_no_other(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    fill(tmp_path, range(3), segment_bytes=1)
    fill(tmp_path, range(3, 6), segment_bytes=1)
    with pytest.raises(Interrupted.Died):
        compact(tmp_path, Interrupted(storage, 1, after=False), NOW)
    gone, *_others = list_segments(tmp_path)
    before = set(ids(read_all(tmp_path).records))
    gone.path.unlink()
    left = set(ids(read_all(tmp_path).records))
    assert left < before
    compact(tmp_path, storage, NOW + 5)
    assert list_segments(tmp_path) == []
    assert set(ids(read_all(tmp_path).records)) == left


def test_evidence_is_found_in_the_lake_too(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(20):
        log.offer(record(number, trace_id=f"{number:032x}"))
    assert log.close(5)
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    reader = LogReader(tmp_path)
    (found,) = reader.find(trace_ids=[f"{7:032x}"])
    assert (found.prediction_id, found.stage_durations_s) == ("p7", {"inference": 0.005})
    assert column(reader.scan(1005.0, 1007.0), "prediction_id") == ["p5", "p6", "p7"]


def test_writers_that_ended_long_ago_leave_the_cursor_but_for_their_gaps(tmp_path: Path) -> None:
    """Each process is a writer: a service that recycles its workers has thousands in a month."""
    storage, reader = DiskStorage(tmp_path), LogReader(tmp_path)
    living = opened(tmp_path)
    living.offer(record(100))
    assert living.flush(5)
    log = opened(tmp_path, segment_bytes=1)
    for number in range(4):
        log.offer(record(number))
        assert log.flush(5)
    assert log.close(5)
    lost = next(each for each in list_segments(tmp_path) if each.sealed and each.number == 1)
    lost.path.unlink()
    compact(tmp_path, storage, NOW)
    chunk = reader.poll()
    found, gaps = ids(chunk.records), chunk.stats.gaps
    assert gaps > 0
    sizes = []
    for day in range(1, 13):
        fill(tmp_path, [1000 + day])
        compact(tmp_path, storage, NOW + day * 86400.0)
        chunk = LogReader(tmp_path).poll(chunk.cursor)
        found += ids(chunk.records)
        sizes.append(len(load_cursor(chunk.cursor).accounts))
        assert (chunk.stats.gaps, chunk.stats.duplicates) == (gaps, 0)
    assert sizes[-1] == sizes[-3] <= 10, "the last week's, and the one that lives"
    living.offer(record(101))
    assert living.close(5)
    compact(tmp_path, storage, NOW + 13 * 86400.0)
    chunk = LogReader(tmp_path).poll(chunk.cursor)
    assert (ids(chunk.records), chunk.stats.gaps, chunk.stats.duplicates) == (["p101"], gaps, 0)
    assert sorted(found) == sorted({*found}), "once each"


def read_in_chunks(
    reader: LogReader, cursor: bytes | None, limit: int
) -> tuple[list[str], Counter[str], bytes]:
    """Ids, and what was counted on the way to the end."""
    found: list[str] = []
    told: Counter[str] = Counter()
    while True:
        chunk = reader.poll(cursor, limit)
        cursor = chunk.cursor
        found += ids(chunk.records)
        for name in ("duplicates", "unreadable", "labels"):
            told[name] += getattr(chunk.stats, name)
        told["gaps"] = chunk.stats.gaps
        if not chunk.more:
            return found, told, cursor


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_commit_of_many_files_that_is_read_in_chunks_is_counted_once(tmp_path: Path, limit: int) -> None:
    fill(tmp_path, range(40))
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    (entry,) = Lake(DiskStorage(tmp_path)).entries()
    broken = entry.files[3]
    assert len(entry.files) > 10
    (tmp_path / broken.name).write_bytes(b"PAR1")
    found, told, _ = read_in_chunks(LogReader(tmp_path), None, limit)
    assert len(found) == len({*found})
    assert len(found) + told["labels"] == 80 - broken.rows
    assert (told["duplicates"], told["unreadable"], told["gaps"]) == (0, 1, broken.rows)


def copied(storage: Storage, entry: Entry, batch: str) -> None:
    """The files of `entry` once more, as those of another batch: a backup that was put back beside them."""
    files = []
    for file in entry.files:
        name = file.name.replace(entry.batch, batch)
        storage.write(name, storage.read(file.name))
        files.append(msgspec.structs.replace(file, name=name))
    again = msgspec.structs.replace(entry, batch=batch, committed=entry.committed + 1, files=files)
    storage.write(f"lake/manifest/{again.name}", msgspec.json.encode(again))


@pytest.mark.parametrize("limit", [7, 1000])
@pytest.mark.parametrize("when", ["spool", "lake", "never"])
def test_an_event_in_two_files_is_counted_whoever_reads(tmp_path: Path, when: str, limit: int) -> None:
    """By one who read the spool before it moved, by one who read the first file, by one who comes new."""
    fill(tmp_path, range(40))
    reader, storage, cursor = LogReader(tmp_path), DiskStorage(tmp_path), None
    before: list[str] = []
    if when == "spool":
        before, told, cursor = read_in_chunks(reader, cursor, limit)
    compact(tmp_path, storage, NOW)
    (entry,) = Lake(storage).entries()
    if when == "lake":
        before, told, cursor = read_in_chunks(reader, cursor, limit)
    copied(storage, entry, "00ff")
    found, told, cursor = read_in_chunks(LogReader(tmp_path), cursor, limit)
    assert sorted(before + found) == sorted(f"p{number}" for number in range(40))
    assert (told["duplicates"], told["gaps"]) == (80, 0)
    copied(storage, msgspec.structs.replace(entry, files=entry.files[:1]), "01ff")
    found, told, _ = read_in_chunks(LogReader(tmp_path), cursor, limit)
    assert (found, told["duplicates"]) == ([], entry.files[0].rows)


def test_a_cursor_of_before_copies_were_counted_is_gone_on_from(tmp_path: Path) -> None:
    fill(tmp_path, range(9))
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    _, _, cursor = read_in_chunks(LogReader(tmp_path), None, 1000)
    known = msgspec.msgpack.decode(cursor)
    older = msgspec.msgpack.encode({key: known[key] for key in known if key not in ("laid", "begun")})
    fill(tmp_path, range(9, 12))
    compact(tmp_path, DiskStorage(tmp_path), NOW + 1)
    found, told, _ = read_in_chunks(LogReader(tmp_path), older, 1000)
    assert (sorted(found), told["duplicates"], told["gaps"]) == (["p10", "p11", "p9"], 0, 0)


class Counted(Lake):
    """Notes which entries are asked for."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.fetched: list[str] = []

    def entry(self, name: str) -> Entry | None:
        self.fetched.append(name)
        return super().entry(name)


def test_looking_back_an_hour_fetches_no_older_commits(tmp_path: Path) -> None:
    """A lake of months has tens of thousands of entries, and a page has two seconds to ask for evidence."""
    days = [NOW + day * 86400.0 for day in range(5)]
    for number, at in enumerate(days):
        log = opened(tmp_path)
        log.offer(record(number, event_time=at - 100, trace_id=f"t{number}"))
        assert log.close(5)
        compact(tmp_path, DiskStorage(tmp_path), at)
    newest = max(Lake(DiskStorage(tmp_path)).names())
    for look in (
        lambda reader: column(reader.scan(days[-1] - 3600, days[-1]), "prediction_id"),
        lambda reader: column(reader.scan(0.0, 9e9, limit=1), "prediction_id"),
        lambda reader: [each.prediction_id for each in reader.find(trace_ids=["t4"], limit=1)],
    ):
        reader, lake = LogReader(tmp_path), Counted(DiskStorage(tmp_path))
        reader.lake = lake
        assert look(reader) == ["p4"]
        assert lake.fetched == [newest]
    assert len(LogReader(tmp_path).scan(0.0, 9e9)) == 5


def test_a_newer_manifest_is_refused_with_advice(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    (path,) = (tmp_path / "lake" / "manifest").iterdir()
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "version": 99, "novelty": 1}))
    with pytest.raises(UnavailableError, match="update mlobs"):
        read_all(tmp_path)


def test_features_that_came_went_and_changed_their_type_are_read_together(tmp_path: Path) -> None:
    schema = tmp_path / "mask.yaml"
    schema.write_text("fields: {n: clear, old: clear, new: clear}")
    storage = DiskStorage(tmp_path / "log")
    for number, features in enumerate(
        [{"n": 1, "old": 1.5}, {"n": 2.5, "new": True}, {"n": "three"}, {"n": 4}]
    ):
        log = opened(tmp_path / "log", mask=MaskSettings(schema=str(schema)))
        log.offer(record(number, features))
        assert log.close(5)
        if number < 3:
            compact(tmp_path / "log", storage, NOW + number)
    chunk = read_all(tmp_path / "log")
    table = chunk.records["fraud"].sort_by("event_time")
    assert table.column("features").to_pylist() == [
        {"n": 1.0, "old": 1.5, "new": None},
        {"n": 2.5, "old": None, "new": True},
        {"n": None, "old": None, "new": None},
        {"n": 4.0, "old": None, "new": None},
    ]
    assert [dict(each or ()) for each in column(table, "conflicts")] == [{}, {}, {"n": '"three"'}, {}]


def test_a_prediction_that_changes_its_type_is_preserved_beside(tmp_path: Path) -> None:
    for number, prediction in enumerate([0.5, "yes", 1]):
        log = opened(tmp_path)
        log.offer(record(number, prediction=prediction))
        assert log.close(5)
        compact(tmp_path, DiskStorage(tmp_path), NOW + number)
    table = read_all(tmp_path).records["fraud"].sort_by("event_time")
    assert column(table, "prediction") == [0.5, None, 1.0]
    assert "prediction" in dict(column(table, "conflicts")[1])


def test_a_file_without_a_value_says_nothing_of_its_type(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    for number, (prediction, feature) in enumerate([(None, None), (0.5, 2.5), (None, None), (1, 3)]):
        log = opened(tmp_path)
        log.offer(record(number, {"n": feature}, prediction=prediction))
        log.offer_label(label(number, prediction))
        assert log.close(5)
        if number < 3:
            compact(tmp_path, storage, NOW + number)
    reader, cursor, more, found = LogReader(tmp_path), None, True, []
    while more:  # file by file, with what the cursor learned of the one before
        chunk = reader.poll(cursor, 1)
        cursor, more = chunk.cursor, chunk.more
        found += [(row["prediction"], row["features"]["n"]) for row in rows(chunk)]
        found += column(chunk.labels, "label")
        assert all(each["conflicts"].null_count == len(each) for each in chunk.records.values())
        assert chunk.labels["conflicts"].null_count == len(chunk.labels)
    assert sorted(found, key=repr) == sorted(
        [(None, None), None, (0.5, 2.5), 0.5, (None, None), None, (1.0, 3.0), 1.0], key=repr
    )
    for whole in (read_all(tmp_path).records["fraud"], reader.scan(0.0, 9e9)):
        assert column(whole.sort_by("event_time"), "prediction") == [None, 0.5, None, 1.0]
        assert whole.column("conflicts").null_count == 4


def test_a_feature_may_be_called_prediction(tmp_path: Path) -> None:
    """Of a model that is fed by another one."""
    for number in range(2):
        log = opened(tmp_path)
        log.offer(record(number, {"prediction": number > 0, "label": 7}, prediction=0.5))
        assert log.close(5)
        if not number:
            compact(tmp_path, DiskStorage(tmp_path), NOW)
    chunk = read_all(tmp_path)
    assert [row["prediction"] for row in rows(chunk)] == [0.5, 0.5]
    assert features_of(chunk) == [{"prediction": False, "label": 7}, {"prediction": True, "label": 7}]
    assert chunk.records["fraud"].column("conflicts").null_count == 2


def test_records_without_features_have_a_file_too(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(0, {}, stage_durations_s={}))
    log.offer(record(1, {}, event_time=float("nan")))
    log.offer(record(2, {}, event_time=1e300))
    assert log.close(5)
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    assert sorted(ids(read_all(tmp_path).records)) == ["p0", "p1", "p2"]
    assert features_of(read_all(tmp_path))[0] in ({}, None)


def test_a_file_of_calls_without_features_has_the_columns_of_others(tmp_path: Path) -> None:
    """Parquet keeps no struct without a field; who reads `features` must find it all the same."""
    log = opened(tmp_path)
    log.offer(record(0, {}, stage_durations_s={}))
    assert log.close(5)
    before = read_all(tmp_path).records["fraud"]
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    after = read_all(tmp_path).records["fraud"]
    assert set(after.column_names) == set(before.column_names)
    (piece,), unusable = cut(after, 60.0, "UTC")
    assert (piece.features.column_names, len(piece.weights), unusable) == (["prediction"], 1, 0)


def test_a_broken_parquet_file_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    fill(tmp_path, range(30))
    compact(tmp_path, DiskStorage(tmp_path), NOW)
    broken = min((tmp_path / "lake" / "model=fraud").rglob("*.parquet"))
    lost = pq.read_table(broken).num_rows
    broken.write_bytes(broken.read_bytes()[:-30])
    chunk = read_all(tmp_path)
    assert len(ids(chunk.records)) == 30 - lost
    assert (chunk.stats.unreadable, chunk.stats.gaps) == (1, lost)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://key:secret@bucket/x", "s3://bucket/x?colour=red", "gs://bucket"]
)
def test_a_destination_that_cannot_be_meant_is_refused_and_no_secret_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage(url, {})
    assert "secret" not in str(caught.value)


def test_a_storage_that_does_not_answer_leaves_the_segments(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    dead = open_storage("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    with pytest.raises(UnavailableError, match="S3"):
        compact(tmp_path, dead, NOW)
    assert len(list_segments(tmp_path)) == 1
    assert compact(tmp_path, DiskStorage(tmp_path), NOW).records == 3
