"""Ground truth: labels joined to their predictions whenever they come, once or corrected.

A label whose prediction is not in the log is one of two: its id hashes out at the rate that was in force
(it was never kept, and that is fine), or it is unknown (lost, expired, erased, or an id that nobody gave).
Where calls are drawn by their entity, or by chance because they had no id of their own when they began, a
label cannot be told apart so: it is `untold`.
The rate is told by the records themselves: one over the weight of those kept by rate; of several rates the
greatest counts, so that no label is called unsampled that could have been kept. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.records import BY_ENTITY, BY_RATE, DRAWN, draw_of

_LOOKED_AT = 1000
"""Drawn records that tell how they were drawn."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The join of a stretch of records with all labels known by now."""

    joined: pa.Table
    """The labelled records with `label`, `label_time` and `corrections` beside their own columns."""
    waiting: int
    """Records without a label yet."""
    corrected: int
    """Records whose label was given more than once; the latest by label time counts."""
    unsampled: int
    """Labels of predictions that were never kept: their id hashes out."""
    unknown: int
    """Labels of ids that should be there and are not."""
    untold: int = 0
    """Labels without a prediction where some were drawn by entity or by chance: unsampled or unknown."""


def join_truth(records: pa.Table, labels: pa.Table) -> Truth:
    """Join by prediction id. `records` and `labels` as `LogReader.poll` gives them, of one model.

    Labels are counted by prediction, not by delivery: the same one twice is one.
    """
    latest = _latest(labels)
    known = records.column("prediction_id")
    outside = latest.filter(pc.invert(pc.is_in(latest.column("prediction_id"), known.combine_chunks())))
    rate, untold = greatest_rate(records), 0
    limit = round(rate * 2**32)
    if _not_by_id(records, rate, limit):
        untold, outside = len(outside), outside.slice(0, 0)
    out = sum(
        draw_of(each) >= limit for each in outside.column("prediction_id").to_pylist() if each is not None
    )
    place = pc.index_in(known, latest.column("prediction_id").combine_chunks())
    has = pc.is_valid(place)
    rows = place.filter(has)
    joined = records.filter(has)
    for name in ("label", "label_time", "corrections"):
        joined = joined.append_column(name, latest.column(name).take(rows))
    corrected = int(np.count_nonzero(np.asarray(joined.column("corrections")) > 0))
    return Truth(joined, len(records) - len(joined), corrected, out, len(outside) - out, untold)


def greatest_rate(records: pa.Table) -> float:
    """The greatest sampling rate that a drawn record speaks of; 1.0 where none does."""
    drawn = records.filter(pc.is_in(records.column("sampling_reason"), pa.array(DRAWN)))
    least = pc.min(drawn.column("weight")).as_py()
    return 1.0 if not least or least < 1 else 1.0 / float(least)


def _not_by_id(records: pa.Table, rate: float, limit: int) -> bool:
    """The draw was by entity, or by chance: then most of the drawn records have an id that hashes out."""
    reasons = records.column("sampling_reason")
    if pc.any(pc.equal(reasons, BY_ENTITY)).as_py():
        return True
    drawn = (
        records.filter(pc.equal(reasons, BY_RATE)).column("prediction_id").slice(0, _LOOKED_AT).to_pylist()
    )
    out = sum(draw_of(each) >= limit for each in drawn if each is not None)
    return out > len(drawn) * (1 - rate) / 2


def maturity(records: pa.Table, truth: Truth, now: float, edges: Sequence[float]) -> list[float | None]:
    """The weighted share of records that have a label, by age: younger than edges[0], up to edges[1], ...

    Ages in seconds before `now`; None where no record has that age. In [0, 1].
    """
    labelled = pc.is_in(records.column("event_id"), truth.joined.column("event_id").combine_chunks())
    has = np.asarray(labelled.combine_chunks(), dtype=bool)
    weights = np.nan_to_num(np.asarray(records.column("weight"), dtype=float))
    bucket = np.searchsorted(
        np.asarray(edges), now - np.asarray(records.column("event_time"), dtype=float), "right"
    )
    total = np.bincount(bucket, weights, len(edges) + 1)
    done = np.bincount(bucket, weights * has, len(edges) + 1)
    return [float(part / whole) if whole > 0 else None for part, whole in zip(done, total, strict=True)]


def _latest(labels: pa.Table) -> pa.Table:
    """One row a prediction: its latest label by label time, and how many other ones it had."""
    rows: dict[str, tuple[float, int]] = {}
    values: dict[str, set[str]] = {}
    times = labels.column("event_time").to_pylist()
    told = labels.column("label").to_pylist()
    for row, (ident, time) in enumerate(zip(labels.column("prediction_id").to_pylist(), times, strict=True)):
        if ident is None:
            continue
        at = time if time is not None else float("-inf")
        if ident not in rows or at >= rows[ident][0]:
            rows[ident] = (at, row)
        values.setdefault(ident, set()).add(repr(told[row]))
    chosen = pa.array([row for _, row in rows.values()], pa.int64())
    return pa.table(
        {
            "prediction_id": pa.array(list(rows), pa.string()),
            "label": labels.column("label").take(chosen),
            "label_time": labels.column("event_time").take(chosen),
            "corrections": pa.array([len(values[ident]) - 1 for ident in rows], pa.int64()),
        }
    )
