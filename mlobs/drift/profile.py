"""`profile(batch, spec)`: one pass over a batch of columns into a mergeable state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlobs.drift import hll
from mlobs.drift.arrays import Numbers, codes, kind_of, numbers, one_array, plain, row_hashes, valid_mask
from mlobs.drift.bits import sparse
from mlobs.drift.block import Block, block_of
from mlobs.drift.columns import Columns, as_table
from mlobs.drift.deep import of_numbers, of_words
from mlobs.drift.grid import CHUNK, Ints
from mlobs.drift.lookup import Room, room_for
from mlobs.drift.numpys import numpy_of
from mlobs.drift.spec import CATEGORY, NULL, NUMBER, RANGE, SCHEMA, TYPE, UNSEEN, UNUSABLE, ColumnSpec, Spec
from mlobs.drift.state import EXAMPLES, ColumnCounts, State, Stratum, empty_state, keep_smallest, merge
from mlobs.names import ANY_CHECK

Mask = npt.NDArray[np.bool_]
_EMPTY: Ints = np.empty(0, dtype=np.int64)


def profile(batch: Columns | pa.RecordBatch, spec: Spec, weights: npt.ArrayLike | None = None) -> State:
    """The state of a batch in the bins of `spec`; `weights` has one positive number a row (default 1).

    A column of the spec that the batch lacks counts as missing; one that it has beyond the spec as extra;
    two of one name as a schema violation of every row. Never raises for what is in the data. Cost: about 8
    ns a number, 2 ns a dictionary-coded category. Weights are rounded to 11 significant bits, so that strata
    stay few.
    """
    if weights is None:
        return (
            State(spec.reference, {1.0: _stratum(batch, spec)})
            if batch.num_rows
            else empty_state(spec.reference)
        )
    batch = plain(as_table(batch))
    rounded = round_weights(weights)
    different = np.unique(rounded)
    if len(different) == 1:
        return State(spec.reference, {float(different[0]): _stratum(batch, spec)})
    state = empty_state(spec.reference)
    for weight in different:
        part = batch.filter(pa.array(rounded == weight))
        state = merge(state, State(spec.reference, {float(weight): _stratum(part, spec)}))
    return state


def round_weights(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Weights to 11 significant bits (within 0.05 %). What is no positive finite number counts as 1."""
    exact = np.asarray(weights, dtype=np.float64)
    exact = np.where(np.isfinite(exact) & (exact > 0), exact, 1.0)
    mantissa, exponent = np.frexp(exact)
    return np.asarray(np.ldexp(np.rint(mantissa * 2048) / 2048, exponent))


def _stratum(batch: Columns | pa.RecordBatch, spec: Spec) -> Stratum:
    rows = batch.num_rows
    position: dict[str, int] = {}
    doubled: set[str] = set()
    for place, name in enumerate(batch.schema.names):
        if name in position:
            doubled.add(name)
        position[name] = place
    columns: dict[str, ColumnCounts] = {}
    bad: dict[str, Mask] = {}
    kept: dict[str, Numbers] = {}
    hashes = np.zeros(rows if spec.duplicates else 0, dtype=np.uint64)
    room = room_for(min(rows, CHUNK))
    for name, column in spec.columns.items():
        if name not in position or name in doubled:
            columns[name] = _missing(column, rows)
            _note(bad, column, {SCHEMA: np.ones(rows, dtype=bool)})
            continue
        array = one_array(batch.column(position[name]))
        counts, failing, values = profile_column(array, column, spec.deep, room)
        columns[name] = counts
        if spec.duplicates:  # a row is the mixed hashes of its columns, in the order of the spec
            hashes = hll.mix(hashes ^ row_hashes(array))
        if values is not None and name in spec.block:
            kept[name] = values
        _note(bad, column, failing)
    extra = {name: rows for name in position if name not in spec.columns and name not in spec.ignored}
    return Stratum(
        rows,
        columns,
        {check: int(np.count_nonzero(mask)) for check, mask in bad.items()},
        extra,
        _block(spec.block, kept, rows) if spec.block else None,
        hll.of_hashes(hashes) if spec.duplicates else None,
    )


def _block(names: tuple[str, ...], kept: Mapping[str, Numbers], rows: int) -> Block:
    """Over the rows with a finite value in every one of `names`."""
    complete = np.ones(rows, dtype=bool)
    table = np.full((rows, len(names)), np.nan)
    for place, name in enumerate(names):
        if name in kept:
            given = kept[name]
            table[slice(None) if given.index is None else given.index, place] = given.values
        complete &= np.isfinite(table[:, place])
    return block_of(names, table[complete])


def _note(bad: dict[str, Mask], column: ColumnSpec, failing: Mapping[str, Mask]) -> None:
    for check, mask in failing.items():
        if check in column.row_checks:
            for key in (check, ANY_CHECK):
                bad[key] = bad[key] | mask if key in bad else mask


def _missing(column: ColumnSpec, rows: int) -> ColumnCounts:
    cells = np.zeros(column.cells, dtype=np.int64)
    return ColumnCounts(rows, cells, np.zeros_like(cells) if column.kind == NUMBER else _EMPTY, missing=rows)


