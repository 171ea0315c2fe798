"""Spool -> Kafka -> columns: what the broker has not answered for is not delivered."""

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mlobs.errors import ConfigError, UnavailableError
from mlobs.featurelog.compact import compact
from mlobs.featurelog.kafka import Address, client_settings, parse_address
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.ship import Shipper, load_position
from mlobs.featurelog.spool import list_segments
from mlobs.featurelog.storage import DiskStorage
from tests.featurelog.helpers import column, label, opened, record
from tests.featurelog.mockkafka import (
    MSG_SIZE_TOO_LARGE,
    NOT_ENOUGH_REPLICAS,
    REQUEST_TIMED_OUT,
    TOPIC_AUTHORIZATION_FAILED,
    Cluster,
    mock_cluster,
)
from tests.servers import eventually


@pytest.fixture
def cluster() -> Any:
    with mock_cluster() as one:
        one.topic("calls", 3)
        yield one


def fill(folder: Path, numbers: range) -> None:
    log = opened(folder)
    for number in numbers:
        log.offer(record(number, {"amount": math.nan if number == 3 else number * 1.5, "n": number}))
    log.offer_label(label(numbers.start))
    assert log.close(5)


def shipped(folder: Path, cluster: Cluster | str, **options: Any) -> Shipper:
    brokers = cluster if isinstance(cluster, str) else cluster.brokers
    return Shipper(folder, Address(brokers, "calls", "mlobs"), {}, **options)


def read(brokers: str, until: int) -> tuple[list[dict[str, Any]], Any]:
    """Rows of the topic, once there are `until` of them, and the last chunk."""
    reader, rows, cursor, last = LogReader(f"kafka://{brokers}/calls", {}), [], None, None

    def enough() -> bool:
        nonlocal cursor, last
        last = reader.poll(cursor)
        cursor = last.cursor
        rows.extend(row for table in last.records.values() for row in table.to_pylist())
        return len(rows) >= until

    eventually(enough, f"{until} rows")
    return rows, last


def test_the_spool_goes_through_a_broker_and_comes_back_the_same(tmp_path: Path, kafka: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic("calls", 2)])["calls"].result(10)
    fill(tmp_path, range(50))
    before = sorted(LogReader(tmp_path).poll().records["fraud"].to_pylist(), key=lambda row: row["event_id"])
    with shipped(tmp_path, kafka) as ship:
        assert ship.ship() == 51
        assert (ship.ledger().delivered, ship.ledger().balanced) == (51, True)
    assert list_segments(tmp_path) == []
    rows, last = read(kafka, 50)
    after = sorted(rows, key=lambda row: row["event_id"])
    assert math.isnan(after[[row["prediction_id"] for row in after].index("p3")]["features"]["amount"])
    assert repr(after) == repr(before)
    assert (last.stats.gaps, last.stats.duplicates, last.stats.unreadable) == (0, 0, 0)


def test_what_is_sent_twice_is_read_once_and_a_cursor_goes_on_where_it_was(
    tmp_path: Path, cluster: Cluster
) -> None:
    fill(tmp_path, range(30))
    with shipped(tmp_path, cluster, remove=False) as ship:
        ship.ship()
    (tmp_path / "spool" / "ship.json").unlink()  # as if it had died before the position was stored
    with shipped(tmp_path, cluster, remove=False) as ship:
        assert ship.ship() == 31
    url = f"kafka://{cluster.brokers}/calls"
    seen: list[str] = []
    cursor, duplicates = None, 0
    while len(seen) < 30 or duplicates < 31:
        chunk = LogReader(url, {}).poll(cursor, 10)  # a new process each time
        cursor = chunk.cursor
        duplicates += chunk.stats.duplicates
        seen += [each for table in chunk.records.values() for each in column(table, "prediction_id")]
    assert sorted(seen) == sorted(f"p{number}" for number in range(30))
    assert chunk.stats.gaps == 0


def test_an_event_is_a_cloud_event_with_the_prediction_id_as_key(tmp_path: Path, cluster: Cluster) -> None:
    import confluent_kafka

    fill(tmp_path, range(1))
    with shipped(tmp_path, cluster) as ship:
        ship.ship()
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.brokers, "group.id": "g"})
    consumer.assign([confluent_kafka.TopicPartition("calls", each, 0) for each in range(3)])
    messages = [eventually(lambda: consumer.poll(0.2), "a message") for _ in range(2)]
    consumer.close()
    event = next(json.loads(each.value()) for each in messages if b"record" in each.value())
    assert {each.key() for each in messages} == {b"p0"}
    assert len({each.partition() for each in messages}) == 1
    assert dict(messages[0].headers())["content-type"] == b"application/cloudevents+json; charset=UTF-8"
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "mlobs.record.v1", "p0")
    assert event["time"] == "1970-01-01T00:16:40.000000Z"
    assert {"id", "source"} <= set(event)


def test_passing_troubles_of_the_broker_lose_and_double_nothing(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(40))
    cluster.fail([NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS])
    with shipped(tmp_path, cluster, overrides={"retry.backoff.ms": 10}) as ship:
        assert ship.ship() == 41
        assert (ship.ledger().offered, ship.ledger().delivered) == (41, 41)
    rows, last = read(cluster.brokers, 40)
    assert (len(rows), last.stats.duplicates) == (40, 0)


