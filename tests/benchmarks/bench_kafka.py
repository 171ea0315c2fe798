"""Drain of a full spool to Kafka while 5,000 records a second arrive from another process.

30 features. The broker is librdkafka's mock, in this process: its CPU is in the figures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlobs.featurelog.kafka import Address
from mlobs.featurelog.opening import open_log
from mlobs.featurelog.ship import Shipper
from tests.benchmarks.bench_featurelog import KEY, record
from tests.featurelog.mockkafka import mock_cluster

RECORDS = 200_000
ARRIVING = 5_000


def fill(folder: str, count: int, rate: float) -> None:
    """`count` records at `rate` a second; 0.0 is as fast as they go."""
    log = open_log(
        folder, service="fraud-api", environ={"MLOBS_HASH_KEY": KEY}, max_records=count + 1, max_bytes=1 << 33
    )
    few, begin = [record(number) for number in range(500)], time.monotonic()
    for number in range(count // len(few)):
        for one in few:
            log.offer(one)
        if rate:
            time.sleep(max(0.0, begin + (number + 1) * len(few) / rate - time.monotonic()))
    if not log.close(120):
        raise SystemExit("the records did not get into the spool")


def main() -> int:
    with tempfile.TemporaryDirectory() as name, mock_cluster() as cluster:
        cluster.topic("calls", 4)
        fill(name, RECORDS, 0.0)
        beside = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bench_kafka", name])
        try:
            with Shipper(Path(name), Address(cluster.brokers, "calls", "mlobs"), {}) as shipper:
                cpu, wall = time.process_time(), time.perf_counter()
                while shipper.ledger().delivered < RECORDS:
                    shipper.ship(lambda: shipper.ledger().delivered >= RECORDS)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                done = shipper.ledger().delivered
                print(f"drain to Kafka  {done / wall:8,.0f} a second, {done / cpu:,.0f} a CPU second "
                      f"(goal >= 25,000)")  # fmt: skip
        finally:
            beside.terminate()
            beside.wait()
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fill(sys.argv[1], 60 * ARRIVING, ARRIVING)
    else:
        sys.exit(main())
