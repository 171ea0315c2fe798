"""A slice as batches: files through `readers`, objects of a store as Parquet by ranges. An edge: it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from mlobs.drift.readers import open_table
from mlobs.errors import UnreadableError, shown


def columns_of(path: str) -> list[str]:
    """Names of the columns of a file or object. Raises UnreadableError as `readers.open_table`."""
    if "://" not in path:
        return list(open_table(path).schema.names)
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def batches_of(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Its rows, row group by row group, only the ranges of the columns asked for."""
    if "://" not in path:
        yield from open_table(path, columns).batches()
        return
    with _opened(path) as file:
        for group in range(file.metadata.num_row_groups):
            try:
                yield file.read_row_group(group, columns=list(columns))
            except (pa.ArrowException, OSError) as problem:
                raise _unreadable(f"{path}, row group {group}", problem) from None


def _opened(path: str) -> pq.ParquetFile:
    try:
        system, inner = fs.FileSystem.from_uri(path)
        # Column chunks are fetched ahead and side by side: an object store answers slowly, but often at once.
        return pq.ParquetFile(system.open_input_file(inner), pre_buffer=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as problem:
        raise _unreadable(path, problem) from None


def _unreadable(where: str, problem: Exception) -> Exception:
    got = shown(str(problem).split("\n")[0])
    return UnreadableError.of(where, "a Parquet object that can be read", got, "check rights; write it again")