def test_an_event_that_the_broker_never_takes_becomes_a_dead_letter_with_the_reason(
    tmp_path: Path, cluster: Cluster
) -> None:
    log = opened(tmp_path)
    log.offer(record(0))
    log.offer(record(1, decision="x" * 3000))
    log.offer(record(2))
    assert log.close(5)
    with shipped(tmp_path, cluster, overrides={"message.max.bytes": 2500}) as ship:
        assert ship.ship() == 3
        ledger = ship.ledger()
    assert (ledger.delivered, ledger.dropped, ledger.balanced) == (2, {"dead_letter": 1}, True)
    (line,) = (tmp_path / "spool" / "dead" / "letters.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith("MSG_SIZE_TOO_LARGE")
    assert json.loads(line)["event"]["subject"] == "p1"


def test_a_refusal_in_the_answer_becomes_dead_letters_too(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(1))
    cluster.fail([MSG_SIZE_TOO_LARGE])
    with shipped(tmp_path, cluster) as ship:
        ship.ship()
        ledger = ship.ledger()
    assert (ledger.offered, ledger.balanced, ledger.queued) == (2, True, 0)
    assert ledger.dropped["dead_letter"] >= 1


def test_trouble_that_is_not_the_events_stops_and_the_spool_holds(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(10))
    cluster.fail([TOPIC_AUTHORIZATION_FAILED])
    with shipped(tmp_path, cluster) as ship:
        with pytest.raises(UnavailableError, match="TOPIC_AUTHORIZATION_FAILED"):
            ship.ship()
        assert load_position(tmp_path) is None
        assert len(list_segments(tmp_path)) == 1
        ship.ship()
    rows, _ = read(cluster.brokers, 10)
    assert len(rows) == 10


def test_a_broker_that_goes_and_comes_back_gets_everything_in_order(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(5))
    cluster.down()
    options = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
    with shipped(tmp_path, cluster, overrides=options) as ship:
        worker = threading.Thread(target=ship.ship)
        worker.start()
        fill(tmp_path, range(5, 200))  # the service goes on meanwhile
        eventually(lambda: ship.ledger().queued, "a queue")
        assert ship.ledger().delivered == 0
        cluster.up()
        worker.join(30)
        ship.ship()
        assert (ship.ledger().delivered, ship.ledger().queued) == (202, 0)
    rows, last = read(cluster.brokers, 200)
    assert sorted(row["prediction_id"] for row in rows) == sorted(f"p{n}" for n in range(200))
    assert (last.stats.gaps, last.stats.duplicates) == (0, 0)


def test_shipping_that_is_asked_to_stop_lets_go_at_once(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(5))
    cluster.down()
    asked = iter([False, False, True])
    with shipped(tmp_path, cluster) as ship:
        assert ship.ship(lambda: next(asked, True)) == 0
    assert load_position(tmp_path) is None


def test_compaction_leaves_what_is_not_shipped_yet(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(5))
    with shipped(tmp_path, cluster, remove=False) as ship:
        ship.ship()
    fill(tmp_path, range(5, 10))
    result = compact(tmp_path, DiskStorage(tmp_path), 1e6)
    assert (result.records, result.held) == (5, 1)


def test_one_spool_has_one_shipper(tmp_path: Path, cluster: Cluster) -> None:
    with shipped(tmp_path, cluster), pytest.raises(UnavailableError):
        shipped(tmp_path, cluster)


def test_a_child_of_a_reader_makes_a_consumer_of_its_own(tmp_path: Path, cluster: Cluster) -> None:
    fill(tmp_path, range(5))
    with shipped(tmp_path, cluster) as ship:
        ship.ship()
    reader = LogReader(f"kafka://{cluster.brokers}/calls", {})
    assert sum(map(len, reader.poll().records.values())) == 5
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if sum(map(len, reader.poll().records.values())) == 5 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "url", ["kafka://broker:1", "kafka://a:b@broker/t", "kafka:///t", "kafka://b/t?x=1", "kafka://b/a/b"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_address(url)
    assert "a:b" not in str(refused.value)


def test_settings_come_from_a_file_and_a_broken_line_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# ours\nsasl.username=me\n")
    address = parse_address("kafka://b:1,c:2/t?group=g")
    assert address == Address("b:1,c:2", "t", "g")
    assert client_settings(address, {"MLOBS_KAFKA_CONFIG": str(file)})["sasl.username"] == "me"
    file.write_text("hidden-word\n")
    with pytest.raises(ConfigError) as refused:
        client_settings(address, {"MLOBS_KAFKA_CONFIG": str(file)})
    assert "hidden-word" not in str(refused.value)


def test_the_command_ships_what_is_there_and_says_when_no_broker_answers(
    tmp_path: Path, cluster: Cluster
) -> None:
    from typer.testing import CliRunner

    from mlobs.cli import app

    def run(*args: str) -> Any:
        to = f"kafka://{cluster.brokers}/calls"
        return CliRunner().invoke(app, ["log", "ship", str(tmp_path), "--to", to, *args])

    fill(tmp_path, range(5))
    cluster.down()
    assert run("--wait", "0.3").exit_code == 3
    cluster.up()
    done = run("--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"delivered": 6, "dead_letters": 0, "queued": 0}
