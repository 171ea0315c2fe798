"""One reader, three sources: what is repeated, missing, late, out of order or broken is told of each."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mlobs.featurelog.compact import compact
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.lake import Lake
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.ship import POSITION, Shipper
from mlobs.featurelog.spool import SPOOL, list_segments
from mlobs.featurelog.storage import DiskStorage
from tests.featurelog.helpers import opened, record
from tests.featurelog.mockkafka import Cluster, mock_cluster
from tests.servers import eventually

GROUPS, EACH = 6, 5
"""Segments, and records in each."""
BASE = 1e6
LATE = 2 * 86400.0


@dataclass(frozen=True)
class Expected:
    records: int = GROUPS * EACH
    duplicates: int = 0
    gaps: int = 0
    unreadable: int = 0


class Place:
    """A log under way to where it will be read; `damage` comes between."""

    def __init__(self, kind: str, folder: Path, cluster: Cluster | None) -> None:
        self.kind, self.folder, self.cluster = kind, folder, cluster

    def write(self, times: list[float]) -> None:
        log = opened(self.folder, segment_bytes=1, commit_interval=60.0)
        for start in range(0, len(times), EACH):
            for number in range(start, start + EACH):
                log.offer(record(number, event_time=times[number]))
            assert log.flush(5)
        assert log.close(5)

    def segments(self) -> list[Path]:
        """Those with records: the last one only says that the writer ended."""
        return [segment.path for segment in list_segments(self.folder)][:GROUPS]

    def move(self) -> None:
        """To where it will be read."""
        if self.kind == "lake":
            compact(self.folder, DiskStorage(self.folder), BASE, batch_bytes=1)
        elif self.cluster is not None:
            with Shipper(self.folder, Address(self.cluster.brokers, "calls", "t"), {}, remove=False) as ship:
                ship.ship()

    @property
    def source(self) -> str:
        return str(self.folder) if self.cluster is None else f"kafka://{self.cluster.brokers}/calls"


@pytest.fixture(params=["spool", "lake", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param != "kafka":
        yield Place(request.param, tmp_path, None)
        return
    with mock_cluster() as cluster:
        cluster.topic("calls", 3)
        yield Place("kafka", tmp_path, cluster)


def in_order() -> list[float]:
    return [BASE + number for number in range(GROUPS * EACH)]


def nothing(place: Place) -> Expected:
    place.move()
    return Expected()


def repeated(place: Place) -> Expected:
    """Two segments again under other names; of a topic, everything sent again."""
    if place.kind == "kafka":
        place.move()
        (place.folder / SPOOL / POSITION).unlink()
        place.move()
        return Expected(duplicates=GROUPS * EACH)
    for path in place.segments()[1:3]:
        writer, _, number = path.stem.rpartition("-")
        path.with_name(f"{writer}-{int(number) + 100:08d}.seg").write_bytes(path.read_bytes())
    place.move()
    return Expected(duplicates=2 * EACH)


def missing(place: Place) -> Expected:
    place.segments()[2].unlink()
    place.move()
    return Expected(records=(GROUPS - 1) * EACH, gaps=EACH)


def broken(place: Place) -> Expected:
    """A flipped bit, half a Parquet file, a message that is no event."""
    if place.kind == "spool":
        path = place.segments()[2]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        return Expected(records=(GROUPS - 1) * EACH, gaps=EACH, unreadable=1)
    place.move()
    if place.kind == "lake":
        file = Lake(DiskStorage(place.folder)).entries()[0].files[0].name
        os.truncate(place.folder / file, 900)
        return Expected(records=(GROUPS - 1) * EACH, gaps=EACH, unreadable=1)
    import confluent_kafka

    assert place.cluster is not None
    producer = confluent_kafka.Producer({"bootstrap.servers": place.cluster.brokers})
    for value in (b"{", b"\xff\xfe", b'{"specversion": "1.0"}'):
        producer.produce("calls", value)
    assert producer.flush(10) == 0
    return Expected(unreadable=3)


def read(source: str, expected: Expected) -> tuple[list[dict[str, Any]], Expected]:
    """Every row, in small chunks by a new reader each, and what was told on the way."""
    rows: list[dict[str, Any]] = []
    cursor, told = None, Expected(records=0)

    def at_the_end() -> bool:
        nonlocal cursor, told
        chunk = LogReader(source, {}).poll(cursor, 7)
        cursor = chunk.cursor
        rows.extend(row for table in chunk.records.values() for row in table.to_pylist())
        told = replace(
            told,
            records=len(rows),
            duplicates=told.duplicates + chunk.stats.duplicates,
            gaps=chunk.stats.gaps,
            unreadable=told.unreadable + chunk.stats.unreadable,
        )
        return not chunk.more and told == expected

    try:
        eventually(at_the_end, "what is expected", timeout=10)
    finally:
        assert told == expected
    return rows, told


@pytest.mark.parametrize("damage", [nothing, repeated, missing, broken])
def test_each_record_is_read_once_and_what_is_wrong_is_counted(
    place: Place, damage: Callable[[Place], Expected]
) -> None:
    place.write(in_order())
    expected = damage(place)
    rows, told = read(place.source, expected)
    ids = [row["prediction_id"] for row in rows]
    assert len(ids) == len(set(ids)) == told.records
    assert all(row["event_time"] == BASE + int(row["prediction_id"][1:]) for row in rows)


def test_what_comes_late_or_out_of_order_keeps_its_event_time_and_is_no_gap(place: Place) -> None:
    times = in_order()
    random.Random(7).shuffle(times)
    times[-1] -= LATE
    place.write(times)
    place.move()
    rows, _ = read(place.source, Expected())
    assert {row["prediction_id"]: row["event_time"] for row in rows} == {
        f"p{number}": time for number, time in enumerate(times)
    }
    if place.kind != "kafka":  # a topic cannot be searched by time
        found = LogReader(place.source).scan(times[-1] - 1, times[-1] + 1)
        assert found.column("prediction_id").to_pylist() == [f"p{GROUPS * EACH - 1}"]
        between = LogReader(place.source).scan(BASE + 5, BASE + 14).column("event_time").to_pylist()
        assert between == sorted(time for time in times if BASE + 5 <= time <= BASE + 14)
    if place.kind == "lake":
        hours = {path.parent.name for path in (place.folder / "lake" / "model=fraud").rglob("*.parquet")}
        assert len(hours) == 1
        days = {
            path.parent.parent.name for path in (place.folder / "lake" / "model=fraud").rglob("*.parquet")
        }
        assert days == {"date=1970-01-10", "date=1970-01-12"}


def test_a_segment_that_is_broken_before_it_is_moved_is_counted_where_it_is_moved(tmp_path: Path) -> None:
    """The lake tells of it in its manifest, the shipper in its position; the reader sees the gap."""
    for kind in ("lake", "kafka"):
        with mock_cluster() as cluster:
            cluster.topic("calls", 1)
            place = Place(kind, tmp_path / kind, cluster if kind == "kafka" else None)
            place.write(in_order())
            path = place.segments()[2]
            path.write_bytes(
                bytes(each ^ 4 if at == 200 else each for at, each in enumerate(path.read_bytes()))
            )
            place.move()
            expected = Expected(records=(GROUPS - 1) * EACH, gaps=EACH, unreadable=1 if kind == "lake" else 0)
            read(place.source, expected)
            if kind == "kafka":
                assert b'"unreadable":1' in (place.folder / SPOOL / POSITION).read_bytes()
