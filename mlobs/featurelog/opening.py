"""Opens a feature log for writing: what it is given is checked whole before anything is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mlobs.errors import ConfigError, Problem, shown
from mlobs.featurelog.keys import BLAKE2B, Keyring, configured_keys
from mlobs.featurelog.maskschema import MaskSchema, load_schema
from mlobs.featurelog.writer import FeatureLog
from mlobs.settings import MaskSettings

DURABILITIES: Final = ("memory", "os", "disk")


def open_log(
    destination: str,
    *,
    service: str,
    mask: MaskSettings | None = None,
    durability: str = "os",
    clock: Callable[[], float] = time.time,
    commit_interval: float = 0.2,
    max_records: int = 20_000,
    max_bytes: int = 64 << 20,
    segment_bytes: int = 64 << 20,
    segment_seconds: float = 60.0,
    reserve_bytes: int = 64 << 20,
    environ: Mapping[str, str] = os.environ,
) -> FeatureLog:
    """The feature log at `destination` (a directory), with its thread running.

    `max_records` and roughly `max_bytes` bound the buffer; `reserve_bytes` of the disk are left free. A
    broken destination, durability, schema or key raises ConfigError before anything is written; a disk that
    is full or read-only does not raise: it is tried again, and what is lost meanwhile is counted.
    """
    mask = mask or MaskSettings()
    problems: list[Problem] = []
    folder = _folder(destination, problems)
    if durability not in DURABILITIES:
        problems.append(
            Problem("durability", "memory, os or disk", shown(durability), "os keeps all but a power cut")
        )
    schema: MaskSchema | None = None
    keys: Keyring | None = None
    try:
        schema = load_schema(mask.schema) if mask.schema else None
    except ConfigError as problem:
        problems.extend(problem.problems)
    try:
        keys = configured_keys(mask.key_file, environ, schema.algorithm if schema else BLAKE2B)
    except ConfigError as problem:
        problems.extend(problem.problems)
    if problems:
        raise ConfigError(*problems)
    return FeatureLog(
        folder,
        service=service,
        schema=schema,
        keys=keys,
        durability=durability,
        clock=clock,
        commit_interval=1.0 if durability == "memory" else commit_interval,
        max_records=max_records,
        max_bytes=max_bytes,
        spool_options={
            "segment_bytes": segment_bytes,
            "segment_seconds": segment_seconds,
            "reserve_bytes": reserve_bytes,
        },
    )


def _folder(destination: str, problems: list[Problem]) -> Path:
    scheme = destination.split("://", 1)[0] if "://" in destination else "file"
    if scheme != "file":
        problems.append(
            Problem(
                "feature_log",
                "a directory",
                shown(destination),
                "name a directory; `mlobs log compact` moves it to s3://, `mlobs log ship` to kafka://",
            )
        )
    path = Path(destination.removeprefix("file://"))
    if path.exists() and not path.is_dir():
        problems.append(Problem("feature_log", "a directory", f"the file {path}", "name a directory"))
    return path
