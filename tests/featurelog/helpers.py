"""Records to offer and a way to read back all that is there."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from mlobs.featurelog.opening import open_log
from mlobs.featurelog.reader import Chunk, LogReader
from mlobs.featurelog.writer import FeatureLog
from mlobs.records import FeatureRecord, LabelRecord

KEY = "0123456789abcdef0123456789abcdef"
ENVIRON = {"MLOBS_HASH_KEY": KEY}


def record(number: int = 0, features: Any = None, **fields: Any) -> FeatureRecord:
    values: dict[str, Any] = {
        "event_id": "",
        "prediction_id": f"p{number}",
        "event_time": 1000.0 + number,
        "service": "fraud-api",
        "model": "fraud",
        "model_version": "1",
        "features": {"amount": float(number), "country": "DE"} if features is None else features,
        "prediction": 0.5,
        "decision": "deny",
        "outcome": "ok",
        "duration_s": 0.01,
        "stage_durations_s": {"inference": 0.005},
    }
    return FeatureRecord(**{**values, **fields})


def label(number: int = 0, value: Any = 1, **fields: Any) -> LabelRecord:
    return LabelRecord(**{"event_id": "", "prediction_id": f"p{number}", "label": value,
                          "event_time": 2000.0 + number, "service": "fraud-api", **fields})  # fmt: skip


def opened(folder: Path, **options: Any) -> FeatureLog:
    options.setdefault("environ", ENVIRON)
    options.setdefault("commit_interval", 0.01)
    options.setdefault("reserve_bytes", 0)
    return open_log(str(folder), service="fraud-api", **options)


def read_all(folder: Path, limit: int = 1_000_000) -> Chunk:
    return LogReader(folder).poll(None, limit)


def rows(chunk: Chunk, model: str = "fraud") -> list[dict[str, Any]]:
    table = chunk.records.get(model)
    return [] if table is None else table.to_pylist()


def features_of(chunk: Chunk, model: str = "fraud") -> list[dict[str, Any]]:
    return [row["features"] for row in rows(chunk, model)]


def column(table: pa.Table, name: str) -> list[Any]:
    return table.column(name).to_pylist()
