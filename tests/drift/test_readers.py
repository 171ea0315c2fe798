"""Readers: frames through the Arrow interface, objects of a store, CSV in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from mlobs.drift import readers
from mlobs.drift.compare import compare
from mlobs.drift.readers import open_frame, open_table
from mlobs.drift.reference import build_reference
from mlobs.errors import UnreadableError, UsageError
from tests.drift.test_check_command import run

ROWS = 3000


def table(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = pa.array(np.array(["a", "b", "c"])[rng.integers(0, 3, ROWS)])
    return pa.table({"x": rng.normal(size=ROWS), "n": rng.integers(0, 50, ROWS), "w": words})


def as_pandas(made: pa.Table) -> object:
    return made.to_pandas()


def as_polars(made: pa.Table) -> object:
    return pytest.importorskip("polars").from_arrow(made)


def as_duckdb(made: pa.Table) -> object:
    duckdb = pytest.importorskip("duckdb")
    return duckdb.connect().from_arrow(made)


@pytest.mark.parametrize("make", [as_pandas, as_polars, as_duckdb, lambda made: made])
def test_frames_are_read_through_the_arrow_interface_as_often_as_asked_for(make) -> None:
    before, after = (open_frame(make(table(seed))) for seed in (1, 2))
    assert before.schema.names == ["x", "n", "w"]
    result = compare(build_reference(before.batches, "r"), after.batches(), "c")
    assert {column.verdict for column in result.columns} == {"ok"}
    assert sum(batch.num_rows for batch in after.batches()) == ROWS


def test_a_pandas_column_of_mixed_objects_is_text_and_spoils_no_other() -> None:
    frame = table(1).to_pandas()
    frame["mixed"] = [1 if row % 2 else "one" for row in range(ROWS)]
    frame = pd.concat([frame, frame[["x"]]], axis=1)
    reference = build_reference(open_frame(frame).batches, "r")
    assert reference.spec.columns["mixed"].kind == "category"
    assert reference.spec.columns["n"].kind == "number"
    assert "x" not in reference.spec.columns  # twice


def test_a_polars_column_of_categories_or_of_a_type_unknown_to_arrow_spoils_no_other() -> None:
    pl = pytest.importorskip("polars")

    def frame(names: list[str]) -> object:
        words = names * (ROWS // len(names))
        odd = pl.Series([2**100] * ROWS, dtype=pl.Int128)
        return pl.DataFrame({"w": pl.Series(words, dtype=pl.Categorical), "odd": odd, "x": range(ROWS)})

    reference = build_reference(open_frame(frame(["a", "b", "c"])).batches, "r")
    assert {name: column.kind for name, column in reference.spec.columns.items()} == {
        "w": "category", "odd": "category", "x": "number",
    }  # fmt: skip
    assert set(reference.spec.columns["w"].categories) == {"a", "b", "c"}
    result = compare(reference, open_frame(frame(["a", "b", "d"])).batches(), "c")
    assert {column.name: column.verdict for column in result.columns} == {
        "w": "drifted", "odd": "ok", "x": "ok",
    }  # fmt: skip
    alone = pl.DataFrame({"w": pl.Series(["a", "b", "c"] * (ROWS // 3), dtype=pl.Enum(["a", "b", "c"]))})
    assert compare(reference, open_frame(alone).batches(), "c").columns[0].verdict == "ok"


def test_a_stream_that_is_used_up_says_so_and_is_no_empty_table() -> None:
    source = open_frame(table(1).to_reader())
    assert sum(batch.num_rows for batch in source.batches()) == ROWS
    with pytest.raises(UsageError, match="read_all"):
        next(iter(source.batches()))


@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams_are_read_batch_by_batch_the_columns_asked_for(
    writer, tmp_path: Path
) -> None:
    path = tmp_path / "t.arrow"
    made = table(1)
    with pa.OSFile(str(path), "wb") as sink, writer(sink, made.schema) as out:
        out.write_table(made, max_chunksize=1000)
    source = open_table(path, ["n"])
    assert [(batch.num_rows, batch.schema.names) for batch in source.batches()] == [(1000, ["n"])] * 3
    assert sum(batch.num_rows for batch in open_table(path, ["gone"]).batches()) == ROWS
    assert pa.concat_tables(open_table(path).batches()).equals(made)


def test_an_arrow_stream_that_was_cut_is_unreadable_and_not_shorter(tmp_path: Path) -> None:
    path = tmp_path / "t.arrows"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table(1).schema) as out:
        out.write_table(table(1), max_chunksize=1000)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UnreadableError, match=r"t\.arrows"):
        list(open_table(path).batches())


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(UsageError, match="__arrow_c_stream__"):
        open_frame([1, 2])
    lazy = pytest.importorskip("polars").LazyFrame({"x": [1]})
    with pytest.raises(UsageError, match=r"LazyFrame; call its \.collect\(\)"):
        open_frame(lazy)


def test_an_object_of_a_store_is_read_by_row_groups_and_columns(tmp_path: Path) -> None:
    pq.write_table(table(1), tmp_path / "t.parquet", row_group_size=1000)
    source = open_table(f"file://{tmp_path}/t.parquet", ["x", "absent"])
    read = list(source.batches())
    assert [batch.num_rows for batch in read] == [1000] * 3
    assert read[0].schema.names == ["x"]
    words = ("--reference", f"file://{tmp_path}/t.parquet", "--current", str(tmp_path / "t.parquet"))
    assert run("check", *words)[0] == 0


def test_csv_comes_in_blocks_and_a_column_that_changes_its_type_is_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CSV_BLOCK", 4096)
    made = table(1)
    words = [str(value) for value in range(ROWS - 1)] + ["oops"]
    pacsv.write_csv(made.append_column("late", pa.array(words)), tmp_path / "t.csv")
    source = open_table(tmp_path / "t.csv")
    read = list(source.batches())
    assert len(read) > 10
    assert max(batch.num_rows for batch in read) < 400
    kinds = {field.name: str(field.type) for field in source.schema}
    assert kinds == {"x": "double", "n": "int64", "w": "string", "late": "string"}
    assert pa.concat_tables(read)["x"].to_pylist() == made["x"].to_pylist()


def test_the_example_of_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parents[2] / "docs" / "drift.md"
    code = guide.read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code, str(guide), "exec"), {})
    assert capsys.readouterr().out == "drifted\n"


def test_a_column_that_some_files_lack_is_neither_gone_nor_there_twice() -> None:
    reference = build_reference(open_frame(table(1)).batches, "r")
    for parts in ([table(2), table(3).drop_columns(["n"])], [table(3).drop_columns(["n"]), table(2)]):
        found = {column.name: column for column in compare(reference, parts, "c").columns}
        assert found["n"].detail == "50 % of rows come without this column"
        assert (found["n"].verdict, found["x"].verdict) == ("drifted", "ok")


def test_a_folder_in_the_place_of_a_file_names_the_way_to_read_it(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="--engine local"):
        open_table(tmp_path)
