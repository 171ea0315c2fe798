"""Tables as batches of Arrow columns: Parquet, Arrow IPC and CSV, on disk or in an object store; frames in
memory. An edge: it opens files.

The kind of a file is told by its first bytes, not by its name. Parquet is read row group by row group, only
the columns asked for, whole or (`scan`) column by column; CSV block by block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from mlobs.drift.columns import Columns, RowGroup, read_group
from mlobs.drift.objects import Place, head_of, place_of, readable
from mlobs.errors import UnreadableError, UsageError, shown

CSV_BLOCK = 1 << 22
"""Bytes of CSV that are held at once."""
CONTINUATION = b"\xff\xff\xff\xff"
"""What every message of an Arrow stream begins with."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table that can be read again and again, batch by batch."""

    where: str
    kind: str
    schema: pa.Schema
    rows: int
    """0 where nobody knows before the end."""
    batches: Callable[[], Iterator[pa.Table]]
    columnwise: Callable[[], Iterator[Columns]] | None = None

    def scan(self) -> Iterator[Columns]:
        """The batches for whoever takes one column at a time, which costs a column's memory. Each is good
        until the next is asked for."""
        return self.batches() if self.columnwise is None else self.columnwise()


def open_table(path: str | Path, columns: Sequence[str] | None = None) -> Source:
    """The table at `path`. Raises UnreadableError (exit 2) for what is missing, broken or of another kind."""
    place = place_of(str(path))
    where, head = place.where, head_of(place)
    if not head:
        raise _unreadable(where, "a table", "an empty file", "name a Parquet, Arrow or CSV file with data")
    with readable(where):
        if head[:4] == b"PAR1":
            return _remote_parquet(place, columns) if place.remote else _parquet(where, columns)
        if head[:6] == b"ARROW1":
            return _arrow(place, columns)
        if head[:4] == CONTINUATION:
            return _arrow_stream(place, columns)
        return _csv(place, head)


def open_frame(frame: object, where: str = "a frame") -> Source:
    """A frame of pandas (2.2 on) or polars, a DuckDB relation, an Arrow table: whatever gives an Arrow stream
    (the PyCapsule interface). Raises UsageError for any other.

    It is asked for its stream once a pass; a RecordBatchReader has a single pass, and raises UsageError at
    the next. A column that Arrow has no type for (mixed objects in pandas, Int128 in polars) counts as text.
    """
    if isinstance(frame, pa.Table):
        return Source(where, "frame", frame.schema, frame.num_rows, lambda: iter([frame]))
    if isinstance(frame, pa.RecordBatchReader):
        return _once(frame, where)
    if not hasattr(frame, "__arrow_c_stream__"):
        remedy = "call its .collect()" if hasattr(frame, "collect") else "convert it to an Arrow table"
        raise UsageError.of(where, "a frame with __arrow_c_stream__", type(frame).__name__, remedy)
    try:
        schema = pa.RecordBatchReader.from_stream(frame).schema
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        table = _column_by_column(frame, where)
        return Source(where, "frame", table.schema, table.num_rows, lambda: iter([table]))

    def batches() -> Iterator[pa.Table]:
        for batch in pa.RecordBatchReader.from_stream(frame):
            yield pa.Table.from_batches([batch])

    return Source(where, "frame", schema, 0, batches)


def _once(reader: pa.RecordBatchReader, where: str) -> Source:
    """A stream that is used up when it was read: what DuckDB's `.arrow()` gives."""
    passes = [reader]

    def batches() -> Iterator[pa.Table]:
        if not passes:
            raise UsageError.of(
                where, "a table that can be read twice", "a RecordBatchReader", "give it as .read_all()"
            )
        for batch in passes.pop():
            yield pa.Table.from_batches([batch])

    return Source(where, "frame", reader.schema, 0, batches)


def _column_by_column(frame: Any, where: str) -> pa.Table:
    """A frame with a column that Arrow has no type for, or (pandas) two of one name: what does not fit is
    text."""
    names = [str(name) for name in getattr(frame, "columns", ())]
    if not names or not (hasattr(frame, "iloc") or hasattr(frame, "to_series")):
        raise UsageError.of(where, "a frame that Arrow can read", type(frame).__name__, "convert it yourself")
    arrays = []
    for place in range(len(names)):
        values = frame.iloc[:, place] if hasattr(frame, "iloc") else frame.to_series(place)
        try:
            array = pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            missing = values.isna() if hasattr(values, "isna") else values.is_null()
            words = [None if gone else str(value) for value, gone in zip(values, missing, strict=True)]
            array = pa.array(words, pa.string())
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names=names)


def _remote_parquet(place: Place, columns: Sequence[str] | None) -> Source:
    with _parquet_object(place) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows

    def batches() -> Iterator[pa.Table]:
        with readable(place.where):
            opened = _parquet_object(place)
        with opened as file:
            chosen = None if columns is None else [name for name in columns if name in schema.names]
            for group in range(file.metadata.num_row_groups):
                with readable(f"{place.where}, row group {group}"):
                    table = file.read_row_group(group, columns=chosen)
                yield table

    return Source(place.where, "parquet", schema, rows, batches)


