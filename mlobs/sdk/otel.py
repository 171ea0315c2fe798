"""The bridge to OpenTelemetry: loaded when tracing starts, or used where the host has loaded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.span import TraceState

from mlobs.sdk.trace import TraceContext

_NO_STATE = TraceState()
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_UNSAMPLED = trace.TraceFlags(trace.TraceFlags.DEFAULT)


def span_context(context: TraceContext, *, remote: bool = False) -> trace.SpanContext:
    """Our context as theirs."""
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    flags = _SAMPLED if context.sampled else _UNSAMPLED
    return trace.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, flags, state)


class _Entered(trace.NonRecordingSpan):
    """A span that stands for a context of ours, made theirs when somebody asks: most calls ask nothing of
    others.
    """

    def __init__(self, context: TraceContext, remote: bool) -> None:
        self.ours, self._remote = context, remote

    def __repr__(self) -> str:
        return f"NonRecordingSpan({self.get_span_context()!r})"

    def get_span_context(self) -> trace.SpanContext:
        return span_context(self.ours, remote=self._remote)


def attach(context: TraceContext, *, remote: bool = False) -> Any:
    """Make `context` the current span of this context: what the call calls then continues the trace."""
    return otel_context.attach(trace.set_span_in_context(_Entered(context, remote)))


def detach(token: Any) -> None:
    """Undo `attach`."""
    otel_context.detach(token)


def active() -> TraceContext | None:
    """The active span of this context, None when there is none."""
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN:
        return None
    if type(span) is _Entered:
        return span.ours
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(
        f"{found.trace_id:032x}",
        f"{found.span_id:016x}",
        found.trace_flags.sampled,
        found.trace_state.to_header(),
    )


def present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that have a value."""
    return {name: value for name, value in attributes.items() if value not in (None, "")}
