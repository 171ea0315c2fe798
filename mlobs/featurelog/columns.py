"""Blocks -> Arrow tables: one a model, features and stages as struct columns.

Numbers come as float64 or int64, booleans as booleans, text as text. Integers among floats become floats
where that is exact. A value of another type than its feature's is no value of that column: the cell is null
and the value stands, as JSON, in the row's `conflicts` map. The type of a feature is that of most of its
first values and stays, for as long as the caller hands the same `types` in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.blocks import Block, Column, unpack_column

FEATURES: Final = "features"
STAGES: Final = "stage_durations_s"
CONFLICTS: Final = "conflicts"

Types = dict[str, str]
"""Kind of each typed column, `f`, `i`, `b` or `s`, by name."""

_ARROW: Final = {"f": pa.float64(), "i": pa.int64(), "b": pa.bool_(), "s": pa.string()}
_NUMPY: Final = {"f": np.dtype("<f8"), "i": np.dtype("<i8"), "b": np.dtype("?")}
_EXACT: Final = 2**53
_KIND_OF: Final = {float: "f", int: "i", bool: "b", str: "s"}

RECORD_COLUMNS: Final = {
    "prediction_id": "s", "event_time": "f", "service": "s", "model": "s", "model_version": "s",
    "variant": "s", "segment": "s", "prediction": None, "decision": "s", "outcome": "s", "duration_s": "f",
    "trace_id": "s", "span_id": "s", "sampling_reason": "s", "weight": "f", "entity_key": "s",
    "record_version": "i",
}  # fmt: skip
"""Record fields and their kinds; a prediction's is that of its values."""
LABEL_COLUMNS: Final = {
    "prediction_id": "s", "label": None, "event_time": "f", "service": "s", "record_version": "i",
}  # fmt: skip


class Part(NamedTuple):
    """A block and which of its rows are to be kept (None: all)."""

    block: Block
    keep: Any


class Conflict(NamedTuple):
    row: int
    name: str
    value: Any


def table(parts: Sequence[Part], columns: Mapping[str, str | None], types: Types) -> pa.Table:
    """One table of the parts' rows, in order. `types` is read and added to. Raises ValueError for a broken
    block.
    """
    conflicts: list[Conflict] = []
    arrays: dict[str, pa.Array] = {"event_id": _event_ids(parts)}
    fields = [part.block["fields"] for part in parts]
    for name in _union(columns, *fields):
        kind = columns.get(name)
        own = types if kind is None else {name: kind}
        arrays[name] = _merge(name, [each.get(name) for each in fields], parts, own, conflicts)
    if columns is RECORD_COLUMNS:
        features = [part.block["features"] for part in parts]
        stages = [part.block["stages"] for part in parts]
        arrays[STAGES] = _struct(stages, parts, dict.fromkeys(_union(*stages), "f"), "stage.", conflicts)
        arrays[FEATURES] = _struct(features, parts, types, "", conflicts)
    rows = len(arrays["event_id"])
    arrays[CONFLICTS] = _conflict_column(conflicts, rows)
    return pa.table(arrays)


def kept_rows(part: Part) -> int:
    return int(part.block["n"]) if part.keep is None else int(np.count_nonzero(part.keep))


def _event_ids(parts: Sequence[Part]) -> pa.Array:
    found = []
    for block, keep in parts:
        numbers = np.frombuffer(block["seq"], dtype="<i8")
        text = pc.cast(pa.array(numbers if keep is None else numbers[keep]), pa.string())
        found.append(pc.binary_join_element_wise(pa.scalar(block["writer"]), text, "-"))
    return pa.concat_arrays(found) if found else pa.array([], pa.string())


def _struct(
    each: Sequence[Mapping[str, Column]],
    parts: Sequence[Part],
    types: Types,
    prefix: str,
    conflicts: list[Conflict],
) -> pa.Array:
    names = _union(*each)
    if not names:
        return pa.array([None] * sum(map(kept_rows, parts)), pa.struct([]))
    arrays = [
        _merge(name, [one.get(name) for one in each], parts, types, conflicts, prefix) for name in names
    ]
    return pa.StructArray.from_arrays(arrays, names)


