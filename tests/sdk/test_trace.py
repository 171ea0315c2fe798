"""Our `traceparent` parser says what opentelemetry's W3C propagator says, and context passes through."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import mlobs
from mlobs.integrations.passage import Passage
from mlobs.sdk import otel
from mlobs.sdk.api import installed
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.spans import SpanPipeline
from mlobs.sdk.trace import TraceContext, parse_traceparent
from mlobs.settings import Settings
from mlobs.testing import MemoryLog

W3C = TraceContextTextMapPropagator()
HEX = "0123456789abcdef"
GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def theirs(header: str) -> tuple[int, int, bool] | None:
    """What the propagator reads: (trace id, span id, sampled)."""
    found = trace.get_current_span(W3C.extract({"traceparent": header})).get_span_context()
    return (found.trace_id, found.span_id, found.trace_flags.sampled) if found.is_valid else None


def ours(header: str) -> tuple[int, int, bool] | None:
    found = parse_traceparent(header)
    return None if found is None else (int(found.trace_id, 16), int(found.span_id, 16), found.sampled)


def hexes(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(HEX + "AFg-٣ ", min_size=least, max_size=most) | st.text(HEX, min_size=most, max_size=most)


@st.composite
def headers(draw: st.DrawFn) -> str:
    """Headers near the right form: each part right or nearly so, something before and after."""
    version = draw(
        st.sampled_from(["00", "00", "01", "cc", "ff", "0", "000", "0g", "FF", "-1"]) | hexes(0, 2)
    )
    trace_id = draw(st.sampled_from(["0" * 32, GOOD[3:35], GOOD[3:35].upper()]) | hexes(30, 32))
    span_id = draw(st.sampled_from(["0" * 16, GOOD[36:52], GOOD[36:52].upper()]) | hexes(14, 16))
    flags = draw(st.sampled_from(["00", "01", "02", "03", "ff", "FF", "1", "zz", ""]) | hexes(0, 2))
    rest = draw(st.sampled_from(["", "", "", "-", "-x", "-00-what", "x", " ", "\t", "\n", "\r\n", "\x00"]))
    before = draw(st.sampled_from(["", "", "", " ", "\t", "\n", "x"]))
    return before + "-".join((version, trace_id, span_id, flags)) + rest


@settings(max_examples=1_500)
@given(headers() | st.text(max_size=60))
@example(GOOD)
@example(GOOD + "-")
@example("cc" + GOOD[2:] + "-what")
@example("cc" + GOOD[2:] + ".what")
@example("cc" + GOOD[2:] + "-" + "x" * 456)
@example("cc" + GOOD[2:] + "-" + "x" * 457)
@example("cc" + GOOD[2:] + "-a\nb")
@example(GOOD + "\u3000")
@example("ff" + GOOD[2:])
def test_our_parser_and_the_propagator_read_every_header_alike(header: str) -> None:
    assert ours(header) == theirs(header), header


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_we_write_the_propagator_reads(trace_id: int, span_id: int, sampled: bool) -> None:
    context = TraceContext(f"{trace_id:032x}", f"{span_id:016x}", sampled)
    assert theirs(context.traceparent) == ours(context.traceparent) == (trace_id, span_id, sampled)


@mlobs.observe(model="propagates")
def asks_another() -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@pytest.mark.parametrize("flags", ["00", "01"])
def test_what_an_unkept_call_asks_of_others_carries_the_requests_context(flags: str) -> None:
    exporter = InMemorySpanExporter()
    runtime = Runtime(Settings(service="test", sample=0.0), log=MemoryLog(), strict=True)
    runtime.spans = SpanPipeline(lambda: exporter, {}, runtime.guard, runtime.bits)
    with installed(runtime):
        asks_another()
        passage = Passage(lambda: (GOOD[:-2] + flags, "vendor=1"))
        carrier = asks_another()
        passage.release()
        assert asks_another() == {}
        assert runtime.close(5.0)
    assert carrier["tracestate"] == "vendor=1"
    kept = exporter.get_finished_spans()
    if flags == "00":  # not kept: the request's own context goes on
        assert carrier["traceparent"] == GOOD[:-2] + flags
        assert kept == ()
    else:  # kept because the parent is: what it calls is below our span
        assert [f"{span.context.span_id:016x}" for span in kept] == [carrier["traceparent"][36:52]]
        assert carrier["traceparent"].startswith(GOOD[:35])


def test_a_span_that_is_active_already_stays_the_one_that_others_continue() -> None:
    runtime = Runtime(Settings(service="test", sample=0.0), log=MemoryLog(), strict=True)
    runtime.spans = SpanPipeline(InMemorySpanExporter, {}, runtime.guard, runtime.bits)
    active = TraceContext("1" * 32, "2" * 16, True)
    with installed(runtime):
        token = otel.attach(active)
        passage = Passage(lambda: (GOOD, ""))
        found = otel.active()
        passage.release()
        assert otel.active() == active
        otel.detach(token)
    assert found == active
