"""`drift check` beside scipy's tests on the same columns; a window against a stored reference. CPU seconds.

python tests/benchmarks/bench_drift.py [ROWS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from mlobs.drift.cells import yardstick
from mlobs.drift.codec import dump_state
from mlobs.drift.compare import compare
from mlobs.drift.profile import profile
from mlobs.drift.readers import open_table
from mlobs.drift.reference import build_reference
from mlobs.drift.score import ALL_STATISTICS, score
from mlobs.drift.state import merge


def table(rows: int, numbers: int, categories: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    laws = (
        lambda: rng.normal(size=rows),
        lambda: rng.lognormal(size=rows),
        lambda: rng.random(rows),
        lambda: rng.integers(0, 100, rows).astype(float),
    )
    words = np.array([f"category {place}" for place in range(30)])
    columns: dict[str, object] = {f"n{place}": laws[place % 4]() for place in range(numbers)}
    columns |= {f"c{place}": pa.array(words[rng.integers(0, 30, rows)]) for place in range(categories)}
    return pa.table(columns)


def cpu(work: Callable[[], object], times: int = 1) -> float:
    work()
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def scipy_tests(before: pa.Table, after: pa.Table) -> None:
    for name in before.schema.names:
        if name.startswith("n"):
            one, other = before[name].to_numpy(), after[name].to_numpy()
            stats.ks_2samp(one, other, method="asymp")
            stats.wasserstein_distance(one, other)
            continue
        counts = [
            {entry["values"]: entry["counts"] for entry in each[name].value_counts().to_pylist()}
            for each in (before, after)
        ]
        words = sorted(counts[0] | counts[1])
        stats.chi2_contingency([[c.get(word, 0) for word in words] for c in counts])


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{name}.parquet") for name in "ab"]
        for seed, path in enumerate(paths):
            pq.write_table(table(rows, 16, 4, seed), path, row_group_size=128 * 1024)
        reference = build_reference(open_table(paths[0]).scan, "a")
        build = cpu(lambda: build_reference(open_table(paths[0]).scan, "a"))
        check = cpu(lambda: compare(reference, open_table(paths[1]).scan(), "b"))
        decode = cpu(lambda: list(open_table(paths[1]).batches()))
        tables = [pq.read_table(path) for path in paths]
        peer = cpu(lambda: scipy_tests(*tables))
    print(f"{rows:,} rows x 20 columns (16 numbers, 4 categories), CPU seconds")
    for name, seconds in (
        ("drift check against a stored reference", check),
        ("drift check with the reference built on the way", build + check),
        ("bare Parquet decode of the current table", decode),
        ("scipy ks_2samp, wasserstein_distance, chi2, in memory", peer),
    ):
        print(f"  {name:55s} {seconds:8.3f}   {peer / seconds:6.1f}x scipy   {seconds / decode:5.1f}x decode")
    small = table(10_000, 40, 10, 2)
    known = build_reference(table(10_000, 40, 10, 3), "w")
    stick = yardstick(known.state, known.spec)
    state = profile(small, known.spec)
    window = cpu(lambda: score(stick, profile(small, known.spec), known.spec, ALL_STATISTICS), 20)
    print("window of 10,000 x 50 against a stored reference")
    merging = cpu(lambda: merge(state, state), 50)
    print(f"  profile and seven statistics {window * 1e3:.1f} ms; merge {merging * 1e3:.2f} ms")
    print(f"  state {len(dump_state(state)) / 1024:.0f} KiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
