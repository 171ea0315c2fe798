"""Blocks -> Arrow tables: one a model, features and stages as struct columns.

Numbers come as float64 or int64, booleans as booleans, text as text. Integers among floats become floats
where that is exact. A value of another type than its feature's is no value of that column: the cell is null
and the value stands, as JSON, in the row's `conflicts` map. The type of a feature is that of most of its
first values and stays, for as long as the caller hands the same `types` in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, groupby
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.blocks import Block, Column, unpack_column

FEATURES: Final = "features"
STAGES: Final = "stage_durations_s"
CONFLICTS: Final = "conflicts"

Types = dict[str, str]
"""Kind of each typed column, `f`, `i`, `b` or `s`: of features by name, of fields by `_FIELD` and name."""
_FIELD: Final = "field:"
"""A feature may be called `prediction` too."""

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
    block. Costs about a microsecond a row of thirty numbers and eight texts.
    """
    pile = _pile(parts)
    conflicts: list[Conflict] = []
    arrays: dict[str, pa.Array] = {"event_id": _event_ids(parts)}
    fields = [part.block["fields"] for part in parts]
    for name in _union(columns, *fields):
        key = _FIELD + name
        kind = columns.get(name) or types.get(key)
        own = {} if kind is None else {name: kind}
        arrays[name] = _merge(name, [each.get(name) for each in fields], pile, own, conflicts)
        if columns.get(name) is None and name in own:
            types[key] = own[name]
    if columns is RECORD_COLUMNS:
        features = [part.block["features"] for part in parts]
        stages = [part.block["stages"] for part in parts]
        arrays[STAGES] = _struct(stages, pile, dict.fromkeys(_union(*stages), "f"), "stage.", conflicts)
        arrays[FEATURES] = _struct(features, pile, types, "", conflicts)
    arrays[CONFLICTS] = _conflict_column(conflicts, pile.kept)
    return pa.table(arrays)


def kept_rows(part: Part) -> int:
    return int(part.block["n"]) if part.keep is None else int(np.count_nonzero(part.keep))


class _Pile(NamedTuple):
    """The blocks of a table, one on the other."""

    rows: list[int]
    """Of each block."""
    keep: Any
    """Which of all these rows stay; None: all."""
    kept: int


def _pile(parts: Sequence[Part]) -> _Pile:
    rows = [part.block["n"] for part in parts]
    if all(part.keep is None for part in parts):
        return _Pile(rows, None, sum(rows))
    each = [
        np.ones(count, bool) if part.keep is None else part.keep
        for part, count in zip(parts, rows, strict=True)
    ]
    keep = np.concatenate(each)
    return _Pile(rows, keep, int(np.count_nonzero(keep)))


def _event_ids(parts: Sequence[Part]) -> pa.Array:
    found = []
    for writer, own in groupby(parts, lambda part: str(part.block["writer"])):
        pieces = [
            numbers if keep is None else numbers[keep]
            for numbers, keep in ((np.frombuffer(block["seq"], dtype="<i8"), keep) for block, keep in own)
        ]
        text = pc.cast(pa.array(np.concatenate(pieces)), pa.string())
        found.append(pc.binary_join_element_wise(pa.scalar(writer), text, "-"))
    return pa.concat_arrays(found) if found else pa.array([], pa.string())


def _struct(
    each: Sequence[Mapping[str, Column]], pile: _Pile, types: Types, prefix: str, conflicts: list[Conflict]
) -> pa.Array:
    names = _union(*each)
    if not names:
        return pa.array([None] * pile.kept, pa.struct([]))
    arrays = [_merge(name, [one.get(name) for one in each], pile, types, conflicts, prefix) for name in names]
    return pa.StructArray.from_arrays(arrays, names)


def _union(*each: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for one in each for name in one))


