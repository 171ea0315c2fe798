"""Feature log: hand-over, spool, Parquet and sizes, beside stdlib JSON lines with the same masking.

30 features, 3 of them text that is hashed. Every 2,000th record is the same, which flatters Parquet's size.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlobs.featurelog.compact import compact
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.storage import DiskStorage
from mlobs.featurelog.writer import open_log
from mlobs.records import FeatureRecord
from tests.benchmarks.figures import Row, show

KEY = "0123456789abcdef0123456789abcdef"
RECORDS = 100_000


def record(number: int) -> FeatureRecord:
    features: dict[str, Any] = {f"feature_{place}": number * 0.37 + place for place in range(27)}
    features |= {"email": f"user{number}@example.org", "phone": f"+49170{number:07d}"}
    features["device"] = f"d{number % 5000}"
    return FeatureRecord(
        event_id="",
        prediction_id=f"{number:032x}",
        event_time=1.79e9 + number / 5000,
        service="fraud-api",
        model="fraud",
        model_version="2026-11-01",
        features=features,
        prediction=0.02,
        decision="allow",
        outcome="ok",
        duration_s=0.012,
        stage_durations_s={"feature_read": 0.003, "inference": 0.006},
        entity_key=f"customer {number % 9999}",
        weight=100.0,
    )


def json_line(one: FeatureRecord) -> bytes:
    """What a careful user writes: the same masking with hmac, one JSON line."""
    fields = one._asdict()
    features = dict(one.features)
    for name in ("email", "phone", "device"):
        features[name] = hmac.new(KEY.encode(), features[name].encode(), hashlib.sha256).hexdigest()
    fields["entity_key"] = hmac.new(KEY.encode(), str(one.entity_key).encode(), hashlib.sha256).hexdigest()
    return json.dumps({**fields, "features": features}).encode() + b"\n"


def main() -> int:
    few = [record(number) for number in range(2000)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = open_log(
            name, service="fraud-api", environ={"MLOBS_HASH_KEY": KEY}, commit_interval=3600.0,
            max_records=RECORDS + 1, max_bytes=1 << 32,
        )  # fmt: skip
        per_offer = []
        for _ in range(RECORDS // len(few)):
            begin = time.perf_counter()
            for one in few:
                log.offer(one)
            per_offer.append((time.perf_counter() - begin) / len(few))
        begin = time.process_time()
        log.flush(120)
        spool = time.process_time() - begin
        log.close(10)
        assert log.ledger().delivered == RECORDS
        bytes_spool = sum(path.stat().st_size for path in (folder / "spool").iterdir()) / RECORDS
        begin, wall = time.process_time(), time.perf_counter()
        compact(folder, DiskStorage(folder), 1.79e9)
        parquet, parquet_wall = time.process_time() - begin, time.perf_counter() - wall
        bytes_lake = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / RECORDS
        begin = time.perf_counter()
        assert LogReader(folder).poll(None, RECORDS * 2).stats.records == RECORDS
        read = time.perf_counter() - begin
    begin = time.process_time()
    lines = [json_line(one) for one in few]
    per_json = (time.process_time() - begin) / len(few)
    print(f"hand-over            {min(per_offer) * 1e6:8.2f} us a record on the request thread (goal <= 2)")
    print(f"into the spool       {RECORDS / spool:8,.0f} records a CPU second, masked (goal >= 50,000)")
    rate = f"{RECORDS / parquet_wall:8,.0f} rows a second, {RECORDS / parquet:,.0f} a CPU second"
    print(f"spool to Parquet     {rate} (goal >= 200,000)")
    print(f"lake to columns      {RECORDS / read:8,.0f} rows a second")
    return show(
        "us and bytes a record; the peer is json with hmac",
        [
            Row("mask and encode, us", spool / RECORDS * 1e6, per_json * 1e6, 1.0),
            Row("bytes in the spool", bytes_spool, sum(map(len, lines)) / len(lines), 1.0),
            Row("bytes in Parquet", bytes_lake, sum(map(len, lines)) / len(lines), 0.5),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
