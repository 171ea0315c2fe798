"""Calls that show what drift found: those whose broken features are least like what was usual. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.notify.page import TraceFinding
from mlobs.service.keptcalls import call_link

MOST = 5
LOOKED_AT = 3
"""Features by rank that decide; the first counts most."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Broken:
    """A feature that explains the drift, and the segment in which it does; empty: everywhere."""

    feature: str
    segment: str = ""


def drifted_calls(
    now: pa.Table, before: pa.Table, broken: Sequence[Broken], link: str
) -> tuple[TraceFinding, ...]:
    """At most `MOST` calls of `now` that have a trace id: those with stage times first, of them the least
    usual, of them the newest.

    `now` and `before` are records of the feature log, so that each resolves to its own; `link` is the web
    page, or empty. Cost: a pass over the columns of `LOOKED_AT` features.
    """
    if not broken or not len(now):
        return ()
    stages = _stages(now)
    traced = pc.is_valid(now["trace_id"]).to_numpy(zero_copy_only=False)
    unlike = np.zeros(len(now))
    for rank, one in enumerate(broken[:LOOKED_AT]):
        unlike += _in_segment(now, one) * unlikeness(_column(now, one), _column(before, one)) / (rank + 1)
    times = np.asarray(now["event_time"].to_numpy(zero_copy_only=False), dtype=float)
    order = [
        int(row) for row in np.lexsort((-times, -unlike, ~stages.any)) if traced[row] and unlike[row] > 0
    ]
    return tuple(_finding(now, row, stages, broken, link) for row in order[:MOST])


def unlikeness(now: pa.Array, before: pa.Array) -> Floats:
    """For each value of `now` a number in [0, 1]: how little it is like those of `before`.

    Numbers: z / (1 + z), z the distance from the median in spans between the quartiles. What is missing, and
    every other type: one less its share before. Without anything before, what is there is like anything.
    """
    missing = np.asarray(pc.is_null(now, nan_is_null=True).to_numpy(zero_copy_only=False), dtype=bool)
    gone = pc.is_null(before, nan_is_null=True).to_numpy(zero_copy_only=False)
    gone_before = float(np.mean(gone)) if len(gone) else 0.0
    found = _far(now, before) if _is_number(now.type) else _rare(now, before)
    found[missing] = 1.0 - gone_before
    return found


def _far(now: pa.Array, before: pa.Array) -> Floats:
    values, usual = _floats(now), _floats(before) if _is_number(before.type) else np.empty(0)
    usual = usual[np.isfinite(usual)]
    if not len(usual):
        return np.zeros(len(values))
    low, middle, high = np.quantile(usual, (0.25, 0.5, 0.75))
    span = (high - low) or float(np.std(usual)) or 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.minimum(np.abs(values - middle) / span, 1e9)
    return np.asarray(np.nan_to_num(z / (1.0 + z), nan=1.0))


def _rare(now: pa.Array, before: pa.Array) -> Floats:
    usual = before.to_pylist()
    shares: dict[object, float] = {}
    for value in usual:
        if value is not None and not isinstance(value, list | dict):
            shares[value] = shares.get(value, 0.0) + 1.0 / len(usual)
    if not shares:
        return np.zeros(len(now))
    return np.array(
        [
            1.0 - shares.get(value, 0.0) if not isinstance(value, list | dict) else 0.0
            for value in now.to_pylist()
        ]
    )


@dataclass(frozen=True, slots=True)
class _Stages:
    """Seconds by stage, NaN where a call has none; `any`: whether it has one."""

    seconds: dict[str, Floats]
    any: npt.NDArray[np.bool_]


def _stages(table: pa.Table) -> _Stages:
    struct = table["stage_durations_s"].combine_chunks()
    names = [field.name for field in struct.type] if pa.types.is_struct(struct.type) else []
    seconds = {name: _floats(pc.struct_field(struct, name)) for name in names}
    some = np.zeros(len(table), dtype=bool)
    for one in seconds.values():
        some |= ~np.isnan(one)
    return _Stages(seconds, some)


def _finding(table: pa.Table, row: int, stages: _Stages, broken: Sequence[Broken], link: str) -> TraceFinding:
    trace_id = str(table["trace_id"][row].as_py())
    duration, at = table["duration_s"][row].as_py(), table["event_time"][row].as_py()
    return TraceFinding(
        trace_id,
        str(table["prediction_id"][row].as_py() or ""),
        float(duration) if duration is not None else None,
        {name: float(one[row]) for name, one in stages.seconds.items() if not np.isnan(one[row])},
        call_link(link, trace_id, at),
        str(table["segment"][row].as_py() or ""),
        ", ".join(_shown(table, row, one.feature) for one in broken[:LOOKED_AT]),
        at,
    )


def _shown(table: pa.Table, row: int, feature: str) -> str:
    """`temp -8.9`, `temp missing`; of what is no number the name alone: a page is no place for what people
    wrote."""
    value = _column(table, Broken(feature))[row].as_py()
    if value is None or value != value:
        return f"{feature} missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return feature
    return f"{feature} {value:.4g}"


def _column(table: pa.Table, one: Broken) -> pa.Array:
    """The feature's values; nulls where the log has no such feature."""
    struct = table["features"].combine_chunks()
    if pa.types.is_struct(struct.type) and struct.type.get_field_index(one.feature) >= 0:
        found = pc.struct_field(struct, one.feature)
        return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found
    return pa.nulls(len(table))


def _in_segment(table: pa.Table, one: Broken) -> Floats:
    if not one.segment:
        return np.ones(len(table))
    same = pc.fill_null(pc.equal(pc.cast(table["segment"], pa.string()), one.segment), False)
    return np.asarray(same.to_numpy(zero_copy_only=False), dtype=float)


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    filled = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
    return np.array(filled.to_numpy(zero_copy_only=False), dtype=float)