def _merge(
    name: str,
    packed: Sequence[Column | None],
    pile: _Pile,
    types: Types,
    conflicts: list[Conflict],
    prefix: str = "",
) -> pa.Array:
    """The column `name` over all parts; a part without it has nulls."""
    codes = {column[0] for column in packed if column is not None} - {"n"}
    kind = types.get(name)
    if not codes:
        return pa.nulls(pile.kept, _ARROW[kind or "s"])
    code = next(iter(codes))
    if len(codes) == 1 and code in _NUMPY and kind in (None, code):
        types[name] = code
        return _numbers(code, packed, pile)
    if codes <= {"s", "c"} and kind in (None, "s"):
        types[name] = "s"
        same = _same_text(packed)
        return pa.array(_values(packed, pile), pa.string()) if same is None else pa.repeat(same, pile.kept)
    return _mixed(name, _values(packed, pile), types, conflicts, prefix)


def _numbers(code: str, packed: Sequence[Column | None], pile: _Pile) -> pa.Array:
    """The bytes of all blocks end to end are the column: no value is touched."""
    dtype = _NUMPY[code]
    width = dtype.itemsize
    pieces, flags, some = [], [], False
    for column, rows in zip(packed, pile.rows, strict=True):
        if column is None or column[0] == "n":
            piece, valid, some = bytes(width * rows), bytes(rows), True
        else:
            _code, piece, valid = column
            if valid is None:
                valid = b"\1" * rows
            else:
                some = True
            if len(piece) != width * rows or len(valid) != rows:
                raise ValueError(f"a column holds {len(piece) // width} rows of {rows}")
        pieces.append(piece)
        flags.append(valid)
    values = np.frombuffer(b"".join(pieces), dtype=dtype)
    missing = np.frombuffer(b"".join(flags), dtype=np.uint8) == 0 if some else None
    if pile.keep is not None:
        values, missing = values[pile.keep], None if missing is None else missing[pile.keep]
    return pa.array(values, mask=missing)


def _same_text(packed: Sequence[Column | None]) -> str | None:
    """The text that stands in every row of every part, if there is one."""
    first = packed[0]
    if first is None or first[0] != "c" or type(first[1]) is not str:
        return None
    return first[1] if all(column == first for column in packed) else None


def _values(packed: Sequence[Column | None], pile: _Pile) -> list[Any]:
    found: list[Any] = []
    for column, rows in zip(packed, pile.rows, strict=True):
        found.extend([None] * rows if column is None else unpack_column(column, rows))
    return found if pile.keep is None else list(compress(found, pile.keep.tolist()))


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


def combine(tables: Sequence[pa.Table], columns: Mapping[str, str | None], types: Types) -> pa.Table:
    """The tables one after the other, each brought to the same columns and the types in `types`.

    For tables of several files, whose features may have come, gone or changed their type in between.
    """
    # Parquet holds no struct without a field: a file whose calls had no feature comes without the column.
    structs = {FEATURES, STAGES} if columns is RECORD_COLUMNS else set()
    if len(tables) == 1 and set(columns) | structs | {CONFLICTS} <= set(tables[0].column_names):
        _learn(tables[0], types)
        if all(_fits(array.type, types.get(name)) for name, array in _typed(tables[0])):
            return tables[0]
    for each in tables:
        _learn(each, types)
    names = _union(columns, *(each.column_names for each in tables))
    features = _union(*([field.name for field in _features_of(each)] for each in tables))
    stages = _union(*([field.name for field in children(each, STAGES)] for each in tables))
    fixed = {name for name in names if name not in (FEATURES, STAGES, CONFLICTS, "event_id")}
    brought = []
    for each in tables:
        conflicts: list[Conflict] = []
        arrays: dict[str, pa.Array] = {"event_id": column_of(each, "event_id", "s")}
        for name in names:
            if name in fixed:
                kind = columns.get(name) or types.get(_FIELD + name, "s")
                arrays[name] = bring(column_of(each, name, kind), name, kind, conflicts)
        if columns is RECORD_COLUMNS:
            arrays[STAGES] = _bring_struct(each, STAGES, stages, dict.fromkeys(stages, "f"), conflicts)
            arrays[FEATURES] = _bring_struct(each, FEATURES, features, types, conflicts)
        arrays[CONFLICTS] = joined_conflicts(each, conflicts)
        brought.append(pa.table(arrays))
    return pa.concat_tables(brought)


def children(table: pa.Table, name: str) -> list[pa.Field]:
    if name not in table.column_names or not pa.types.is_struct(table.schema.field(name).type):
        return []
    return list(table.schema.field(name).type)


