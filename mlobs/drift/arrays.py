"""Arrow arrays of any type as what the profile counts: float64 values or category codes.

A type never raises: what cannot be meant in a column of its kind is counted as a violation of `type`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.drift import hll
from mlobs.drift.deep import word_hash
from mlobs.drift.grid import Floats
from mlobs.drift.numpys import numpy_of
from mlobs.drift.spec import CATEGORY, NUMBER, UNUSABLE

_DOUBLE = pa.float64().id
_PLAIN = frozenset(
    kind.id
    for kind in (
        pa.float64(),
        pa.float32(),
        pa.int64(),
        pa.int32(),
        pa.bool_(),
        pa.string(),
        pa.large_string(),
    )
)
"""The layouts of most columns, told at once."""
_SECONDS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def kind_of(kind: pa.DataType) -> str:
    """`number` for numbers, decimals and times; `category` for text, bytes and booleans; else `unusable`."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_temporal(kind)
    ):
        return UNUSABLE if pa.types.is_interval(kind) else NUMBER
    if pa.types.is_boolean(kind) or _is_text(kind) or _is_bytes(kind):
        return CATEGORY
    return UNUSABLE


def type_text(kind: pa.DataType) -> str:
    """A type for people: that of its values, however they are stored."""
    return type_text(kind.value_type) if pa.types.is_dictionary(kind) else str(kind)


def plain(batch: pa.Table) -> pa.Table:
    """The table with columns whose layout Arrow's kernels do not know (views, runs, extensions) in a plain
    one."""
    for place, name in enumerate(batch.schema.names):
        if _is_odd(batch.schema.field(place).type):
            batch = batch.set_column(place, name, one_array(batch.column(place)))
    return batch


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one contiguous array of a plain layout."""
    if _is_odd(column.type):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        known = [_plain_array(chunk) for chunk in chunks]
        return pa.concat_arrays(known) if known else pa.array([], _plain_type(column.type))
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            return column.chunk(0)
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        joined = column.combine_chunks()
        return joined if isinstance(joined, pa.Array) else joined.chunk(0)
    return column


def _is_odd(kind: pa.DataType) -> bool:
    if kind.id in _PLAIN:
        return False
    return bool(
        isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_run_end_encoded(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
        or (pa.types.is_dictionary(kind) and _is_odd(kind.value_type))
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    while _is_odd(kind):
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_run_end_encoded(kind) or pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            kind = pa.string() if pa.types.is_string_view(kind) else pa.binary()
    return kind


def _plain_array(array: pa.Array) -> pa.Array:
    while _is_odd(array.type):
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        elif pa.types.is_dictionary(array.type):
            # Arrow cannot decode a dictionary of views (polars: Categorical, Enum): its words come first.
            words = _plain_array(array.dictionary)
            array = pa.DictionaryArray.from_arrays(array.indices, words).dictionary_decode()
        else:
            array = array.cast(_plain_type(array.type))
    return array


@dataclass(slots=True, eq=False)
class Numbers:
    """A numeric column of `rows` rows: `values` are those that are neither null nor of a wrong type, in
    order.

    `index` holds their row numbers, or None when every row has a value. Not frozen, as one is made for each
    column of each window: a fifth of the price.
    """

    rows: int
    values: Floats
    index: npt.NDArray[np.int64] | None
    null: int
    wrong: npt.NDArray[np.int64]
    """Row numbers of values that are no numbers."""

    def nulls(self) -> npt.NDArray[np.bool_]:
        """The rows that are null."""
        found = np.ones(self.rows, dtype=bool)
        if self.index is None:
            return ~found
        found[self.index] = False
        found[self.wrong] = False
        return found

    def mask(self, rows_of_values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A mask over the values as a mask over all rows."""
        if self.index is None:
            return rows_of_values
        whole = np.zeros(self.rows, dtype=bool)
        whole[self.index[rows_of_values]] = True
        return whole


_NO_ROWS = np.empty(0, dtype=np.int64)


