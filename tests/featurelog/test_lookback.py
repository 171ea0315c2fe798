"""A call that is looked up by its id costs little, and one that never was hardly more."""

import io
import itertools
import random
import struct
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.featurelog import lake as lakes
from mlobs.featurelog import segments
from mlobs.featurelog.bloom import may_hold, xxh64
from mlobs.featurelog.compact import compact
from mlobs.featurelog.lake import Lake
from mlobs.featurelog.lookback import LOOKS
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.storage import DiskStorage, open_storage
from tests.featurelog.helpers import opened, record
from tests.servers import S3

HOUR = 3600.0
HOURS = 6
EACH = 800


class Counting(DiskStorage):
    """Notes which files are read whole, and how much is read of those that are opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.whole: list[str] = []
        self.parts: dict[str, int] = {}

    def read(self, name: str) -> bytes:
        self.whole.append(name)
        return super().read(name)

    def open(self, name: str) -> IO[bytes]:
        storage = self
        self.parts[name] = 0

        class Part(io.FileIO):
            def read(self, size: int | None = -1) -> bytes:
                data = super().read(size)
                storage.parts[name] += len(data)
                return data

        return Part(self.root / name)

    @property
    def looks(self) -> int:
        return len(self.whole) + len(self.parts)


def fill(folder: Path, hours: Iterable[int]) -> None:
    """A commit an hour."""
    rng = random.Random(1)
    for hour in hours:
        log = opened(folder)
        for number in range(EACH):
            features = {f"f{n}": rng.random() for n in range(30)}
            at = hour * HOUR + number
            name = f"{hour}-{number}"
            log.offer(record(number, features, prediction_id=f"p{name}", trace_id=f"t{name}", event_time=at))
        assert log.close(10)
        compact(folder, DiskStorage(folder), hour * HOUR + 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("log")
    fill(made, range(10, 10 + HOURS))
    return made


def counted(folder: Path) -> tuple[LogReader, Counting]:
    reader, storage = LogReader(folder), Counting(folder)
    reader.lake = Lake(storage)
    return reader, storage


def test_an_id_that_never_was_reads_no_column_of_any_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unread(pq.ParquetFile):
        def read(self, *_args: Any, **_options: Any) -> pa.Table:
            raise AssertionError("the filters tell")

    monkeypatch.setattr(pq, "ParquetFile", Unread)
    reader, storage = counted(folder)
    assert reader.find(trace_ids=["nonsense"], prediction_ids=["nonsense"]) == []
    assert all(name.startswith(lakes.MANIFEST) for name in storage.whole)
    assert len(storage.parts) == HOURS
    sizes = {name: (folder / name).stat().st_size for name in storage.parts}
    assert all(size < 0.5 * sizes[name] for name, size in storage.parts.items()), (storage.parts, sizes)


def test_a_call_is_found_by_either_id_and_its_file_alone_is_read(folder: Path) -> None:
    for ids in ({"trace_ids": ["t12-7"]}, {"prediction_ids": ["p12-7"]}):
        reader, storage = counted(folder)
        (found,) = reader.find(**ids)
        assert (found.prediction_id, found.trace_id, found.event_time) == ("p12-7", "t12-7", 12 * HOUR + 7)
        assert len(found.features) == 30
        assert len(storage.parts) == HOURS
        one = next(name for name in storage.parts if "hour=12" in name)
        assert storage.parts[one] > max(size for name, size in storage.parts.items() if name != one)


def test_an_id_is_hashed_once_and_not_for_each_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lakes._hash.cache_clear()
    hashed: list[bytes] = []
    monkeypatch.setattr(lakes, "xxh64", lambda data: [hashed.append(data), xxh64(data)][1])
    reader, storage = counted(folder)
    assert reader.find(trace_ids=["nonsense" * 999], prediction_ids=["nonsense" * 999]) == []
    assert len(storage.parts) == HOURS
    assert hashed == [b"nonsense" * 999]


def test_a_limit_of_looks_holds_and_the_newest_are_looked_at_first(folder: Path) -> None:
    for looks in (0, 1, 2, 3, 6):
        reader, storage = counted(folder)
        assert reader.find(trace_ids=["nonsense"], looks=looks) == []
        assert storage.looks <= looks
    newest = 10 + HOURS - 1
    assert reader.find(trace_ids=[f"t{newest}-0"], looks=2)
    assert not reader.find(trace_ids=["t10-0"], looks=6)


def test_with_a_time_the_looking_begins_there(folder: Path) -> None:
    reader, storage = counted(folder)
    at = 12 * HOUR + 7
    (found,) = reader.find(trace_ids=["t12-7"], start=at - 60, end=at + 60, limit=1, looks=4)
    assert found.event_time == at
    assert [name for name in storage.parts if "hour=12" not in name] == []
    assert reader.find(trace_ids=["t12-7"], start=at + 1, end=at + 60) == []
    assert reader.find(trace_ids=["t12-7"], start=at - 60, end=at - 1) == []


def test_the_default_bounds_a_lake_of_months(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a month of commits, one every five minutes."""
    reader, _storage = counted(folder)
    (name, *_) = reader.lake.names()
    names = [f"{lakes.stamp(each * 300.0)}-{name.partition('-')[2]}" for each in range(8_640)]
    entry = reader.lake.entry(name)
    asked = []

    def one(asked_for: str) -> Any:
        asked.append(asked_for)
        return entry

    monkeypatch.setattr(reader.lake, "names", lambda: names)
    monkeypatch.setattr(reader.lake, "entry", one)
    monkeypatch.setattr(reader.lake, "rows_with", lambda file, _wanted: asked.append(file.name))
    assert reader.find(trace_ids=["nonsense"]) == []
    assert len(asked) <= LOOKS == 2_000
    assert asked[0] == names[-1]