def _features_of(table: pa.Table) -> list[pa.Field]:
    return children(table, FEATURES)


def _typed(table: pa.Table) -> Iterator[tuple[str, pa.Array | pa.ChunkedArray]]:
    """The columns whose kind is that of their values, by their name in `Types`."""
    for name in ("prediction", "label"):
        if name in table.column_names:
            yield _FIELD + name, table.column(name)
    features = _features_of(table)
    if features:
        column = table.column(FEATURES)
        for field in features:
            yield field.name, pc.struct_field(column, field.name)


def _learn(table: pa.Table, types: Types) -> None:
    """Kinds of what is not known yet; integers become floats where floats came. A column without a value
    is text for want of another type, and tells nothing.
    """
    for name, array in _typed(table):
        kind = kind_of_arrow(array.type)
        if kind == "s" and array.null_count == len(array):
            continue
        if kind is not None and (name not in types or (types[name] == "i" and kind == "f")):
            types[name] = kind


def kind_of_arrow(arrow: pa.DataType) -> str | None:
    return next((kind for kind, own in _ARROW.items() if own == arrow), None)


def _fits(arrow: pa.DataType, kind: str | None) -> bool:
    return bool(_ARROW[kind or "s"] == arrow)


def column_of(table: pa.Table, name: str, kind: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(len(table), _ARROW[kind])
    found = table.column(name).combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def bring(array: pa.Array, name: str, kind: str, conflicts: list[Conflict]) -> pa.Array:
    """`array` as the type of `kind`; values that are of another one go beside."""
    wanted = _ARROW[kind]
    if array.type == wanted:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), wanted)
    if kind == "f" and pa.types.is_integer(array.type):
        try:
            return array.cast(wanted)  # safe: raises where a float cannot hold the integer
        except pa.ArrowInvalid:
            pass  # value by value then
    types = {name: kind}
    values = [
        value if type(value) in _KIND_OF else str(value) for value in array.to_pylist() if value is not None
    ]
    filled = iter(values)
    return _mixed(
        name,
        [next(filled) if valid else None for valid in array.is_valid().to_pylist()],
        types,
        conflicts,
        "",
    )


def _bring_struct(
    table: pa.Table, name: str, names: list[str], types: Types, conflicts: list[Conflict]
) -> pa.Array:
    rows = len(table)
    own = {field.name for field in children(table, name)}
    if not names:
        return pa.array([None] * rows, pa.struct([]))
    column = column_of(table, name, "s") if own else None
    prefix = "stage." if name == STAGES else ""
    arrays = []
    for each in names:
        kind = types.get(each, "s")
        if column is None or each not in own:
            arrays.append(pa.nulls(rows, _ARROW[kind]))
            continue
        here: list[Conflict] = []
        arrays.append(bring(pc.struct_field(column, each), each, kind, here))
        conflicts.extend(Conflict(row, prefix + label, value) for row, label, value in here)
    return pa.StructArray.from_arrays(arrays, names)


def joined_conflicts(table: pa.Table, conflicts: list[Conflict]) -> pa.Array:
    rows = len(table)
    if CONFLICTS not in table.column_names:
        return _conflict_column(conflicts, rows)
    before = table.column(CONFLICTS).combine_chunks()
    if not conflicts:
        return pa.concat_arrays(before.chunks) if isinstance(before, pa.ChunkedArray) else before
    added = _conflict_column(conflicts, rows).to_pylist()
    both = [
        (list(old or ()) + list(new or ())) or None
        for old, new in zip(before.to_pylist(), added, strict=True)
    ]
    return pa.array(both, pa.map_(pa.string(), pa.string()))


def _conflict_column(conflicts: list[Conflict], rows: int) -> pa.Array:
    kind = pa.map_(pa.string(), pa.string())
    if not conflicts:
        return pa.nulls(rows, kind)
    by_row: dict[int, list[tuple[str, str]]] = {}
    for row, name, value in conflicts:
        by_row.setdefault(row, []).append((name, json.dumps(value, ensure_ascii=False)))
    return pa.array([by_row.get(row) for row in range(rows)], kind)
