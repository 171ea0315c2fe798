"""What becomes of a kept call: a record for the feature log, spans for the collector, an exemplar."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

from mlobs.records import DRAWN
from mlobs.sdk import rows
from mlobs.sdk.call import Call, Lap, Marker
from mlobs.sdk.guard import Guard
from mlobs.sdk.record import make_record
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.spanjob import SpanJob
from mlobs.sdk.trace import INCOMING, TraceContext, new_context

_new = tuple.__new__


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
    call.parent = parent = _parent(runtime)
    sampled = runtime.spans is not None and (parent is None or parent.sampled)
    call.context = new_context(parent, runtime.bits, sampled=sampled)
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
    laps: Sequence[Lap],
    outcome: str,
    start: float,
    took: float,
    result: Any,
    error: BaseException | None,
    entity: str | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """Hand over a kept call; about 3 us, the rest is done by threads of their own."""
    context = call.context
    if context is None:  # kept at its end: slow or failed
        call.parent = _parent(runtime)
        context = call.context = new_context(call.parent, runtime.bits, sampled=runtime.spans is not None)
    rate = runtime.rate_of(observed.model)
    now = runtime.clock()
    if call._id is None:  # a draw of ours costs a third of what the system's random bytes do
        call._id = f"{runtime.bits(128):032x}"
    record = make_record(
        call, laps, runtime.settings.service, observed.model, observed.version, observed.variant, outcome,
        start, took, result, entity, now, rate,
    )  # fmt: skip
    if runtime.log is not None:
        batch = observed.batch
        if batch is None or call.chosen is None:
            runtime.log.offer(record)
        else:
            for row in rows.records(batch, call.chosen, record, result, args, kwargs, rate, runtime.guard):
                runtime.log.offer(row)
    if runtime.spans is None:
        runtime.exemplars.note((observed.model, observed.version, outcome), took, context, now)
    elif _traced(runtime, call, rate):
        if not context.sampled:  # an error or a slow call in a trace that was decided against
            context = context._replace(sampled=True)
        kind = None if error is None else type(error).__qualname__
        note = runtime.exemplars.note
        runtime.spans.offer(
            _new(SpanJob, (record, context, call.parent, start, laps, call.attributes, kind, now, note))
        )


def _traced(runtime: Runtime, call: Call, rate: float) -> bool:
    """Of the always kept all; of the drawn, where no parent has decided against, what `trace_sample` asks."""
    if call.reason not in DRAWN:
        return True
    if call.parent is not None and not call.parent.sampled:
        return False
    share = runtime.settings.trace_sample
    if share is None or share >= rate:
        return True
    return runtime.random() * rate < share
