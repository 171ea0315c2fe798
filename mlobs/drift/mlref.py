"""The reference file (`.mlref`): see `codec` for the frame. An edge: it writes and reads files.

The look-up tables are derived again on reading; the id is a hash of the content, so a file that was changed
is another reference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mlobs.drift.checks import DayShares
from mlobs.drift.codec import MISFITS, floating_out, frame, refuse, state_in, state_out, unframe
from mlobs.drift.grid import grid_of
from mlobs.drift.reference import Reference, Slicing, seal
from mlobs.drift.spec import ColumnSpec, Spec
from mlobs.errors import UnavailableError, UnreadableError

MAGIC = b"MLREF\0"
_WHAT = "an mlobs reference (.mlref)"


def dump_reference(reference: Reference) -> bytes:
    """The file's bytes; equal references give equal bytes."""
    slicing = reference.slicing
    return frame(
        MAGIC,
        {
            "name": reference.name,
            "model_version": reference.model_version,
            "source": reference.source,
            "slicing": [slicing.day, slicing.time, slicing.window, slicing.zone, slicing.segment],
            "ignored": sorted(reference.spec.ignored),
            "block": list(reference.spec.block),
            "deep": reference.spec.deep,
            "duplicates": reference.spec.duplicates,
            "volume": reference.spec.volume,
            "freshness": reference.spec.freshness,
            "columns": [_column_out(column) for column in reference.spec.columns.values()],
            "state": state_out(reference.state),
            "floating": floating_out(reference.state),
            "days": {segment: _days_out(days) for segment, days in sorted(reference.days.items())},
        },
    )


def load_reference(data: bytes, where: str) -> Reference:
    """The reference of a file's bytes. Raises UnreadableError for broken ones, UnavailableError for a newer
    version."""
    payload = unframe(MAGIC, data, where, _WHAT)
    try:
        columns = {entry["name"]: _column_in(entry) for entry in payload["columns"]}
        days = {
            segment: DayShares(
                tuple(entry["labels"]),
                tuple(entry["rows"]),
                entry["shares"],
                tuple(entry.get("silences", ())),
            )
            for segment, entry in payload["days"].items()
        }
        spec = Spec(
            columns,
            "",
            frozenset(payload["ignored"]),
            payload["deep"],
            tuple(payload["block"]),
            payload["duplicates"],
            payload.get("volume", False),
            payload.get("freshness", False),
        )
        return seal(
            Reference(
                payload["name"],
                "",
                spec,
                state_in(payload["state"], "", payload["floating"]),
                days,
                Slicing(*payload["slicing"]),
                payload["model_version"],
                payload["source"],
            )
        )
    except MISFITS as problem:
        refuse(where, _WHAT, f"a field that does not fit ({type(problem).__name__})")


def save_reference(reference: Reference, path: str | Path) -> None:
    """Write the file whole or not at all: a temporary one beside it, synced and renamed."""
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(dump_reference(reference))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as problem:
        raise UnavailableError.of(
            str(path), "a place to write to", problem.strerror or type(problem).__name__, "check the folder"
        ) from None


def read_reference(path: str | Path) -> Reference:
    """The reference in a file. Raises UnreadableError where there is none or a broken one."""
    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        got = problem.strerror or type(problem).__name__
        raise UnreadableError.of(str(path), _WHAT, got, "build it: mlobs drift reference build") from None
    return load_reference(data, str(path))


def is_reference(path: str | Path) -> bool:
    """The file begins like a reference; False for any other or none."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _column_out(column: ColumnSpec) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "arrow": column.arrow,
        "edges": None if column.grid is None else column.grid.edges.astype("<f8").tobytes(),
        "categories": list(column.categories),
        "known": sorted(column.known),
        "rare": column.rare,
        "open_ended": column.open_ended,
        "novel": column.novel,
        "limits": column.limits,
    }


def _column_in(entry: dict[str, Any]) -> ColumnSpec:
    edges, limits = entry["edges"], entry["limits"]
    return ColumnSpec(
        entry["name"],
        entry["kind"],
        entry["arrow"],
        None if edges is None else grid_of(np.frombuffer(edges, dtype="<f8")),
        tuple(entry["categories"]),
        frozenset(entry["known"]),
        entry["rare"],
        entry["open_ended"],
        None if limits is None else (float(limits[0]), float(limits[1])),
        novel=entry.get("novel", 0.0),
    )


def _days_out(days: DayShares) -> dict[str, Any]:
    shares = {
        column: {check: list(values) for check, values in checks.items()}
        for column, checks in days.shares.items()
    }
    found = {"labels": list(days.labels), "rows": list(days.rows), "shares": shares}
    return found | {"silences": list(days.silences)} if days.silences else found
