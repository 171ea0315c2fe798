"""Queued calls -> OpenTelemetry's span objects, for any exporter of theirs. Runs in the sending thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

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
    jobs: Iterable[SpanJob], resource: Mapping[str, str], bits: Callable[[int], int]
) -> list[ReadableSpan]:
    """A span for each call, and one below it for each stage, with their true times."""
    shared = _resource(tuple(sorted(resource.items())))
    spans = []
    for job in jobs:
        context = span_context(job.context)
        failed = job.outcome == names.ERROR
        events = (Event("exception", {"exception.type": job.error}, timestamp=job.end),) if job.error else ()
        spans.append(
            ReadableSpan(
                name=job.name,
                context=context,
                parent=None if job.parent is None else span_context(job.parent, remote=True),
                resource=shared,
                attributes=present(
                    {name: _safe(value) for name, value in job.attributes.items()}
                    | {"mlobs.outcome": job.outcome}
                ),
                events=events,
                kind=SpanKind.INTERNAL,
                status=_ERROR if failed else _UNSET,
                start_time=job.start,
                end_time=job.end,
                instrumentation_scope=_SCOPE,
            )
        )
        for name, start, end in job.stages:
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
                    start_time=start,
                    end_time=end,
                    instrumentation_scope=_SCOPE,
                )
            )
    return spans
