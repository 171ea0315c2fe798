"""Memory of a check over its import, by rows, in MiB, beside a row group.

One process each, set up as the command does it; Linux.

python tests/benchmarks/bench_drift_memory.py [ROWS ...]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP = 128 * 1024
COLUMNS = 10
SIZES = (100_000, 1_000_000, 10_000_000)
CHECK = """
import sys
from pathlib import Path
import pyarrow as pa
from mlobs.drift.columns import lean_pool
from mlobs.drift.compare import compare
from mlobs.drift.mlref import read_reference
from mlobs.drift.readers import open_table
lean_pool()
known = read_reference(sys.argv[1])
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
compare(known, open_table(sys.argv[2]).scan(), "c")
print((peak() - before) / 1024)
"""


def write(path: Path, rows: int) -> None:
    rng = np.random.default_rng(rows)
    schema = pa.schema([(f"n{place}", pa.float64()) for place in range(COLUMNS)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            size = min(GROUP, rows - start)
            columns = [rng.normal(size=size) for _ in range(COLUMNS)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP)


def main(sizes: list[int]) -> None:
    from mlobs.drift.mlref import save_reference
    from mlobs.drift.readers import open_table
    from mlobs.drift.reference import build_reference

    group = GROUP * COLUMNS * 8 / 2**20
    with tempfile.TemporaryDirectory() as folder:
        known, path = Path(folder) / "r.mlref", Path(folder) / "t.parquet"
        write(path, 100_000)
        save_reference(build_reference(open_table(path).batches, "r"), known)
        print(f"a row group of {GROUP:,} x {COLUMNS} holds {group:.0f} MiB")
        for rows in sizes:
            write(path, rows)
            done = subprocess.run(
                [sys.executable, "-c", CHECK, str(known), str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            used = float(done.stdout)
            print(
                f"{rows:12,} rows  {used:7.1f} MiB over the import  {used / group:5.1f} row groups",
                flush=True,
            )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(SIZES))