def test_files_without_filters_are_looked_into_by_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an older mlobs, or of an older pyarrow."""
    with monkeypatch.context() as patch:
        patch.setattr(lakes, "_WRITES_BLOOM", False)
        fill(tmp_path, [10])
    (path,) = (tmp_path / "lake").rglob("*.parquet")
    assert pq.read_metadata(path).row_group(0).column(1).bloom_filter_offset is None
    reader, storage = counted(tmp_path)
    assert reader.find(trace_ids=["nonsense"], prediction_ids=["nonsense"]) == []
    assert sum(storage.parts.values()) < 0.5 * path.stat().st_size
    assert [each.trace_id for each in reader.find(prediction_ids=["p10-3"])] == ["t10-3"]


def test_a_pyarrow_that_knows_no_filters_looks_into_the_ids() -> None:
    assert lakes._group_may_hold(io.BytesIO(), object(), [1])


def test_calls_are_found_in_a_bucket(tmp_path: Path, moto_s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    url = f"s3://{moto_s3.bucket}/{uuid.uuid4().hex}?region=us-east-1"
    environ = {"AWS_ENDPOINT_URL": moto_s3.endpoint}
    log = opened(tmp_path)
    for number in range(9):
        log.offer(record(number, trace_id=f"t{number}"))
    assert log.close(5)
    compact(tmp_path, open_storage(url, environ), 1e6)
    reader = LogReader(url, environ)
    assert [each.prediction_id for each in reader.find(trace_ids=["t4", "nonsense"])] == ["p4"]
    assert reader.find(trace_ids=["nonsense"]) == []


def test_a_segment_without_the_id_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    for number in range(9):
        log.offer(record(number, trace_id=f"t{number}"))
        assert log.flush(5)
    decoded: list[int] = []
    true = segments.unpack_block
    monkeypatch.setattr(segments, "unpack_block", lambda data: [decoded.append(1), true(data)][1])
    reader = LogReader(tmp_path)
    assert reader.find(trace_ids=["nonsense"]) == []
    assert decoded == []
    assert [each.prediction_id for each in reader.find(trace_ids=["t4"])] == ["p4"]
    assert decoded
    assert log.close(5)


def test_a_broken_file_hides_no_other(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, range(10, 13))
    (path,) = (tmp_path / "lake" / "model=fraud").rglob("hour=11/*.parquet")
    path.write_bytes(b"PAR1 broken PAR1")
    assert [each.trace_id for each in LogReader(tmp_path).find(trace_ids=["t10-1", "t11-1"])] == ["t10-1"]


# --- the filter ---------------------------------------------------------------------------------------------


def filter_of(values: list[str], fpp: float = 0.01) -> bytes:
    sink = io.BytesIO()
    options = {"id": {"ndv": len(values), "fpp": fpp}}
    pq.write_table(pa.table({"id": values}), sink, bloom_filter_options=options)
    column = pq.ParquetFile(sink).metadata.row_group(0).column(0)
    start = column.bloom_filter_offset
    return sink.getvalue()[start : start + column.bloom_filter_length]


def test_a_filter_of_pyarrow_knows_every_value_it_was_given_and_few_others() -> None:
    rng = random.Random(5)
    values = ["".join(rng.choices("abc-ß漢0123456789", k=n % 101)) + str(n) for n in range(3000)]
    for own in (values, values[:1], values[:30]):
        data = filter_of(own)
        assert all(may_hold(data, [xxh64(each.encode())]) for each in own)
        assert may_hold(data, [xxh64(b"none"), xxh64(own[-1].encode())]), "any of several"
        others = sum(may_hold(data, [xxh64(f"other {n}".encode())]) for n in range(3000))
        assert others < 90
    assert not may_hold(data, [])


def test_the_hash_is_the_one_that_the_format_names() -> None:
    assert [hex(xxh64(each)) for each in (b"", b"a", b"abc")] == [
        "0xef46db3751d8e999",
        "0xd24ec4f1a98c6e5b",
        "0x44bc2cf5ad770999",
    ]


def test_a_filter_of_another_form_is_refused() -> None:
    data = filter_of(["a", "b"])
    broken = [b"", data[:1], data[:20], data[:-1], b"\x16" + data[1:]]
    broken += [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(2, 16)]
    for each, at in itertools.product(broken, (0, 2**64 - 1)):
        try:
            may_hold(each, [at])
        except ValueError:
            continue
        except struct.error as problem:
            raise AssertionError(each[:20]) from problem
        assert len(each) == len(data)
    with pytest.raises(ValueError, match="another form"):
        may_hold(data[:-1], [1])
