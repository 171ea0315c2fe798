"""Queued calls -> OpenTelemetry's span objects, for any exporter of theirs. Runs in the sending thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode

from mlobs import names
from mlobs.featurelog.freetext import veiled
from mlobs.sdk.otel import present, span_context
from mlobs.sdk.spanjob import SpanJob
from mlobs.sdk.trace import TraceContext

_SCOPE = InstrumentationScope("mlobs")
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


def _safe(value: object) -> object:
    """An attribute with a private form does not leave: its record, found by trace id, has the keyed hash."""
    return veiled(value) if isinstance(value, str) else value


@lru_cache(maxsize=8)
def _resource(items: tuple[tuple[str, str], ...]) -> Resource:
    return Resource(dict(items))


def build(
    jobs: Iterable[SpanJob], resource: Mapping[str, str], bits: Callable[[int], int], shift: int
) -> list[ReadableSpan]:
    """A span for each call, and one below it for each stage, with their true times.

    `shift` is what makes `perf_counter`'s nanoseconds those of the epoch.
    """
    shared = _resource(tuple(sorted(resource.items())))
    spans = []
    for job in jobs:
        record = job.record
        context = span_context(job.context)
        started, ended = _ns(job.start, shift), _ns(job.start + record.duration_s, shift)
        events = (Event("exception", {"exception.type": job.error}, timestamp=ended),) if job.error else ()
        spans.append(
            ReadableSpan(
                name=record.model,
                context=context,
                parent=None if job.parent is None else span_context(job.parent, remote=True),
                resource=shared,
                attributes=_attributes(job),
                events=events,
                kind=SpanKind.INTERNAL,
                status=_ERROR if record.outcome == names.ERROR else _UNSET,
                start_time=started,
                end_time=ended,
                instrumentation_scope=_SCOPE,
            )
        )
        for name, start, end in job.stages():
            below = TraceContext(job.context.trace_id, f"{bits(64) or 1:016x}", job.context.sampled)
            spans.append(
                ReadableSpan(
                    name=name,
                    context=span_context(below),
                    parent=context,
                    resource=shared,
                    attributes={names.ATTR_STAGE: name},
                    kind=SpanKind.INTERNAL,
                    status=_UNSET,
                    start_time=_ns(start, shift),
                    end_time=_ns(end, shift),
                    instrumentation_scope=_SCOPE,
                )
            )
    return spans


def _ns(seconds: float, shift: int) -> int:
    return shift + int(seconds * 1e9)


def _attributes(job: SpanJob) -> dict[str, Any]:
    record = job.record
    given = {
        names.ATTR_MODEL_NAME: record.model,
        names.ATTR_MODEL_VERSION: record.model_version,
        names.ATTR_MODEL_VARIANT: record.variant,
        names.ATTR_PREDICTION_ID: record.prediction_id,
        names.ATTR_SEGMENT: record.segment,
        **(job.attributes or {}),
        "mlobs.outcome": record.outcome,
    }
    return present({name: _safe(value) for name, value in given.items()})
