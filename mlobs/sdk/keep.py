"""What becomes of a kept call: a record for the feature log, spans for the collector, an exemplar."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache, partial
from time import perf_counter, time_ns
from types import ModuleType
from typing import Any, Protocol

from mlobs import names
from mlobs.records import DRAWN
from mlobs.sdk import rows
from mlobs.sdk.call import Call, Lap, Marker
from mlobs.sdk.guard import Guard
from mlobs.sdk.meter import clean_label
from mlobs.sdk.record import make_record, stage_spans
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.spanjob import SpanJob
from mlobs.sdk.trace import INCOMING, TraceContext, new_context


class Observed(Protocol):
    """The observed function, as a record needs it."""

    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def variant(self) -> str | None: ...

    @property
    def batch(self) -> Batch | None: ...


@lru_cache(maxsize=1)
def _otel() -> ModuleType:
    """The bridge to OpenTelemetry, imported while tracing alone: it weighs, and an import costs each time."""
    from mlobs.sdk import otel

    return otel


def enter_trace(runtime: Runtime, call: Call) -> None:
    """Give a kept call its place in a trace, and, while tracing, make it the parent of what it calls."""
    call.parent = _parent(runtime)
    call.context = new_context(call.parent, runtime.bits, sampled=runtime.spans is not None)
    if runtime.spans is not None:
        otel = _otel()
        call.detach = otel.attach(call.context)


def _parent(runtime: Runtime) -> TraceContext | None:
    """The active OpenTelemetry span of this context, else what the request brought."""
    if runtime.spans is not None or "opentelemetry.trace" in sys.modules:
        otel = _otel()
        found: TraceContext | None = otel.active()
        if found is not None:
            return found
    return INCOMING.get()


def drop_context(marker: Marker, guard: Guard) -> None:
    """Take our span out of the OpenTelemetry context at the end of its call."""
    call = marker[0]
    if type(call) is Call and call.detach is not None:
        try:
            _otel().detach(call.detach)
        except Exception as problem:  # noqa: BLE001 - the guard's
            guard.swallow("detach", problem)


def keep(
    runtime: Runtime,
    observed: Observed,
    call: Call,
    laps: list[Lap],
    outcome: str,
    start: float,
    took: float,
    result: Any,
    error: BaseException | None,
    entity: str | None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Hand over a kept call; a few microseconds, the rest is done by threads of their own."""
    if call.context is None:  # kept at its end: slow or failed
        call.parent = _parent(runtime)
        call.context = new_context(call.parent, runtime.bits, sampled=runtime.spans is not None)
    rate = runtime.rate_of(observed.model)
    if runtime.log is not None:
        record = make_record(
            call,
            laps,
            service=runtime.settings.service,
            model=observed.model,
            version=observed.version,
            variant=observed.variant,
            outcome=outcome,
            took=took,
            result=result,
            entity=entity,
            now=runtime.clock(),
            rate=rate,
        )
        batch = observed.batch
        if batch is None or call.chosen is None:
            runtime.log.offer(record)
        else:
            for row in rows.records(
                batch, call.chosen, record, result, args, kwargs or {}, rate, runtime.guard
            ):
                runtime.log.offer(row)
    noted = (observed.model, observed.version, outcome), took, call.context, runtime.clock()
    if runtime.spans is None:
        runtime.exemplars.note(*noted)
    elif _traced(runtime, call, rate):
        shift = time_ns() - int(perf_counter() * 1e9)
        runtime.spans.offer(
            SpanJob(
                observed.model,
                call.context,
                call.parent,
                shift + int(start * 1e9),
                shift + int((start + took) * 1e9),
                {
                    names.ATTR_MODEL_NAME: observed.model,
                    names.ATTR_MODEL_VERSION: observed.version,
                    names.ATTR_MODEL_VARIANT: observed.variant,
                    names.ATTR_PREDICTION_ID: call.prediction_id,
                    names.ATTR_SEGMENT: None if call.segment is None else clean_label(call.segment),
                    **(call.attributes or {}),
                },
                outcome,
                None if error is None else type(error).__qualname__,
                [
                    (name, shift + int(began * 1e9), shift + int(ended * 1e9))
                    for name, began, ended in stage_spans(laps)
                ],
                partial(runtime.exemplars.note, *noted),
            )
        )


def _traced(runtime: Runtime, call: Call, rate: float) -> bool:
    """Of the drawn calls the share that `trace_sample` asks for; of the always kept all."""
    share = runtime.settings.trace_sample
    if call.reason not in DRAWN or share is None or share >= rate:
        return True
    return runtime.random() * rate < share
