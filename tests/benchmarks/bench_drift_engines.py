"""The local engine beside Spark on two cores, over the same files: CPU and wall seconds, start-up apart.

`python -m tests.benchmarks.bench_drift_engines [ROWS]`: 20,000,000 x 20 unless told.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlobs.drift.engines.base import Engine, FileSlice, Job, Keying
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.engines.spark import SparkEngine
from mlobs.drift.mlref import dump_reference
from mlobs.drift.reference import build_reference

FILES = 40
COLUMNS = 20


def made(folder: Path, rows: int) -> Job:
    """The files, and the job over them; every fifth column is a category."""
    rng = np.random.default_rng(0)
    each = rows // FILES
    words = np.array([f"w{number}" for number in range(50)])
    for number in range(FILES):
        columns: dict[str, object] = {"event_time": np.linspace(0, 86399, each) + 86400 * number}
        for place in range(COLUMNS):
            columns[f"x{place}"] = (
                pa.array(words[rng.integers(0, 50, each)]).dictionary_encode()
                if place % 5 == 4
                else rng.lognormal(0, 1, each)
            )
        pq.write_table(pa.table(columns), folder / f"part{number:03d}.parquet")
    first = pq.read_table(folder / "part000.parquet").drop_columns(["event_time"])
    return Job(dump_reference(build_reference(first, "bench")), Keying(time="event_time"))


def tree_cpu() -> float:
    """CPU seconds of this process, those below it, and those that they waited for."""
    parents, cpu = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended in between
            parents[int(entry)] = int(fields[1])
            cpu[int(entry)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def ours(pid: int) -> bool:
        while pid in parents:
            if pid == os.getpid():
                return True
            pid = parents[pid]
        return False

    return sum(seconds for pid, seconds in cpu.items() if ours(pid))


def timed(name: str, engine: Engine, slices: list[FileSlice], job: Job) -> None:
    """The first file apart: it pays for processes, imports and what the engine compiles."""
    for what, part in (("start-up and a file", slices[:1]), (f"{len(slices) - 1} files", slices[1:])):
        wall, cpu = time.perf_counter(), tree_cpu()
        rows = sum(outcome.rows for outcome in engine.profile(part, job))
        wall, cpu = time.perf_counter() - wall, tree_cpu() - cpu
        print(f"{name:8} {what:22} {rows:>12,} rows  {wall:8.2f} s wall  {cpu:8.2f} s CPU")


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    with tempfile.TemporaryDirectory() as folder:
        job = made(Path(folder), rows)
        engine: Engine = LocalEngine(2)
        slices = engine.slices([folder])
        timed("local", engine, slices, job)
        engine.close()
        if importlib.util.find_spec("pyspark") is None:
            print("spark    not installed: pip install '.[spark]'")
            return 0
        wall, cpu = time.perf_counter(), tree_cpu()
        engine = SparkEngine("local[2,4]")
        print(f"spark    session {time.perf_counter() - wall:.2f} s wall  {tree_cpu() - cpu:.2f} s CPU")
        timed("spark", engine, slices, job)
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