def _union(*each: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for one in each for name in one))


def _merge(
    name: str,
    packed: Sequence[Column | None],
    parts: Sequence[Part],
    types: Types,
    conflicts: list[Conflict],
    prefix: str = "",
) -> pa.Array:
    """The column `name` over all parts; a part without it has nulls."""
    codes = {column[0] for column in packed if column is not None} - {"n"}
    kind = types.get(name)
    if not codes:
        return pa.nulls(sum(map(kept_rows, parts)), _ARROW[kind or "s"])
    code = next(iter(codes))
    if len(codes) == 1 and code in _NUMPY and kind in (None, code):
        types[name] = code
        return _numbers(code, packed, parts)
    if codes <= {"s", "c"} and kind in (None, "s"):
        types[name] = "s"
        return pa.array(_values(packed, parts), pa.string())
    return _mixed(name, _values(packed, parts), types, conflicts, prefix)


def _numbers(code: str, packed: Sequence[Column | None], parts: Sequence[Part]) -> pa.Array:
    dtype = _NUMPY[code]
    pieces, invalid, some = [], [], False
    for column, (block, keep) in zip(packed, parts, strict=True):
        rows = block["n"]
        if column is None or column[0] == "n":
            values, missing, some = np.zeros(rows, dtype), np.ones(rows, bool), True
        else:
            values = np.frombuffer(column[1], dtype=dtype)
            if len(values) != rows:
                raise ValueError(f"a column holds {len(values)} rows of {rows}")
            missing = np.zeros(rows, bool)
            if column[2] is not None:
                missing, some = np.frombuffer(column[2], dtype=bool) == 0, True
        pieces.append(values if keep is None else values[keep])
        invalid.append(missing if keep is None else missing[keep])
    return pa.array(np.concatenate(pieces), mask=np.concatenate(invalid) if some else None)


def _values(packed: Sequence[Column | None], parts: Sequence[Part]) -> list[Any]:
    found: list[Any] = []
    for column, (block, keep) in zip(packed, parts, strict=True):
        values = [None] * block["n"] if column is None else unpack_column(column, block["n"])
        found.extend(
            values if keep is None else [value for value, kept in zip(values, keep, strict=True) if kept]
        )
    return found


def _mixed(name: str, values: list[Any], types: Types, conflicts: list[Conflict], prefix: str) -> pa.Array:
    """Values of several types, or of another than the column's: what fits stays, the rest goes beside."""
    kinds = Counter(_KIND_OF[type(value)] for value in values if value is not None)
    kind = types.get(name) or _main_kind(kinds)
    if kind == "i" and "f" in kinds:
        kind = "f"
    types[name] = kind
    found: list[Any] = []
    for row, value in enumerate(values):
        fits = value is None or _KIND_OF[type(value)] == kind
        if not fits and kind == "f" and type(value) is int and abs(value) <= _EXACT:
            value, fits = float(value), True
        if not fits:
            conflicts.append(Conflict(row, prefix + name, value))
        found.append(value if fits else None)
    return pa.array(found, _ARROW[kind], from_pandas=False)


def _main_kind(kinds: Counter[str]) -> str:
    """The kind of most values, integers and floats as one; of even ones number, boolean, text in turn."""
    ranked = {"f" if kinds["f"] else "i": kinds["f"] + kinds["i"], "b": kinds["b"], "s": kinds["s"]}
    return max(ranked, key=lambda kind: ranked[kind])


def _conflict_column(conflicts: list[Conflict], rows: int) -> pa.Array:
    kind = pa.map_(pa.string(), pa.string())
    if not conflicts:
        return pa.nulls(rows, kind)
    by_row: dict[int, list[tuple[str, str]]] = {}
    for row, name, value in conflicts:
        by_row.setdefault(row, []).append((name, json.dumps(value, ensure_ascii=False)))
    return pa.array([by_row.get(row) for row in range(rows)], kind)
