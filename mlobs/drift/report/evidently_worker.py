"""The process that draws evidently's report:
`python -m mlobs.drift.report.evidently_worker REFERENCE CURRENT OUTPUT [COLUMN...]`."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa

from mlobs.drift.readers import open_table
from mlobs.errors import MlobsError


def draw(reference: str, current: str, output: str, columns: list[str]) -> None:
    """Read both tables as pandas frames and save evidently's default drift report."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    frames = [_frame(path, columns) for path in (current, reference)]
    Report([DataDriftPreset()]).run(*frames).save_html(output)


def _frame(path: str, columns: list[str]) -> Any:
    source = open_table(path, columns or None)
    table = pa.concat_tables(list(source.batches()), promote_options="default")
    chosen = [name for name in columns if name in table.schema.names]
    return (table.select(chosen) if columns else table).to_pandas()


if __name__ == "__main__":
    try:
        draw(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    except MlobsError as problem:
        sys.exit(str(problem))
