"""A batch as its consumers need it: rows, names, and one column at a time.

A row group of Parquet is decoded column by column, each as it is asked for, so that memory is that of a
column and not of a row group; a table in memory is such a batch as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mlobs.errors import UnreadableError, shown


class Columns(Protocol):
    """What `pa.Table` has of it."""

    @property
    def num_rows(self) -> int: ...

    @property
    def schema(self) -> pa.Schema: ...

    def column(self, place: int) -> pa.ChunkedArray:
        """The column at `place` of the schema. Raises UnreadableError where its bytes are broken."""


@dataclass(frozen=True, slots=True, eq=False)
class RowGroup:
    """One row group of an open file. Good until the file is closed."""

    file: pq.ParquetFile
    group: int
    where: str
    schema: pa.Schema
    """Of the columns asked for; names are all different."""

    @property
    def num_rows(self) -> int:
        return int(self.file.metadata.row_group(self.group).num_rows)

    def column(self, place: int) -> pa.ChunkedArray:
        name = self.schema.names[place]
        return read_group(self.file, self.group, self.where, [name], threads=False).column(name)


def read_group(
    file: pq.ParquetFile, group: int, where: str, names: list[str] | None, threads: bool = True
) -> pa.Table:
    """The columns `names` of a row group, all without. Raises UnreadableError for broken bytes."""
    try:
        return file.read_row_group(group, columns=names, use_threads=threads)
    except (pa.ArrowException, OSError) as problem:
        place = f"{where}, row group {group}"
        error = UnreadableError.of(place, "intact data", shown(str(problem)), "write the file again")
        raise error from None


def lean_pool() -> None:
    """Let Arrow take its memory from jemalloc, where that is built in: what a column needed is given back and
    not kept (5 MiB less for a check). For a process of our own: it is a setting of the whole process."""
    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def as_table(batch: Columns) -> pa.Table:
    """The batch as a table in memory."""
    if isinstance(batch, RowGroup):
        return read_group(batch.file, batch.group, batch.where, batch.schema.names)
    if isinstance(batch, pa.RecordBatch):
        return pa.Table.from_batches([batch])
    if isinstance(batch, pa.Table):
        return batch
    columns = [batch.column(place) for place in range(len(batch.schema))]
    return pa.Table.from_arrays(columns, schema=batch.schema)
