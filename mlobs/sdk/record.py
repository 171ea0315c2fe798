"""A kept call -> its feature record. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlobs.records import DRAWN, FeatureRecord
from mlobs.sdk.call import Call, Lap
from mlobs.sdk.meter import clean_label


def stage_spans(laps: list[Lap]) -> Iterator[tuple[str, float, float]]:
    """(name, start, end) of each passage that has ended, by `perf_counter`; one still running is left out."""
    for lap in laps:
        took = getattr(lap, "took", None)
        if took is not None:
            yield lap.target[2], lap.start, lap.start + took


def stage_durations(laps: list[Lap]) -> dict[str, float]:
    """Seconds in each stage, passages through the same one added up."""
    durations: dict[str, float] = {}
    for name, start, end in stage_spans(laps):
        durations[name] = durations.get(name, 0.0) + end - start
    return durations


def make_record(
    call: Call,
    laps: list[Lap],
    *,
    service: str,
    model: str,
    version: str,
    variant: str | None,
    outcome: str,
    took: float,
    result: Any,
    entity: str | None,
    now: float,
    rate: float,
) -> FeatureRecord:
    """The record of a call that took `took` seconds. `rate` is the share of calls that are drawn.

    `event_id` stays empty: the writer numbers what it is handed. Weight is 1 for what is always kept (errors,
    slow calls, sampled traces), whether or not it was drawn too.
    """
    return FeatureRecord(
        "",
        call.prediction_id,
        now if call.event_time is None else call.event_time,
        service,
        model,
        version,
        call.features or {},
        result,
        None if call.decision is None else clean_label(call.decision),
        outcome,
        took,
        stage_durations(laps),
        entity,
        variant,
        None if call.segment is None else clean_label(call.segment),
        call.trace_id,
        call.span_id,
        call.reason,
        1.0 / rate if call.reason in DRAWN and rate > 0 else 1.0,
    )
