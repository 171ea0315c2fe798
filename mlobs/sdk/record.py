"""A kept call -> its feature record. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlobs.records import DRAWN, RECORD_VERSION, FeatureRecord
from mlobs.sdk.call import Call, Lap
from mlobs.sdk.meter import clean_label

_new = tuple.__new__


def stage_spans(laps: Sequence[Lap], until: float) -> Iterator[tuple[str, float, float]]:
    """(name, start, end) of each passage that has ended by `until`, by `perf_counter`; no other."""
    for lap in laps:
        took = getattr(lap, "took", None)
        if took is not None and lap.start + took <= until:
            yield lap.target[2], lap.start, lap.start + took


def stage_durations(laps: Sequence[Lap], until: float) -> dict[str, float]:
    """Seconds in each stage, passages through the same one added up."""
    durations: dict[str, float] = {}
    try:
        for lap in laps:
            name = lap.target[2]
            durations[name] = durations.get(name, 0.0) + lap.took
    except AttributeError:  # one is still running: look at each
        durations.clear()
        for name, start, end in stage_spans(laps, until):
            durations[name] = durations.get(name, 0.0) + end - start
    return durations


def make_record(
    call: Call,
    laps: Sequence[Lap],
    service: str,
    model: str,
    version: str,
    variant: str | None,
    outcome: str,
    start: float,
    took: float,
    result: Any,
    entity: str | None,
    now: float,
    rate: float,
) -> FeatureRecord:
    """The record of a call of `took` seconds from `start` on. `rate` is the share of calls that are drawn.

    `event_id` stays empty: the writer numbers what it is handed. Weight is 1 for what is always kept (errors,
    slow calls, sampled traces), whether or not it was drawn too.
    """
    context, decision, segment, reason = call.context, call.decision, call.segment, call.reason
    return _new(  # not FeatureRecord(...), which costs four times as much
        FeatureRecord,
        (
            "",
            call.prediction_id,
            now if call.event_time is None else call.event_time,
            service,
            model,
            version,
            call.features or {},
            result,
            None if decision is None else clean_label(decision),
            outcome,
            took,
            stage_durations(laps, start + took) if laps else {},
            entity,
            variant,
            None if segment is None else clean_label(segment),
            call.trace_id if context is None else context[0],
            None if context is None else context[1],
            reason,
            1.0 / rate if reason in DRAWN and rate > 0 else 1.0,
            RECORD_VERSION,
        ),
    )
