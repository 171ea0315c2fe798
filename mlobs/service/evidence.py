"""What kept calls tell about trouble in serving: slow stages, segments hit, traces to look at. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.names import OK
from mlobs.notify.page import PageParts, SegmentHit, StageFinding, TraceFinding
from mlobs.service.keptcalls import call_link

TRACES = 5
SEGMENTS = 3
VERSIONS = 3
STANDS_OUT = 2.0
"""A stage is named when its p99 grew by this factor or more."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calls:
    """Kept calls as columns; `weight` is one over each call's sampling rate."""

    duration: Floats
    bad: npt.NDArray[np.bool_]
    weight: Floats
    stages: dict[str, Floats]
    """Seconds by stage; NaN where a call has no such stage."""
    segment: list[str | None]
    version: list[str | None]
    trace_id: list[str | None]
    prediction_id: list[str]
    event_time: list[float | None]

    def __len__(self) -> int:
        return len(self.duration)


def calls_of(table: pa.Table, threshold: float | None) -> Calls:
    """The columns of a feature log's records; bad is not `ok`, or slower than `threshold` seconds."""
    duration = _floats(table["duration_s"])
    failed = np.asarray(pc.not_equal(table["outcome"], OK).to_numpy(zero_copy_only=False), dtype=bool)
    slow = duration > threshold if threshold is not None else np.zeros(len(duration), dtype=bool)
    struct = table["stage_durations_s"].combine_chunks()
    names = [field.name for field in struct.type] if pa.types.is_struct(struct.type) else []
    return Calls(
        duration,
        failed | slow,
        _floats(table["weight"]),
        {name: _floats(pc.struct_field(struct, name)) for name in names},
        table["segment"].to_pylist(),
        table["model_version"].to_pylist(),
        table["trace_id"].to_pylist(),
        table["prediction_id"].to_pylist(),
        table["event_time"].to_pylist(),
    )


def serving_parts(now: Calls, before: Calls, link: str) -> PageParts:
    """What the calls since the trouble began show, beside those before; `link`: the web page, or empty."""
    return PageParts(
        segments=_segments(now),
        versions=_versions(now),
        stage=slowest_stage(now, before),
        traces=_traces(now, link),
    )


def slowest_stage(now: Calls, before: Calls) -> StageFinding | None:
    """The stage whose p99 grew most, in seconds, if it grew by a factor of two; None without bad calls.

    p99 is weighted, over the calls that have the stage. `share` is the stage's share of the bad calls' time.
    """
    if not now.bad.any():
        return None
    found: list[tuple[float, StageFinding]] = []
    for name, seconds in now.stages.items():
        p99 = weighted_quantile(seconds, now.weight, 0.99)
        usual = weighted_quantile(before.stages[name], before.weight, 0.99) if name in before.stages else None
        if p99 is None or (usual is not None and p99 < STANDS_OUT * usual):
            continue
        total = float(np.nansum(now.duration[now.bad]))
        share = float(np.nansum(seconds[now.bad])) / total if total > 0 else None
        found.append((p99 - (usual or 0.0), StageFinding(name, p99, usual, share)))
    return max(found, key=lambda one: one[0])[1] if found else None


def weighted_quantile(values: Floats, weights: Floats, q: float) -> float | None:
    """Smallest value up to which a share `q` of the weight lies, NaN left out; None without values."""
    keep = ~np.isnan(values)
    if not keep.any():
        return None
    order = np.argsort(values[keep], kind="stable")
    cumulated = np.cumsum(weights[keep][order])
    at = int(np.searchsorted(cumulated, q * cumulated[-1]))
    return float(values[keep][order][min(at, len(order) - 1)])


def _segments(calls: Calls) -> tuple[SegmentHit, ...]:
    """The segments with most bad calls, in estimated calls (weights), the worst share first."""
    sums: dict[str, list[float]] = {}
    for segment, bad, weight in zip(calls.segment, calls.bad.tolist(), calls.weight.tolist(), strict=True):
        if segment:
            entry = sums.setdefault(segment, [0.0, 0.0])
            entry[0] += weight if bad else 0.0
            entry[1] += weight
    hit = [SegmentHit(name, bad, total) for name, (bad, total) in sums.items() if bad]
    return tuple(sorted(hit, key=lambda one: -(one.bad or 0) / (one.total or 1))[:SEGMENTS])


def _versions(calls: Calls) -> tuple[str, ...]:
    """The versions of the bad calls, the worst first."""
    hit = Counter(
        version for version, bad in zip(calls.version, calls.bad.tolist(), strict=True) if bad and version
    )
    return tuple(version for version, _ in hit.most_common(VERSIONS))


def _traces(calls: Calls, link: str) -> tuple[TraceFinding, ...]:
    """The slowest bad calls that have a trace id: each resolves to its record."""
    order: Sequence[int] = [int(row) for row in np.argsort(-calls.duration, kind="stable") if calls.bad[row]]
    found = []
    for row in order:
        trace_id = calls.trace_id[row]
        if trace_id is None:
            continue
        stages = {
            name: float(seconds[row]) for name, seconds in calls.stages.items() if not np.isnan(seconds[row])
        }
        at = calls.event_time[row]
        found.append(
            TraceFinding(
                trace_id,
                calls.prediction_id[row],
                float(calls.duration[row]),
                stages,
                call_link(link, trace_id, at),
                calls.segment[row] or "",
                at=at,
            )
        )
        if len(found) == TRACES:
            break
    return tuple(found)


def _floats(column: pa.ChunkedArray | pa.Array) -> Floats:
    return np.asarray(
        pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    )
