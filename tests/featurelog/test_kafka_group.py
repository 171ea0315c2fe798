"""What the consumer group is told: where the monitor is, after it has stored it, and never before."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlobs.featurelog import kafkasource
from mlobs.featurelog.cursor import load_cursor
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.reader import LogReader, reader_of
from mlobs.featurelog.ship import Shipper
from mlobs.service.serve import SCHEMAS, wire
from mlobs.settings import ModelSettings, Settings
from mlobs.store import open_store
from tests.featurelog.helpers import opened, record
from tests.featurelog.mockkafka import mock_cluster
from tests.servers import eventually

pytestmark = pytest.mark.server
WAIT = 60.0


def topic(broker: str, partitions: int) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic("calls", partitions)])["calls"].result(20)


def send(folder: Path, broker: str, numbers: range) -> None:
    log = opened(folder)
    for number in numbers:
        log.offer(record(number))
    assert log.close(10)
    with Shipper(folder, Address(broker, "calls", "t"), {}) as ship:
        ship.ship()


def told(broker: str, partitions: int, group: str = "mlobs") -> dict[str, int]:
    """What a tool that shows the lag of the group sees."""
    import confluent_kafka

    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": group})
    try:
        spots = [confluent_kafka.TopicPartition("calls", each) for each in range(partitions)]
        return {str(one.partition): one.offset for one in consumer.committed(spots, 20) if one.offset >= 0}
    finally:
        consumer.close()


def reading(reader: LogReader) -> Callable[[bytes | None, int], bytes]:
    """Polls until so many records came; the cursor."""

    def read(cursor: bytes | None, rows: int) -> bytes:
        found = 0

        def enough() -> bool:
            nonlocal cursor, found
            chunk = reader.poll(cursor)
            cursor = chunk.cursor
            found += chunk.stats.records
            return found >= rows

        eventually(enough, f"{rows} records", timeout=WAIT)
        assert cursor is not None
        return cursor

    return read


def test_the_group_hears_of_what_was_stored_and_all_of_it_at_the_end(tmp_path: Path, kafka: str) -> None:
    topic(kafka, 2)
    send(tmp_path, kafka, range(20))
    reader = LogReader(f"kafka://{kafka}/calls", {})
    cursor = reading(reader)(None, 20)
    offsets = load_cursor(cursor).offsets
    assert sum(offsets.values()) == 20
    assert told(kafka, 2) != offsets, "nobody has said yet that the cursor is stored"
    eventually(lambda: reader.poll(cursor) and told(kafka, 2) == offsets, "the group is told", timeout=WAIT)
    send(tmp_path, kafka, range(20, 25))
    cursor = reading(reader)(cursor, 5)
    assert told(kafka, 2) != load_cursor(cursor).offsets
    reader.close(cursor)
    assert told(kafka, 2) == load_cursor(cursor).offsets != offsets
    assert told(kafka, 2, "another") == {}


def test_what_the_group_was_told_by_others_is_not_where_reading_begins(tmp_path: Path, kafka: str) -> None:
    import confluent_kafka

    topic(kafka, 1)
    send(tmp_path, kafka, range(9))
    other = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": "mlobs"})
    other.commit(offsets=[confluent_kafka.TopicPartition("calls", 0, 9)], asynchronous=False)
    other.close()
    reader = LogReader(f"kafka://{kafka}/calls", {})
    reader.close(reading(reader)(None, 9))


def test_two_readers_of_one_service_tell_two_groups(tmp_path: Path, kafka: str) -> None:
    """The drift stage, and the canaries."""
    topic(kafka, 1)
    send(tmp_path, kafka, range(5))
    settings = Settings("fraud-api", feature_log=f"kafka://{kafka}/calls?group=ours")
    for part, group in (("", "ours"), ("canaries", "ours-canaries")):
        reader = reader_of(settings, part)
        assert reader is not None
        reader.close()
        assert told(kafka, 1, group) == {}
        cursor = reading(reader)(None, 5)
        reader.close(cursor)
        assert told(kafka, 1, group) == {"0": 5}


def test_an_orderly_end_of_serve_leaves_the_group(tmp_path: Path, kafka: str) -> None:
    topic(kafka, 1)
    send(tmp_path, kafka, range(5))
    settings = Settings(
        "fraud-api",
        models=(ModelSettings("fraud"),),
        feature_log=f"kafka://{kafka}/calls",
        store=f"sqlite:///{tmp_path}/state.db",
        clock="driven",
    )
    service = wire(settings, open_store(settings.store, SCHEMAS), lambda _url: b"")  # type: ignore[arg-type]
    read = 0

    def all_read() -> bool:
        nonlocal read
        read += service.tick(2000.0)["records"] or 0
        return read >= 5

    eventually(all_read, "the records", timeout=WAIT)
    source: Any = service.drift._source
    assert source._kafka._consumer is not None
    service.close()
    assert source._kafka._consumer is None
    assert told(kafka, 1) == {"0": 5}


def test_a_closed_reader_reads_on(tmp_path: Path, kafka: str) -> None:
    topic(kafka, 1)
    send(tmp_path, kafka, range(5))
    reader = LogReader(f"kafka://{kafka}/calls", {})
    cursor = reading(reader)(None, 5)
    reader.close(cursor)
    reader.close(cursor)
    send(tmp_path, kafka, range(5, 8))
    reader.close(reading(reader)(cursor, 3))


def test_partitions_that_are_added_are_read_from_their_beginning(
    tmp_path: Path, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions

    monkeypatch.setattr(kafkasource, "_LOOK_AGAIN", 0.0)
    topic(kafka, 1)
    send(tmp_path, kafka, range(10))
    reader = LogReader(f"kafka://{kafka}/calls", {})
    cursor = reading(reader)(None, 10)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_partitions([NewPartitions("calls", 4)])["calls"].result(20)
    send(tmp_path, kafka, range(10, 40))
    cursor = reading(reader)(cursor, 30)
    offsets = load_cursor(cursor).offsets
    assert len(offsets) > 1
    assert sum(offsets.values()) == 40
    reader.close(cursor)


def test_closing_waits_for_no_broker_that_is_away(tmp_path: Path) -> None:
    """librdkafka's own close waits 45 seconds for an offset that it could not tell."""
    closed: list[int] = []
    with mock_cluster() as cluster:
        cluster.topic("calls", 1)
        send(tmp_path, cluster.brokers, range(5))
        reader = LogReader(f"kafka://{cluster.brokers}/calls", {})
        cursor = reading(reader)(None, 5)
        source: Any = reader._kafka
        consumer = source._consumer
        source._consumer = Noting(consumer, closed)
        cluster.down()
        reader.close(cursor)
        assert closed == []
        cluster.up()
        reader.close(reading(reader)(None, 5))
        consumer.close()


class Noting:
    """A consumer of which is noted who closes it."""

    def __init__(self, consumer: Any, closed: list[int]) -> None:
        self._consumer, self._closed = consumer, closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def close(self) -> None:
        self._closed.append(os.getpid())
        self._consumer.close()
