"""The monitor on a Kafka topic: its offsets stand in the transaction of what it made of the records."""

import os
import random
import select
import signal
import traceback
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func
from sqlalchemy import select as chosen

from mlobs.drift import loop, tables
from mlobs.drift.loop import Chunk, DriftStage
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.ship import Shipper
from mlobs.settings import DriftSettings, ModelSettings, Settings
from mlobs.store import open_store
from tests.featurelog.helpers import opened, record
from tests.featurelog.kafkabroker import Broker
from tests.servers import eventually

ROUNDS, EACH = 4, 200


class Telling:
    """The reader of the topic; tells of each chunk, just before it is worked."""

    def __init__(self, url: str, pipe: int) -> None:
        self._reader, self._pipe = LogReader(url, {}), pipe

    def poll(self, cursor: bytes | None = None, limit: int = 0) -> Chunk:
        chunk = self._reader.poll(cursor, limit)
        if self._pipe >= 0:
            os.write(self._pipe, b".")
        return chunk


def stage_on(folder: Path, broker: Broker, pipe: int = -1) -> DriftStage:
    settings = Settings(
        "fraud-api",
        models=(ModelSettings("fraud"),),
        drift=DriftSettings(window=86400.0),
        clock="driven",
    )
    store = open_store(f"sqlite:///{folder}/state.db", [tables.SCHEMA])
    source = Telling(f"kafka://{broker.address}/calls", pipe)
    return DriftStage(settings, store, CollectorRegistry(), source)


def tick_until_killed(folder: Path, broker: Broker, pipe: int) -> None:
    stage = stage_on(folder, broker, pipe)
    while True:
        stage.tick(2000.0)


@pytest.mark.server
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_monitor_that_is_killed_at_random_counts_every_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "POLL_ROWS", 15)  # several transactions a tick
    broker, rng = Broker(tmp_path / "broker"), random.Random(3)
    broker.start()
    try:
        broker.topic(3)
        log = opened(tmp_path / "log")
        for round_ in range(ROUNDS):
            for number in range(round_ * EACH, (round_ + 1) * EACH):
                log.offer(record(number))
            assert log.flush(5)
            with Shipper(tmp_path / "log", Address(broker.address, "calls", "t"), {}) as ship:
                ship.ship()
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    tick_until_killed(tmp_path, broker, writing)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as pipe:
                for _ in range(rng.randrange(2, 8)):
                    assert pipe.read(1) == b"."
                select.select([], [], [], rng.random() * 0.03)  # the random moment
                os.kill(child, signal.SIGKILL)
                assert os.waitpid(child, 0)[1] == signal.SIGKILL
        log.close(5)
        stage = stage_on(tmp_path, broker)
        eventually(lambda: stage.tick(2000.0) and stage.ledger().offered >= ROUNDS * EACH, "every record")
        stage.tick(2000.0)
        with stage.store.read() as connection:
            rows = connection.execute(chosen(func.sum(tables.open_windows.c.rows))).scalar_one()
        stage.store.close()
        ledger = stage.ledger()
        assert (ledger.offered, ledger.balanced, rows) == (ROUNDS * EACH, True, ROUNDS * EACH)
    finally:
        broker.end(signal.SIGKILL)
