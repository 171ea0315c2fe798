"""A slice as batches, on disk or in an object store: see `readers`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mlobs.drift.readers import open_table


def schema_of(path: str) -> pa.Schema:
    """Columns of a file or object. Raises UnreadableError as `readers.open_table`."""
    return open_table(path).schema


def batches_of(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Its rows, row group by row group, only the ranges of the columns asked for."""
    yield from open_table(path, columns).batches()
