"""Bytes of a reference (`.mlref`) and of a window's state: versioned, checksummed, nothing that could run.

    b"MLREF\\0" | version u16 | length u64 | payload: zlib over msgpack | CRC-32 of the payload

Arrays travel as little-endian int64 or float64. The look-up tables are derived again on reading.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mlobs.drift.checks import DayShares
from mlobs.drift.grid import grid_of
from mlobs.drift.reference import Reference, Slicing, seal
from mlobs.drift.spec import ColumnSpec, Spec
from mlobs.drift.state import ColumnCounts, State, Stratum
from mlobs.errors import UnavailableError, UnreadableError

MAGIC = b"MLREF\0"
VERSION = 1
_HEAD = struct.Struct("<6sHQ")
_GREATEST = 1 << 30
"""A payload that unpacks to more is refused: no file of ours comes near it."""


def dump_reference(reference: Reference) -> bytes:
    """The file's bytes; equal references give equal bytes."""
    slicing = reference.slicing
    return _frame(
        {
            "name": reference.name,
            "model_version": reference.model_version,
            "source": reference.source,
            "slicing": [slicing.day, slicing.time, slicing.window, slicing.zone, slicing.segment],
            "ignored": sorted(reference.spec.ignored),
            "columns": [_column_out(column) for column in reference.spec.columns.values()],
            "state": _state_out(reference.state),
            "days": {
                segment: {
                    "labels": list(days.labels),
                    "rows": list(days.rows),
                    "shares": {
                        c: {k: list(v) for k, v in checks.items()} for c, checks in days.shares.items()
                    },
                }
                for segment, days in sorted(reference.days.items())
            },
        }
    )


def load_reference(data: bytes, where: str) -> Reference:
    """The reference of a file's bytes. Raises UnreadableError for broken ones, UnavailableError for a newer
    version.
    """
    payload = _unframe(data, where)
    try:
        columns = {entry["name"]: _column_in(entry) for entry in payload["columns"]}
        days = {
            segment: DayShares(tuple(entry["labels"]), tuple(entry["rows"]), entry["shares"])
            for segment, entry in payload["days"].items()
        }
        return seal(
            Reference(
                payload["name"],
                "",
                Spec(columns, "", frozenset(payload["ignored"])),
                _state_in(payload["state"]),
                days,
                Slicing(*payload["slicing"]),
                payload["model_version"],
                payload["source"],
            )
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise _broken(where, f"a field that does not fit ({type(problem).__name__})") from None


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
        raise UnreadableError.of(
            str(path), "an mlobs reference (.mlref)", problem.strerror or type(problem).__name__,
            "build it: mlobs drift reference build",
        ) from None  # fmt: skip
    return load_reference(data, str(path))


def is_reference(path: str | Path) -> bool:
    """The file begins like a reference; False for any other or none."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def dump_state(state: State) -> bytes:
    """Canonical bytes of a state: equal counts give equal bytes, in whatever order they were merged."""
    return _frame(_state_out(state) | {"reference": state.reference})


def load_state(data: bytes, where: str) -> State:
    """The state of `dump_state`. Raises as `load_reference`."""
    payload = _unframe(data, where)
    try:
        return State(payload["reference"], _state_in(payload).strata)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise _broken(where, f"a field that does not fit ({type(problem).__name__})") from None


def _frame(content: object) -> bytes:
    payload = zlib.compress(msgspec.msgpack.encode(content, order="deterministic"), 1)
    return _HEAD.pack(MAGIC, VERSION, len(payload)) + payload + struct.pack("<I", zlib.crc32(payload))


def _unframe(data: bytes, where: str) -> Any:
    if len(data) < _HEAD.size or data[:6] != MAGIC:
        raise _broken(where, "another kind of file")
    _, version, length = _HEAD.unpack_from(data)
    if version > VERSION:
        raise UnavailableError.of(
            where,
            f"format version {VERSION} or older",
            f"version {version}",
            "use the newer mlobs that wrote it",
        )
    payload = data[_HEAD.size : _HEAD.size + length]
    if len(data) != _HEAD.size + length + 4 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(payload):
        raise _broken(where, "bytes whose checksum does not fit")
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(payload, _GREATEST)
        if unpacker.unconsumed_tail:
            raise _broken(where, "more than a reference can hold")
        return msgspec.msgpack.decode(plain)
    except (zlib.error, msgspec.DecodeError):
        raise _broken(where, "bytes that do not unpack") from None


def _broken(where: str, got: str) -> UnreadableError:
    error = UnreadableError.of(
        where, "an mlobs reference (.mlref)", got, "build it again: mlobs drift reference build"
    )
    assert isinstance(error, UnreadableError)
    return error


def _column_out(column: ColumnSpec) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "arrow": column.arrow,
        "edges": None if column.grid is None else column.grid.edges.astype("<f8").tobytes(),
        "categories": list(column.categories),
        "known": sorted(column.known),
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
        None if limits is None else (float(limits[0]), float(limits[1])),
    )


_SCALARS = (
    "rows", "null", "nan", "pos_inf", "neg_inf", "below", "above", "wrong", "missing", "low", "high",
)  # fmt: skip


def _state_out(state: State) -> dict[str, Any]:
    return {
        "strata": [
            {
                "weight": weight,
                "rows": stratum.rows,
                "bad": dict(sorted(stratum.bad_rows.items())),
                "extra": dict(sorted(stratum.extra.items())),
                "columns": {
                    name: {
                        "n": [getattr(counts, scalar) for scalar in _SCALARS],
                        "cells": counts.cells.astype("<i8").tobytes(),
                        "sums": counts.sums.astype("<i8").tobytes(),
                        "unseen": dict(sorted(counts.unseen.items())),
                        "outside": sorted(counts.outside.items()),
                    }
                    for name, counts in sorted(stratum.columns.items())
                },
            }
            for weight, stratum in sorted(state.strata.items())
        ]
    }


def _state_in(payload: dict[str, Any]) -> State:
    strata = {}
    for entry in payload["strata"]:
        columns = {
            name: ColumnCounts(
                cells=np.frombuffer(found["cells"], dtype="<i8").astype(np.int64),
                sums=np.frombuffer(found["sums"], dtype="<i8").astype(np.int64),
                unseen=found["unseen"],
                outside={int(key): int(count) for key, count in found["outside"]},
                **dict(zip(_SCALARS, found["n"], strict=True)),
            )
            for name, found in entry["columns"].items()
        }
        strata[float(entry["weight"])] = Stratum(entry["rows"], columns, entry["bad"], entry["extra"])
    return State("", strata)
