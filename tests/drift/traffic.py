"""Made-up traffic for the drift tests: seeded tables, feature-log chunks, a scripted log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mlobs.drift.loop import Chunk

DAY = 86400.0


def day_table(day: int, rows: int = 400, seed: int = 0, **changed: object) -> pa.Table:
    """One day of a model's features. `changed` replaces whole columns."""
    rng = np.random.default_rng(1000 * seed + day)
    columns: dict[str, object] = {
        "amount": rng.lognormal(3, 1, rows),
        "temp": rng.normal(40, 8, rows).clip(15, 65),
        "country": rng.choice(["de", "fr", "us"], rows, p=[0.5, 0.3, 0.2]),
        "gust": np.full(rows, 7.0),
    }
    columns |= changed
    return pa.table(columns)


def reference_table(days: int = 20, rows: int = 400) -> pa.Table:
    parts = []
    for day in range(days):
        table = day_table(day, rows, seed=7)
        parts.append(table.append_column("day", pa.array([f"d{day:02d}"] * rows)))
    return pa.concat_tables(parts)


def records(
    features: pa.Table,
    start: float,
    version: str = "v1",
    segment: str | None = None,
    weights: np.ndarray | None = None,
) -> pa.Table:
    """Feature-log rows of `features`, spread evenly over the day that begins at `start`."""
    rows = features.num_rows
    arrays = [column.combine_chunks() for column in features.columns]
    return pa.table(
        {
            "event_time": start + np.linspace(0, DAY - 1, rows),
            "model_version": pa.array([version] * rows),
            "segment": pa.array([segment] * rows, pa.string()),
            "weight": np.ones(rows) if weights is None else weights,
            "features": pa.StructArray.from_arrays(arrays, names=features.schema.names),
        }
    )


@dataclass
class ScriptedChunk:
    records: dict[str, pa.Table]
    cursor: bytes
    more: bool = False


@dataclass
class ScriptedLog:
    """A log of chunks; the cursor is the number of chunks that were read."""

    chunks: list[dict[str, pa.Table]] = field(default_factory=list)

    def add(self, model: str, table: pa.Table) -> None:
        self.chunks.append({model: table})

    def poll(self, cursor: bytes | None = None, limit: int = 0) -> Chunk:
        read = int(cursor or b"0")
        if read >= len(self.chunks):
            return ScriptedChunk({}, str(read).encode())
        return ScriptedChunk(self.chunks[read], str(read + 1).encode(), read + 1 < len(self.chunks))

    def close(self, cursor: bytes | None = None) -> None:
        """It holds nothing."""