def profile_column(
    array: pa.Array, column: ColumnSpec, deep: bool = False, room: Room | None = None
) -> tuple[ColumnCounts, dict[str, Mask], Numbers | None]:
    """Counts of one column; for each check that some row fails the mask of those rows, shape (rows,); and,
    of a number, its values."""
    if column.kind == NUMBER and (column.grid is not None or deep):
        given = numbers(array)
        counts, failing = _profile_numbers(given, column, deep, room)
        return counts, failing, given
    if column.kind == CATEGORY:
        return *_profile_categories(array, column, deep), None
    null = array.null_count
    nulls = {NULL: numpy_of(array.is_null())} if null else {}
    return ColumnCounts(len(array), _EMPTY, _EMPTY, null=null), nulls, None


def _profile_numbers(
    given: Numbers, column: ColumnSpec, deep: bool, room: Room | None
) -> tuple[ColumnCounts, dict[str, Mask]]:
    values = given.values
    failing: dict[str, Mask] = {}
    nan = plus = minus = 0
    low, high = (float(values.min()), float(values.max())) if len(values) else (np.inf, -np.inf)
    finite = values
    if len(values) and not (isfinite(low) and isfinite(high)):
        is_nan = np.isnan(values)
        nan, plus, minus = (int(found.sum()) for found in (is_nan, values == np.inf, values == -np.inf))
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (np.inf, -np.inf)
        if nan:
            failing[NULL] = given.mask(is_nan)
    below = above = 0
    outside: dict[int, int] = {}
    if column.limits is not None and (low < column.limits[0] or high > column.limits[1] or plus or minus):
        beyond = (values < column.limits[0]) | (values > column.limits[1])
        found = values[beyond.nonzero()[0]]
        under = int(np.count_nonzero(found < column.limits[0]))
        below, above = under - minus, len(found) - under - plus
        failing[RANGE] = given.mask(beyond)
        outside = sparse(found[np.isfinite(found)] if plus or minus else found)
    if given.null:
        nulls = given.nulls()
        failing[NULL] = failing[NULL] | nulls if NULL in failing else nulls
    if len(given.wrong):
        failing[TYPE] = _at(given.wrong, given.rows)
    cells, sums = (_EMPTY, _EMPTY) if column.grid is None else column.grid.count(finite, low, high, room)
    counts = ColumnCounts(
        given.rows, cells, sums, given.null, nan, plus, minus, below, above, len(given.wrong),
        low=low, high=high, outside=outside, deep=of_numbers(finite) if deep else None,
    )  # fmt: skip
    return counts, failing


def _profile_categories(
    array: pa.Array, column: ColumnSpec, deep: bool
) -> tuple[ColumnCounts, dict[str, Mask]]:
    rows = len(array)
    if kind_of(array.type) == UNUSABLE and not pa.types.is_null(array.type):
        return _nothing_usable(array, column, deep)
    position, words, valid = codes(array)
    per_word = np.bincount(position, minlength=len(words)).astype(np.int64) if len(words) else _EMPTY
    cell_of = column.cells_of(words)
    cells = np.zeros(column.cells, dtype=np.int64)
    np.add.at(cells, cell_of, per_word)
    failing: dict[str, Mask] = {}
    if valid is not None:
        failing[NULL] = ~valid
    unseen: dict[str, int] = {}
    if cells[column.first_unseen :].any():
        strange = cell_of >= column.first_unseen
        found = {words[code]: int(per_word[code]) for code in np.flatnonzero(strange) if per_word[code]}
        unseen = keep_smallest(found, EXAMPLES)
        if not column.meets_masked(found):
            at = strange[position]
            failing[UNSEEN] = at if valid is None else _spread(at, valid)
    counted: dict[str, int] = {}
    if deep:
        for word, count in zip(words, per_word.tolist(), strict=True):
            if count:
                counted[word] = counted.get(word, 0) + count
    counts = ColumnCounts(
        rows, cells, _EMPTY, rows - len(position), unseen=unseen, deep=of_words(counted) if deep else None
    )
    return counts, failing


def _nothing_usable(array: pa.Array, column: ColumnSpec, deep: bool) -> tuple[ColumnCounts, dict[str, Mask]]:
    """A column of categories that came as lists or structs: nulls, and values of a wrong type."""
    valid = valid_mask(array)
    wrong = int(valid.sum())
    cells = np.zeros(column.cells, dtype=np.int64)
    counts = ColumnCounts(
        len(array), cells, _EMPTY, len(array) - wrong, wrong=wrong, deep=of_words({}) if deep else None
    )
    return counts, {NULL: ~valid, TYPE: valid}


def _at(index: npt.NDArray[np.int64], rows: int) -> Mask:
    mask = np.zeros(rows, dtype=bool)
    mask[index] = True
    return mask


def _spread(of_valid: Mask, valid: Mask) -> Mask:
    whole = np.zeros(len(valid), dtype=bool)
    whole[valid] = of_valid
    return whole
