"""A chunk of feature records, cut into windows: each stream's rows as a table of feature columns. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlobs.drift.arrays import one_array, text_of
from mlobs.drift.numpys import numpy_of
from mlobs.drift.reference import SCORE
from mlobs.names import FEATURE_PREDICTION, OTHER
from mlobs.slices import Slice, slice_at

if TYPE_CHECKING:
    from mlobs.drift.readers import Source

LOG_COLUMNS: Final = ("event_time", "features", SCORE, "conflicts")
"""What features are read from, and what a file of the log is known by."""
_STEP = 900.0
"""No zone changes its clock but on a quarter of an hour."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of one version and segment within one window. `features` holds one column a feature."""

    version: str
    segment: str
    window: Slice
    features: pa.Table
    weights: npt.NDArray[np.float64]
    newest: float


def cut(records: pa.Table, window: float, zone: str) -> tuple[list[Piece], int]:
    """(pieces in order of time, rows without a usable event time) of the records of one model."""
    times = numpy_of(one_array(records.column("event_time")).cast(pa.float64()).fill_null(np.nan))
    usable = np.isfinite(times) & (times > -62e9) & (times < 253e9)
    unusable = int(len(times) - usable.sum())
    if unusable:
        records, times = records.filter(pa.array(usable)), times[usable]
    if not len(times):
        return [], unusable
    features = feature_table(records)
    weights = _weights(records)
    starts, windows = _windows(times, window, zone)
    version = _words(records, "model_version")
    segment = _words(records, "segment")
    groups = np.unique(np.stack([starts, version[0], segment[0]]), axis=1)
    pieces = []
    for start, v, s in groups.T:
        chosen = np.flatnonzero((starts == start) & (version[0] == v) & (segment[0] == s))
        part = features if len(chosen) == len(times) else features.take(pa.array(chosen))
        pieces.append(
            Piece(
                version[1][int(v)], segment[1][int(s)], windows[float(start)], part, weights[chosen],
                float(times[chosen].max()),
            )
        )  # fmt: skip
    return pieces, unusable


def known_segment(segment: str, known: frozenset[str]) -> str:
    """The segment as it is kept: those that the reference has no days of are one."""
    return segment if not segment or segment in known else OTHER


def feature_table(records: pa.Table) -> pa.Table:
    """One column a feature, and the model's output as `prediction`; a feature that is called so is
    `features.prediction`.

    Values that the log set aside because they are of another type than their column stand in it again, as
    text.
    """
    features = records.column("features")
    struct = one_array(features)
    names = (FEATURE_PREDICTION if field.name == SCORE else field.name for field in struct.type)
    columns = dict(zip(names, struct.flatten(), strict=True))
    if SCORE in records.schema.names:
        columns[SCORE] = one_array(records.column(SCORE))
    for row, name, value in _conflicts(records):
        if name == SCORE and FEATURE_PREDICTION in columns and not columns[FEATURE_PREDICTION][row].is_valid:
            name = FEATURE_PREDICTION  # of two that are called so, the one whose value was set aside
        if name in columns:
            columns[name] = _with_value(columns[name], row, value)
    if not columns:
        return pa.table({"": pa.nulls(records.num_rows)}).select([])
    return pa.table(columns)


def is_log(schema: pa.Schema, features: Collection[str]) -> bool:
    """Of a file of the feature log, whose features are one struct, and of no table with such a column."""
    names = schema.names
    return (
        {"event_time", "features"} <= {*names}
        and "features" not in features
        and pa.types.is_struct(schema.field("features").type)
    )


def unfolded(source: Source) -> Source:
    """A file of the feature log as the table of its features; every row counts once, whatever its weight."""
    return replace(
        source,
        schema=feature_table(source.schema.empty_table()).schema,
        batches=lambda: map(feature_table, source.batches()),
        columnwise=None,
    )


def _conflicts(records: pa.Table) -> Iterator[tuple[int, str, str]]:
    if "conflicts" not in records.schema.names:
        return
    column = one_array(records.column("conflicts"))
    if column.null_count == len(column):
        return
    for row, entry in enumerate(column.to_pylist()):
        for name, value in entry or ():
            yield row, name, value


def _with_value(array: pa.Array, row: int, value: str) -> pa.Array:
    words = [None if item is None else text_of(item) for item in array.to_pylist()]
    try:
        words[row] = text_of(json.loads(value))
    except ValueError:
        words[row] = value
    return pa.array(words, pa.string())


def _weights(records: pa.Table) -> npt.NDArray[np.float64]:
    if "weight" not in records.schema.names:
        return np.ones(records.num_rows)
    column = one_array(records.column("weight")).cast(pa.float64()).fill_null(1.0)
    return numpy_of(column)


def _windows(
    times: npt.NDArray[np.float64], window: float, zone: str
) -> tuple[npt.NDArray[np.float64], dict[float, Slice]]:
    step = min(window, _STEP)
    steps, place = np.unique(np.floor(times / step), return_inverse=True)
    found = [slice_at(float(number * step), window, zone) for number in steps]
    starts = np.array([one.start for one in found])
    return starts[place], {one.start: one for one in found}


def _words(records: pa.Table, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    if name not in records.schema.names:
        return np.zeros(records.num_rows, dtype=np.int64), [""]
    coded = one_array(records.column(name)).cast(pa.string()).fill_null("").dictionary_encode()
    return np.asarray(numpy_of(coded.indices), dtype=np.int64), coded.dictionary.to_pylist()
