"""Tables on disk as batches of Arrow columns: Parquet, Arrow IPC, CSV. An edge: it opens files.

The kind of a file is told by its first bytes, not by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from mlobs.errors import UnreadableError, shown


@dataclass(frozen=True, slots=True)
class Source:
    """A table that can be read again and again, batch by batch."""

    where: str
    kind: str
    schema: pa.Schema
    rows: int
    batches: Callable[[], Iterator[pa.Table]]


def open_table(path: str | Path, columns: Sequence[str] | None = None) -> Source:
    """The table at `path`. Raises UnreadableError (exit 2) for what is missing, broken or of another kind."""
    where = str(path)
    try:
        with open(path, "rb") as file:
            head = file.read(65536)
    except OSError as problem:
        raise _unreadable(
            where, "a readable file", problem.strerror or type(problem).__name__, "check the path"
        ) from None
    if not head:
        raise _unreadable(where, "a table", "an empty file", "name a Parquet, Arrow or CSV file with data")
    try:
        if head[:4] == b"PAR1":
            return _parquet(where, columns)
        if head[:6] == b"ARROW1":
            return _arrow(where)
        return _csv(where, head)
    except (pa.ArrowException, OSError, EOFError) as problem:
        got = shown(str(problem).split("\n")[0])
        raise _unreadable(where, "a table that can be read", got, "write the file again") from None


def _parquet(where: str, columns: Sequence[str] | None) -> Source:
    with pq.ParquetFile(where) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]

    def batches() -> Iterator[pa.Table]:
        with pq.ParquetFile(where, read_dictionary=texts, page_checksum_verification=True) as file:
            chosen = [name for name in columns if name in schema.names] if columns else None
            for group in range(file.metadata.num_row_groups):
                try:
                    yield file.read_row_group(group, columns=chosen)
                except (pa.ArrowException, OSError) as problem:
                    raise _unreadable(
                        f"{where}, row group {group}",
                        "intact data",
                        shown(str(problem)),
                        "write the file again",
                    ) from None

    return Source(where, "parquet", schema, rows, batches)


def _arrow(where: str) -> Source:
    with ipc.open_file(where) as file:
        schema = file.schema
        rows = sum(file.get_batch(place).num_rows for place in range(file.num_record_batches))

    def batches() -> Iterator[pa.Table]:
        with ipc.open_file(where) as file:
            for place in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(place)])

    return Source(where, "arrow", schema, rows, batches)


def _csv(where: str, head: bytes) -> Source:
    if b"\0" in head and not where.endswith((".gz", ".bz2", ".zst")):
        raise _unreadable(
            where, "Parquet, Arrow or CSV", "a binary file of another kind", "convert it to Parquet"
        )
    table = _read_csv(where)
    for field in table.schema:
        if pa.types.is_binary(field.type):
            raise _unreadable(
                where, "CSV in UTF-8", f"other bytes in column {shown(field.name)}", "save it as UTF-8"
            )
    return Source(where, "csv", table.schema, table.num_rows, lambda: iter([table]))


def _read_csv(where: str) -> pa.Table:
    try:
        return pacsv.read_csv(where, convert_options=pacsv.ConvertOptions(strings_can_be_null=True))
    except pa.ArrowInvalid as problem:
        text = str(problem)
        if "onversion error" not in text:
            raise _unreadable(
                where, "CSV with the same number of fields in every line", shown(text), "mend the line"
            ) from None
    # A column changes its kind after the first block: read everything as text, numbers are told apart later.
    names = pacsv.open_csv(where).schema.names
    options = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
    return pacsv.read_csv(where, convert_options=options)


def _unreadable(where: str, expected: str, got: str, remedy: str) -> UnreadableError:
    error = UnreadableError.of(where, expected, got, remedy)
    assert isinstance(error, UnreadableError)
    return error
