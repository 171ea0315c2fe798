"""Tables masked as the feature log masks records: what a drift reference is built from, so that both agree.

The same schema, key and code; a reference of raw values beside a log of keyed hashes compares nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from mlobs.featurelog.masking import Mask, Masker


def masked_table(
    table: pa.Table, masker: Masker, model: str, *, words: Collection[str] = (), score: str | None = None
) -> pa.Table:
    """`table` with its columns as the log of `model` would have them; what the schema does not name is gone.

    `words` are columns that stand for the record's own words (segment, day, event time): masked only where
    they are private. `score` is masked as the prediction is. A column is masked once for each of its
    different values; one whose results are of several types becomes text.
    """
    arrays: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in table.column_names:
        column = table.column(name)
        if name in words:
            arrays[name] = column if not _is_text(column.type) else _by_value(column, masker.words)
            continue
        mask = masker.prediction() if name == score else masker.feature(model, name)
        if mask is not None:
            arrays[name] = _by_value(column, mask)
    return pa.table(arrays)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _by_value(column: pa.ChunkedArray, mask: Mask) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_nested(column.type):
        return column.cast(pa.null()) if column.null_count == len(column) else pa.nulls(len(column))
    whole = column.combine_chunks()
    coded = whole if pa.types.is_dictionary(column.type) else whole.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = pa.concat_arrays(coded.chunks) if coded.num_chunks else pa.nulls(0).dictionary_encode()
    before = coded.dictionary.to_pylist()
    after = mask(before) if before else []
    if all(map(_same, before, after)):
        return column
    return _array(after).take(coded.indices)


def _same(before: object, after: object) -> bool:
    return before is after or (before == after and type(before) is type(after))


def _array(values: list[object]) -> pa.Array:
    """Numbers as numbers; of several types the text of each, as the drift checks read them."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) <= 1:
        return pa.array([float(v) for v in values] if kinds == {int, float} else values)  # type: ignore[arg-type]
    return pa.array([None if value is None else str(value) for value in values], pa.string())
