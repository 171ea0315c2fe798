"""A batch cut by model, version, segment and window in one pass. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlobs.drift.aliased import NONE, Aliases, names_of_score, under_names_in_force, with_old_names
from mlobs.drift.arrays import numbers, one_array, type_text
from mlobs.drift.columns import as_table
from mlobs.drift.engines.base import Key, Keying
from mlobs.drift.numpys import numpy_of
from mlobs.drift.rows import LOG_COLUMNS, feature_table, is_log
from mlobs.errors import UnreadableError
from mlobs.slices import Slice, slice_at

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_WHOLE = Slice(0.0, 0.0)
_STEP = 900.0
"""No zone changes its clock but on a quarter of an hour."""
_GREATEST = 253402300800.0
"""The year 10000: a time beyond it is none."""


def columns_needed(
    keying: Keying, features: Collection[str], schema: pa.Schema, aliases: Aliases = NONE
) -> list[str]:
    """Columns to read of a file: those that key a row, and the features, or the struct that holds them."""
    own = names_of_score(keying.score)
    wanted = with_old_names([*keying.columns, *with_old_names(features, own)], aliases)
    if is_log(schema, features):  # a column of the log is no feature, whatever a feature is called
        wanted = [*keying.columns, *LOG_COLUMNS]
    return [name for name in dict.fromkeys(wanted) if name in schema.names]


def grouped(
    batch: pa.Table, keying: Keying, features: frozenset[str], where: str, aliases: Aliases = NONE
) -> Iterator[tuple[Key, pa.Table, Floats]]:
    """(key, rows, their weights) of each group of a batch: the columns `features` of its rows, in their
    order; keys in order.

    Rows without a usable event time are in no group; `keying` and `features` name what is in force. Cost: a
    sort of the rows by one integer, one `take`. Raises UnreadableError where a keying column is missing.
    """
    if not is_log(batch.schema, features):
        batch = as_table(under_names_in_force(batch, aliases))
    lacking = [name for name in keying.columns if name not in batch.schema.names]
    if lacking:
        raise UnreadableError.of(
            where, f"the column {lacking[0]!r}", "none", "name another, or leave the option out"
        )
    starts, windows, usable = _windows(batch, keying)
    weights = _weights(batch, keying.weight)
    words = [_words(batch, name) for name in (keying.model, keying.version, keying.segment)]
    code = reduce(
        lambda total, part: total * max(len(part[1]), 1) + part[0],
        words,
        starts,
    )
    order = np.flatnonzero(usable)
    order = order[np.argsort(code[order], kind="stable")]
    if not len(order):
        return
    in_order = code[order]
    cuts = np.flatnonzero(np.diff(in_order, prepend=in_order[0] - 1))
    rows = _features(batch, keying, features, aliases)
    rows = rows if len(cuts) == 1 and len(order) == batch.num_rows else rows.take(pa.array(order))
    for begin, end in zip(cuts, [*cuts[1:], len(order)], strict=True):
        first = order[begin]
        model, version, segment = (part[1][part[0][first]] for part in words)
        window = windows[int(starts[first])]
        key = Key(model, version, segment, window.start, window.end)
        yield key, rows.slice(begin, end - begin), weights[order[begin:end]]


def _features(batch: pa.Table, keying: Keying, features: frozenset[str], aliases: Aliases) -> pa.Table:
    if is_log(batch.schema, features):
        return as_table(under_names_in_force(feature_table(batch), aliases))
    named = as_table(under_names_in_force(batch, names_of_score(keying.score)))
    return named.select([place for place, name in enumerate(named.schema.names) if name in features])


def feature_types(
    schema: pa.Schema, keying: Keying, features: frozenset[str], aliases: Aliases
) -> tuple[tuple[str, str], ...]:
    """(column, Arrow type) of a file's features and whatever else stands beside them, under the names in
    force."""
    empty = schema.empty_table()
    table = feature_table(empty) if is_log(schema, features) else empty
    found = under_names_in_force(table, aliases).schema
    own = names_of_score(keying.score)
    named = ((own.get(field.name, field.name), type_text(field.type)) for field in found)
    return tuple((name, kind) for name, kind in named if name in features or name not in keying.columns)


def _windows(batch: pa.Table, keying: Keying) -> tuple[Codes, list[Slice], npt.NDArray[np.bool_]]:
    """(place of each row's window, the windows in order, rows that have one)."""
    if keying.time is None:
        return np.zeros(batch.num_rows, np.int64), [_WHOLE], np.ones(batch.num_rows, dtype=bool)
    times = seconds(one_array(batch.column(keying.time)))
    usable = np.isfinite(times) & (np.abs(times) < _GREATEST)
    step = min(keying.window, _STEP)
    steps, place = np.unique(np.floor(np.where(usable, times, 0.0) / step), return_inverse=True)
    found = [slice_at(float(number * step), keying.window, keying.zone) for number in steps]
    windows = sorted(set(found))
    index = {window: at for at, window in enumerate(windows)}
    return np.array([index[window] for window in found], dtype=np.int64)[place], windows, usable


def seconds(array: pa.Array) -> Floats:
    """Event times as seconds since the epoch, NaN for what is none. A time without a zone is UTC; numbers
    are seconds."""
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        exact = array.cast(pa.timestamp("us"), safe=False) if pa.types.is_date(array.type) else array
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[exact.type.unit]
        whole = exact.cast(pa.int64())
        times = numpy_of(whole.fill_null(0)) / unit
        return np.where(numpy_of(whole.is_valid()), times, np.nan)
    given = numbers(array)
    times = np.full(len(array), np.nan)
    times[slice(None) if given.index is None else given.index] = given.values
    return times


def _weights(batch: pa.Table, name: str | None) -> Floats:
    if name is None:
        return np.ones(batch.num_rows)
    given = numbers(one_array(batch.column(name)))
    weights = np.ones(batch.num_rows)
    weights[slice(None) if given.index is None else given.index] = given.values
    return weights


def _words(batch: pa.Table, name: str | None) -> tuple[Codes, list[str]]:
    if name is None:
        return np.zeros(batch.num_rows, np.int64), [""]
    array = one_array(batch.column(name))
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    coded = array.cast(pa.string()).fill_null("").dictionary_encode()
    words = coded.dictionary.to_pylist() or [""]
    return np.asarray(numpy_of(coded.indices), dtype=np.int64), words
