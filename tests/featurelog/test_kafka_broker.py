"""A broker of its own process goes, comes back and forgets, the shipper is killed: nothing is lost."""

import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlobs.errors import UnavailableError
from mlobs.featurelog.cloudevents import read_event
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.ship import Shipper, load_position
from mlobs.featurelog.spool import list_segments
from tests.featurelog.helpers import column, label, opened, record
from tests.featurelog.kafkabroker import Broker
from tests.featurelog.mockkafka import mock_cluster
from tests.servers import eventually

pytestmark = [
    pytest.mark.server,
    # From Python 3.12 on a fork beside threads warns; these children are meant to be killed.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker")
    made.start()
    yield made
    made.end(signal.SIGKILL)


def shipper(folder: Path, broker: str, **overrides: Any) -> Shipper:
    return Shipper(
        folder, Address(broker, "calls", "mlobs"), {}, batch_rows=50, overrides={**QUICK, **overrides}
    )


def messages(broker: str, partitions: int) -> list[list[bytes]]:
    """What lies in each partition, in its order."""
    import confluent_kafka

    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker, "group.id": "look", "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition("calls", each, 0) for each in range(partitions)])
    found: list[list[bytes]] = [[] for _ in range(partitions)]
    ended: set[int] = set()

    def all_read() -> bool:
        for message in consumer.consume(1000, 0.2):
            if message.error() is None:
                found[message.partition()].append(message.value())
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
        return len(ended) == partitions

    eventually(all_read, "the end of every partition")
    consumer.close()
    return found


def must_hold(broker: str, acknowledged: int, partitions: int) -> None:
    """Everything acknowledged is there, each partition in order, and read once."""
    for own in messages(broker, partitions):
        told = [read_event(each) for each in own]
        first = list(dict.fromkeys((each.writer, each.number) for each in told))
        for writer in {writer for writer, _ in first}:
            numbers = [number for name, number in first if name == writer]
            assert numbers == sorted(numbers)
    reader, cursor, found = LogReader(f"kafka://{broker}/calls", {}), None, []

    def enough() -> bool:
        nonlocal cursor
        chunk = reader.poll(cursor)
        cursor = chunk.cursor
        found.extend(each for table in chunk.records.values() for each in column(table, "prediction_id"))
        assert (chunk.stats.unreadable, chunk.stats.gaps) == (0, 0) or len(found) < acknowledged
        return len(found) >= acknowledged

    eventually(enough, f"{acknowledged} records")
    assert sorted(found) == sorted(f"p{number}" for number in range(acknowledged))


def test_a_broker_that_is_restarted_under_load_gets_everything_once_and_in_order(
    tmp_path: Path, broker: Broker
) -> None:
    broker.topic(3)
    log = opened(tmp_path / "log", segment_bytes=20_000)
    ended, number = threading.Event(), 0
    with shipper(tmp_path / "log", broker.address) as ship:
        worker = threading.Thread(target=lambda: [ship.ship(ended.is_set) for _ in iter(ended.is_set, True)])
        worker.start()
        try:
            for cycle in range(3):
                for _ in range(300):
                    log.offer(record(number))
                    number += 1
                    if number == 300 * cycle + 150:
                        broker.end()
                assert log.flush(10), "the service goes on without a broker"
                broker.start()
            assert log.close(5)
            eventually(lambda: ship.ledger().delivered >= number, "the drain", timeout=60)
        finally:
            ended.set()
            worker.join(20)
        assert (ship.ledger().delivered, ship.ledger().dropped, ship.ledger().balanced) == (number, {}, True)
    must_hold(broker.address, number, 3)
    assert list_segments(tmp_path / "log") == []


def test_a_broker_that_forgot_its_producers_is_gone_on_with(tmp_path: Path, broker: Broker) -> None:
    """Kill -9 takes this broker's memory of sequence numbers, and the idempotent producer gives itself up."""
    broker.topic(1)
    log = opened(tmp_path / "log")
    with shipper(tmp_path / "log", broker.address) as ship:
        for start in (0, 100):
            for number in range(start, start + 100):
                log.offer(record(number))
            assert log.flush(10)
            if start:
                broker.end(signal.SIGKILL)
                worker = threading.Thread(target=ship.ship)
                worker.start()
                eventually(lambda: ship.ledger().queued, "a batch under way")
                broker.start()
                worker.join(60)
            else:
                ship.ship()
        assert (ship.ledger().delivered, ship.ledger().queued) == (200, 0)
    log.close(5)
    (own,) = messages(broker.address, 1)
    told = {read_event(each).data["fields"]["prediction_id"] for each in own}
    assert {f"p{number}" for number in range(100, 200)} <= told


def ship_until_killed(folder: Path, broker: str, pipe: int) -> None:
    with shipper(folder, broker) as ship:
        os.write(pipe, b".")
        while True:
            ship.ship()


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.nightly)])
def test_kill_9_of_the_shipper_at_random_points_loses_and_doubles_nothing(
    tmp_path: Path, broker: Broker, rounds: int
) -> None:
    broker.topic(2)
    rng, number, folder = random.Random(rounds), 0, tmp_path / "log"
    log = opened(folder, segment_bytes=5000)
    for _ in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                ship_until_killed(folder, broker.address, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            assert pipe.read(1) == b".", "the shipper began"
            for _ in range(rng.randrange(100, 400)):
                log.offer(record(number))
                number += 1
            assert log.flush(10)
            select.select([], [], [], rng.random() * 0.15)  # the random moment
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert log.close(5)
    with shipper(folder, broker.address) as ship:
        ship.ship()
        assert ship.ledger().delivered >= number
    must_hold(broker.address, number, 2)


def test_kill_9_of_the_command_is_gone_on_from_by_the_next(tmp_path: Path, broker: Broker) -> None:
    broker.topic(1)
    folder = tmp_path / "log"
    log = opened(folder)
    command = [
        sys.executable,
        "-m",
        "mlobs",
        "log",
        "ship",
        str(folder),
        "--to",
        f"kafka://{broker.address}/calls",
    ]
    for number in range(100):
        log.offer(record(number))
    assert log.flush(5)
    following = subprocess.Popen([*command, "--follow"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: load_position(folder), "a position", timeout=60)
        log.offer(record(100))
    finally:
        following.kill()
        following.wait()
    assert log.close(5)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    must_hold(broker.address, 101, 1)


# librdkafka's own times, divided by `scale`; an absence of 10 minutes is divided likewise.
TIMES = {
    "socket.timeout.ms": 60_000,
    "reconnect.backoff.max.ms": 10_000,
    "topic.metadata.refresh.interval.ms": 300_000,
    "metadata.max.age.ms": 900_000,
    "connections.max.idle.ms": 540_000,
}


@pytest.mark.parametrize("scale", [200, pytest.param(1, marks=pytest.mark.nightly)])
def test_ten_minutes_without_a_broker_cost_nothing(tmp_path: Path, scale: int) -> None:
    times = {name: max(20, value // scale) for name, value in TIMES.items()}
    with mock_cluster() as cluster:
        cluster.topic("calls", 2)
        log = opened(tmp_path, segment_bytes=20_000)
        with shipper(tmp_path, cluster.brokers, **times) as ship:
            log.offer(record(0))
            assert log.flush(5)
            ship.ship()
            cluster.down()
            ended = threading.Event()
            worker = threading.Thread(
                target=lambda: [ship.ship(ended.is_set) for _ in iter(ended.is_set, True)]
            )
            worker.start()
            try:
                for number in range(1, 601):  # one a second of the equivalent clock
                    log.offer(record(number))
                    select.select([], [], [], 1 / scale)
                assert ship.ledger().delivered == 1
                cluster.up()
                assert log.close(5)
                eventually(lambda: ship.ledger().delivered >= 601, "the drain", timeout=60)
            finally:
                ended.set()
                worker.join(20)
            assert (ship.ledger().delivered, ship.ledger().dropped) == (601, {})
        must_hold(cluster.brokers, 601, 2)


def test_a_child_of_the_shipping_process_does_not_ship(tmp_path: Path) -> None:
    with mock_cluster() as cluster:
        cluster.topic("calls", 1)
        log = opened(tmp_path)
        log.offer_label(label(0))
        assert log.flush(5)
        with shipper(tmp_path, cluster.brokers) as ship:
            ship.ship()
            child = os.fork()
            if child == 0:
                try:
                    with pytest.raises(UnavailableError, match="a child of it"):
                        ship.ship()
                    ship.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            log.offer(record(0))
            assert log.close(5)
            assert ship.ship() == 1, "the parent goes on"
            with pytest.raises(UnavailableError, match="another that runs"):
                shipper(tmp_path, cluster.brokers)
