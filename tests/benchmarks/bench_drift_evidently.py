"""Drift beside evidently's default report, each in a process and environment of its own. CPU seconds.

python tests/benchmarks/bench_drift_evidently.py PYTHON [ROWS ...]     (nox -s evidently makes PYTHON)

PYTHON has evidently and pandas<3. Both sides read the same Parquet files; what is timed is the work on tables
in memory (ours: against a stored reference), and for ours the whole way from the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from mlobs.drift.cells import yardstick
from mlobs.drift.compare import compare
from mlobs.drift.profile import profile
from mlobs.drift.readers import open_table
from mlobs.drift.reference import build_reference
from mlobs.drift.score import ALL_STATISTICS, score
from tests.benchmarks.bench_drift import cpu, table

SIZES = (10_000, 100_000, 1_000_000)
PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
before, after = (pd.read_parquet(path) for path in sys.argv[1:3])
start = time.process_time()
Report([DataDriftPreset()]).run(after, before)
report = time.process_time() - start
from scipy import stats
from scipy.spatial.distance import jensenshannon
import numpy as np
start = time.process_time()
for name in before.columns:
    one, other = before[name], after[name]
    if one.dtype == object:
        words = one.value_counts(normalize=True), other.value_counts(normalize=True)
        joined = words[0].index.union(words[1].index)
        jensenshannon(*(each.reindex(joined, fill_value=0.0) for each in words))
    elif len(one) > 1000:
        stats.wasserstein_distance(one, other) / max(one.std(), 1e-9)
    else:
        stats.ks_2samp(one, other)
bare = time.process_time() - start
print(json.dumps({"report": report, "bare": bare}))
"""


def peer(python: str, paths: list[str]) -> dict[str, float]:
    done = subprocess.run([python, "-c", PEER, *paths], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(python: str, sizes: list[int]) -> None:
    print(f"{'rows x 50':>12}  {'window':>9}  {'from file':>9}  {'decode':>9}  {'report':>9}  {'bare':>9}"
          "   report/window  bare/window  report/file")  # fmt: skip
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder) / f"{name}.parquet") for name in "ab"]
            for seed, path in enumerate(paths):
                pq.write_table(table(rows, 40, 10, seed), path, row_group_size=128 * 1024)
            reference = build_reference(open_table(paths[0]).scan, "a")
            stick = yardstick(reference.state, reference.spec)
            current = pq.read_table(paths[1], read_dictionary=[f"c{place}" for place in range(10)])
            times = max(1, 200_000 // rows)
            window = cpu(
                lambda now=current, stick=stick: score(
                    stick, profile(now, stick.spec), stick.spec, ALL_STATISTICS
                ),
                times,
            )
            whole = cpu(lambda b=paths[1], known=reference: compare(known, open_table(b).scan(), "b"))
            decode = cpu(lambda b=paths[1]: list(open_table(b).batches()))
            theirs = peer(python, paths)
        report, bare = theirs["report"], theirs["bare"]
        print(
            f"{rows:12,}  {window:9.4f}  {whole:9.3f}  {decode:9.3f}  {report:9.2f}  {bare:9.3f}   "
            f"{report / window:12.0f}x  {bare / window:10.1f}x  {report / whole:10.0f}x",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(print("needs the Python of an environment with evidently: nox -s evidently"))
    began = time.monotonic()
    main(sys.argv[1], [int(word) for word in sys.argv[2:]] or list(SIZES))
    print(f"{time.monotonic() - began:.0f} s")
