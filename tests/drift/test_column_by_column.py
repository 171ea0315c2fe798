"""Parquet is decoded a column at a time: memory of a column, the result of whole row groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.codec import canonical_bytes
from mlobs.drift.columns import as_table
from mlobs.drift.compare import compare
from mlobs.drift.profile import profile
from mlobs.drift.readers import open_table
from mlobs.drift.reference import build_reference
from mlobs.drift.spec import Spec
from mlobs.drift.state import merge_all
from mlobs.errors import UnreadableError

GROUP, COLUMNS = 50_000, 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(31)
    rows = 2 * GROUP
    columns = {f"n{place}": rng.normal(size=rows) for place in range(COLUMNS)}
    words = pa.array(np.array(["a", "b", "c"])[rng.integers(0, 3, rows)])
    made = tmp_path_factory.mktemp("columns") / "t.parquet"
    pq.write_table(
        pa.table({**columns, "k": words, "a.b": columns["n0"]}),
        made,
        row_group_size=GROUP,
        write_page_checksum=True,
    )
    return made


def test_a_check_holds_a_column_and_not_a_row_group(path: Path) -> None:
    source = open_table(path)
    reference = build_reference(source.scan, "r")
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        compare(reference, source.scan(), "c")
    finally:
        pa.set_memory_pool(before)
    # A column decoded, its page, that page compressed, and the bytes as they are in the file, which count to
    # the pool since we open it: five columns, with a margin, of ten.
    assert 0 < pool.max_memory() < 5.2 * GROUP * 8


def test_columns_one_at_a_time_give_the_state_of_whole_tables(path: Path) -> None:
    source = open_table(path)
    columns = build_reference(source.scan, "r").spec.columns
    spec = Spec(columns, deep=True, block=("n0", "n1"), duplicates=True)
    ways = [merge_all([profile(batch, spec) for batch in way()], "") for way in (source.scan, source.batches)]
    assert canonical_bytes(ways[0]) == canonical_bytes(ways[1])
    assert [as_table(batch) for batch in source.scan()] == list(source.batches())


def test_a_name_that_stands_twice_is_read_whole(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "t.parquet")
    batch = next(open_table(tmp_path / "t.parquet").scan())
    assert [batch.column(place).to_pylist() for place in range(2)] == [[1.0], [2.0]]


def test_broken_bytes_of_one_column_are_told_with_their_place(path: Path, tmp_path: Path) -> None:
    raw = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(3)
    middle = chunk.data_page_offset + chunk.total_compressed_size // 4
    raw[middle : middle + 64] = bytes(64)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(raw)
    spec = build_reference(open_table(path).scan, "r").spec
    groups = open_table(broken).scan()
    profile(next(groups), spec)
    second = next(groups)
    with pytest.raises(UnreadableError, match="row group 1"):
        profile(second, spec)


def test_a_check_does_not_load_pandas(path: Path) -> None:
    program = (
        "import sys; from mlobs.drift.compare import compare; from mlobs.drift.readers import open_table;"
        "from mlobs.drift.reference import build_reference; source = open_table(sys.argv[1]);"
        "compare(build_reference(source.scan, 'r'), source.scan(), 'c'); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_file_is_closed_after_a_pass_and_after_one_that_was_given_up(tmp_path: Path) -> None:
    """It is opened by hand: see `readers._opened`."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(4000.0), "k": ["a", "b"] * 2000}), path, row_group_size=1000)
    source = open_table(path)

    def held() -> int:
        return sum(os.path.realpath(each.path) == str(path.resolve()) for each in os.scandir("/proc/self/fd"))

    for batches in (source.batches, source.scan):
        assert sum(batch.num_rows for batch in batches()) == 4000
        assert held() == 0
        given_up = batches()
        next(given_up)
        assert held() == 1
        given_up.close()
        assert held() == 0