def numbers(array: pa.Array) -> Numbers:
    """`array` of any type as numbers. Times become seconds since the epoch; text is read as a number if it
    is one.
    """
    rows = len(array)
    kind = array.type
    if kind.id == _DOUBLE and not array.null_count:
        return Numbers(rows, numpy_of(array), None, 0, _NO_ROWS)
    if pa.types.is_null(kind):
        return Numbers(rows, np.empty(0), _NO_ROWS, rows, _NO_ROWS)
    if kind_of(kind) == UNUSABLE:
        wrong = np.flatnonzero(valid_mask(array))
        return Numbers(rows, np.empty(0), _NO_ROWS, rows - len(wrong), wrong)
    if kind_of(kind) == CATEGORY and not pa.types.is_boolean(kind):
        return _numbers_of_text(array)
    divisor = 1.0
    if pa.types.is_dictionary(kind):
        array = pc.cast(array, kind.value_type)
        kind = array.type
    if pa.types.is_temporal(kind):
        array, divisor = _time_as_numbers(array)
    null = array.null_count
    index = None
    if null:
        index = np.flatnonzero(valid_mask(array))
        array = array.drop_null()
    if not pa.types.is_float64(array.type):
        array = pc.cast(array, pa.float64(), safe=False)
    values = numpy_of(array)
    if divisor != 1.0:
        values = values / divisor
    return Numbers(rows, np.asarray(values, dtype=np.float64), index, null, _NO_ROWS)


def valid_mask(array: pa.Array) -> npt.NDArray[np.bool_]:
    """True where a row is not null; shape (rows,)."""
    if not array.null_count:
        return np.ones(len(array), dtype=bool)
    return numpy_of(array.is_valid())


def codes(array: pa.Array) -> tuple[npt.NDArray[np.int64], list[str], npt.NDArray[np.bool_] | None]:
    """(code of each valid row, text of each code, mask of the valid rows or None when all are) of any
    array.
    """
    if not pa.types.is_dictionary(array.type):
        if pa.types.is_null(array.type):
            return _NO_ROWS, [], np.zeros(len(array), dtype=bool)
        array = array.dictionary_encode()
    words = texts(array.dictionary)
    indices = array.indices
    valid = None
    if array.null_count or array.dictionary.null_count:
        valid = numpy_of(array.is_valid())
        if array.dictionary.null_count:  # a null among the words makes its rows null
            inner = np.append(valid_mask(array.dictionary), False)
            position = np.asarray(numpy_of(indices.fill_null(len(words))), dtype=np.int64)
            valid = valid & inner[position]
        indices = indices.filter(pa.array(valid))
    return np.asarray(numpy_of(indices), dtype=np.int64), words, valid


def row_hashes(array: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row's value, shape (rows,); nulls have one of their own."""
    hashes = np.zeros(len(array), dtype=np.uint64)
    kind = array.type
    if kind_of(kind) == NUMBER and not pa.types.is_dictionary(kind):
        given = numbers(array)
        at = slice(None) if given.index is None else given.index
        hashes[at] = hll.mix((given.values + 0.0).view(np.uint64))
        return hashes
    if kind_of(kind) == UNUSABLE:
        words = [text_of(value) for value in array.to_pylist()]
        return np.array([word_hash(word) for word in words], dtype=np.uint64)
    position, words, valid = codes(array)
    own = np.array([word_hash(word) for word in words], dtype=np.uint64)
    if len(words):
        hashes[slice(None) if valid is None else valid] = own[position]
    return hashes


def texts(array: pa.Array) -> list[str]:
    """Every value as text; whole floats without a point, so that 5 and 5.0 are one category; bytes
    escaped.
    """
    kind = array.type
    if _is_text(kind):
        return ["" if value is None else value for value in array.to_pylist()]
    return [text_of(value) for value in array.to_pylist()]


def text_of(value: Any) -> str:
    """One value as the text of a category."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _numbers_of_text(array: pa.Array) -> Numbers:
    position, words, valid = codes(array)
    parsed = np.array([_number(word) for word in words], dtype=np.float64)
    good = np.array([_is_number(word) for word in words], dtype=bool)
    rows = np.arange(len(array), dtype=np.int64) if valid is None else np.flatnonzero(valid)
    if not len(words):
        return Numbers(len(array), np.empty(0), _NO_ROWS, len(array), _NO_ROWS)
    fine = good[position]
    return Numbers(len(array), parsed[position][fine], rows[fine], len(array) - len(rows), rows[~fine])


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _time_as_numbers(array: pa.Array) -> tuple[pa.Array, float]:
    kind = array.type
    if pa.types.is_date32(kind):
        return pc.cast(array, pa.int32()), 1.0 / 86400.0
    if pa.types.is_date64(kind):
        return pc.cast(array, pa.int64()), 1e3
    if pa.types.is_time32(kind):
        return pc.cast(array, pa.int32()), _SECONDS[kind.unit]
    return pc.cast(array, pa.int64()), _SECONDS[kind.unit]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