def _parquet_object(place: Place) -> pq.ParquetFile:
    # Column chunks are fetched ahead and side by side: an object store answers slowly, but often at once.
    return pq.ParquetFile(place.file(), pre_buffer=True, page_checksum_verification=True)


@contextmanager
def _opened(where: str, texts: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A file on disk, its columns `texts` as dictionaries. Handed over open: given a path, pyarrow loads what
    tells file systems apart, 4 MiB."""
    with (
        pa.OSFile(where) as handle,
        pq.ParquetFile(handle, read_dictionary=texts, page_checksum_verification=True) as file,
    ):
        yield file


def _parquet(where: str, columns: Sequence[str] | None) -> Source:
    with _opened(where) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]

    chosen = [name for name in columns if name in schema.names] if columns else None

    def batches() -> Iterator[pa.Table]:
        with _opened(where, texts) as file:
            for group in range(file.metadata.num_row_groups):
                yield read_group(file, group, where, chosen)

    def columnwise() -> Iterator[Columns]:
        with _opened(where, texts) as file:
            found = file.schema_arrow
            asked = found if chosen is None else pa.schema([found.field(name) for name in chosen])
            for group in range(file.metadata.num_row_groups):
                yield RowGroup(file, group, where, asked)

    doubled = len(set(schema.names)) < len(schema.names)
    return Source(where, "parquet", schema, rows, batches, None if doubled else columnwise)


def _arrow(place: Place, columns: Sequence[str] | None) -> Source:
    """The file format: batch by batch, the columns asked for."""
    with ipc.open_file(place.file()) as file:
        schema = file.schema
    options = _fields(schema, columns)

    def batches() -> Iterator[pa.Table]:
        with readable(place.where), ipc.open_file(place.file(), options=options) as file:
            for at in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(at)])

    return Source(place.where, "arrow", schema, 0, batches)


def _arrow_stream(place: Place, columns: Sequence[str] | None) -> Source:
    """The stream format, as `pa.ipc.new_stream` writes it."""
    with place.raw() as source, ipc.open_stream(source) as stream:
        schema = stream.schema
    options = _fields(schema, columns)

    def batches() -> Iterator[pa.Table]:
        with readable(place.where), place.raw() as source, ipc.open_stream(source, options=options) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])

    return Source(place.where, "arrow", schema, 0, batches)


def _fields(schema: pa.Schema, columns: Sequence[str] | None) -> ipc.IpcReadOptions:
    """Read the columns asked for alone; the first where none of them is there, as rows are counted by it."""
    if columns is None or not len(schema):
        return ipc.IpcReadOptions()
    asked = [place for place, name in enumerate(schema.names) if name in columns]
    return ipc.IpcReadOptions(included_fields=asked or [0])


def _csv(place: Place, head: bytes) -> Source:
    where = place.where
    if head.startswith(b"MLREF") or place.name.endswith(".mlref"):
        remedy = "copy it here, and name it with --reference" if place.remote else "name it with --reference"
        raise _unreadable(where, "a table", "an mlobs reference or a file named so", remedy)
    if b"\0" in head and not place.name.endswith((".gz", ".bz2", ".zst")):
        raise _unreadable(
            where, "Parquet, Arrow or CSV", "a binary file of another kind", "convert it to Parquet"
        )
    as_text: set[str] = set()
    while (broken := _first_misfit(place, as_text)) is not None:
        as_text.add(broken)  # numbers are told apart later, word by word
    with _csv_stream(place, as_text) as stream:
        schema = stream.schema
    for field in schema:
        if pa.types.is_binary(field.type):
            raise _unreadable(
                where, "CSV in UTF-8", f"other bytes in column {shown(field.name)}", "save it as UTF-8"
            )

    def batches() -> Iterator[pa.Table]:
        with readable(where), _csv_stream(place, as_text) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])

    return Source(where, "csv", schema, 0, batches)


def _csv_stream(place: Place, as_text: Collection[str]) -> pacsv.CSVStreamingReader:
    options = pacsv.ConvertOptions(column_types=dict.fromkeys(as_text, pa.string()), strings_can_be_null=True)
    return pacsv.open_csv(
        place.stream(), read_options=pacsv.ReadOptions(block_size=CSV_BLOCK), convert_options=options
    )


def _first_misfit(place: Place, as_text: Collection[str]) -> str | None:
    """The first column whose values leave the type that the first block gave it; None where all fit. A pass
    over the file."""
    names: list[str] = []
    try:
        with _csv_stream(place, as_text) as stream:
            names = stream.schema.names
            for _ in stream:
                continue
        return None
    except pa.ArrowInvalid as problem:
        text = str(problem)
        column = re.search(r"column #(\d+)", text)
        if column is not None and "onversion error" in text:
            at = int(column[1])
            if at < len(names) and names[at] not in as_text:
                return names[at]
        raise _unreadable(
            place.where, "CSV with the same number of fields in every line", shown(text), "mend the line"
        ) from None


def _unreadable(where: str, expected: str, got: str, remedy: str) -> UnreadableError:
    error = UnreadableError.of(where, expected, got, remedy)
    assert isinstance(error, UnreadableError)
    return error
