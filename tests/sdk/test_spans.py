"""Spans of kept calls: true times, the parent's trace, the truth about what was sent."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mlobs
from mlobs.sdk import otel
from mlobs.sdk import spans as spans_module
from mlobs.sdk.api import installed
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.spans import SpanPipeline
from mlobs.sdk.trace import INCOMING, TraceContext
from mlobs.settings import Settings
from mlobs.testing import MemoryLog

PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True)


def traced(exporter: SpanExporter, *, sample: float = 1.0) -> Runtime:
    log = MemoryLog()
    runtime = Runtime(Settings(service="test", sample=sample), log=log, strict=True)
    runtime.spans = SpanPipeline(lambda: exporter, {"service.name": "test"}, runtime.guard, runtime.bits)
    return runtime


@mlobs.observe(model="spans", version="3")
def score(request: dict) -> str | None:
    with mlobs.stage("feature_read"):
        pass
    with mlobs.stage("inference"):
        if request.get("bad"):
            raise KeyError("secret")
    return mlobs.current().trace_id


def test_a_kept_call_becomes_a_span_with_its_stages_below_it() -> None:
    exporter = InMemorySpanExporter()
    with installed(traced(exporter)) as runtime:
        trace_id = score({})
        assert runtime.flush(5.0)
    root, *stages = exporter.get_finished_spans()
    assert root.name == "spans"
    assert root.attributes is not None
    assert root.attributes["ml.model.version"] == "3"
    assert [span.name for span in stages] == ["feature_read", "inference"]
    assert f"{root.context.trace_id:032x}" == trace_id
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time  # type: ignore[operator]
    assert isinstance(runtime.log, MemoryLog)
    assert (runtime.log.records[0].trace_id, runtime.log.records[0].span_id) == (
        trace_id,
        f"{root.context.span_id:016x}",
    )


def test_a_sampled_parent_is_honoured_whatever_the_rate() -> None:
    exporter = InMemorySpanExporter()
    with installed(traced(exporter, sample=0.0)) as runtime:
        score({})
        token = INCOMING.set(PARENT)
        try:
            score({})
        finally:
            INCOMING.reset(token)
        assert runtime.flush(5.0)
    roots = [span for span in exporter.get_finished_spans() if span.name == "spans"]
    assert len(roots) == 1
    assert f"{roots[0].context.trace_id:032x}" == PARENT.trace_id
    assert roots[0].parent is not None
    assert f"{roots[0].parent.span_id:016x}" == PARENT.span_id
    assert isinstance(runtime.log, MemoryLog)
    assert [record.sampling_reason for record in runtime.log.records] == ["trace"]


def test_a_parent_that_is_not_sampled_is_honoured_but_for_errors() -> None:
    passed_on = []

    @mlobs.observe(model="below")
    def below(request: dict) -> None:
        passed_on.append(trace.get_current_span().get_span_context())
        if request.get("bad"):
            raise KeyError("bad")

    exporter = InMemorySpanExporter()
    with installed(traced(exporter)) as runtime:
        token = INCOMING.set(PARENT._replace(sampled=False))
        try:
            below({})
            with pytest.raises(KeyError):
                below({"bad": True})
        finally:
            INCOMING.reset(token)
        assert runtime.flush(5.0)
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["mlobs.outcome"] == "error"
    assert span.context.trace_flags.sampled
    assert [f"{each.trace_id:032x}" for each in passed_on] == [PARENT.trace_id] * 2
    assert not any(each.trace_flags.sampled for each in passed_on)
    assert isinstance(runtime.log, MemoryLog)
    reasons = [(record.sampling_reason, record.trace_id) for record in runtime.log.records]
    assert reasons == [("rate", PARENT.trace_id), ("error", PARENT.trace_id)]


def test_what_a_kept_call_calls_continues_its_trace() -> None:
    seen = []

    @mlobs.observe(model="outer")
    def outer() -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        seen.append(mlobs.current().trace_id)

    with installed(traced(InMemorySpanExporter())) as runtime:
        outer()
        assert runtime.flush(5.0)
    assert f"{seen[0]:032x}" == seen[1]
    assert otel.active() is None


def test_an_error_is_kept_with_the_exceptions_type_and_not_its_text() -> None:
    exporter = InMemorySpanExporter()
    with installed(traced(exporter, sample=0.0)) as runtime:
        with pytest.raises(KeyError):
            score({"bad": True})
        assert runtime.flush(5.0)
    (root, *_) = exporter.get_finished_spans()
    assert root.status.status_code is trace.StatusCode.ERROR
    assert root.events[0].attributes == {"exception.type": "KeyError"}
    assert "secret" not in root.to_json()


class Hung(SpanExporter):
    """Takes nothing until it is let go; then says what it is told to."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.go = threading.Event()
        self.result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        return self.result

    def shutdown(self) -> None:
        pass


def test_flush_obeys_its_deadline_and_says_that_a_hung_collector_took_nothing() -> None:
    exporter = Hung()
    with installed(traced(exporter)) as runtime:
        score({})
        assert runtime.flush(0.05) is False
        assert runtime.spans is not None
        assert runtime.spans.ledger().queued == 3
        exporter.go.set()
        assert runtime.flush(5.0) is True
        assert runtime.spans.ledger().balanced
        assert runtime.spans.ledger().delivered == 3


def test_flush_is_false_when_the_collector_refuses_and_the_loss_is_counted() -> None:
    exporter = Hung(SpanExportResult.FAILURE)
    exporter.go.set()
    with installed(traced(exporter)) as runtime:
        score({})
        assert runtime.flush(5.0) is False
        assert runtime.spans is not None
        ledger = runtime.spans.ledger()
    assert (ledger.offered, ledger.dropped, ledger.queued) == (3, {"export_failed": 3}, 0)


def test_without_a_thread_spans_are_dropped_and_counted_and_the_call_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    runtime = traced(InMemorySpanExporter())
    runtime.guard.strict = False
    with installed(runtime):
        assert score({}) is not None
    assert runtime.spans is not None
    assert runtime.spans.ledger().dropped == {"no_thread": 3}
    assert runtime.guard.counts == {"spans_thread": 1}


@mlobs.observe(model="spans", version="3", prediction_id="id", segment="segment")
def named(request: dict) -> float:
    return 0.5


@pytest.mark.parametrize("private", ["4111111111111111", "jane.roe@example.com", "DE89370400440532013000"])
def test_an_identifier_with_a_private_form_does_not_leave_in_a_span(private: str) -> None:
    exporter = InMemorySpanExporter()
    with installed(traced(exporter)) as runtime:
        named({"id": private, "segment": private})
        assert runtime.flush(5.0)
    (span,) = exporter.get_finished_spans()
    assert private not in span.to_json()
    assert span.attributes is not None
    assert span.attributes["ml.prediction.id"] == span.attributes["ml.segment"] == "[private]"


@pytest.mark.parametrize("function", [named, score])
def test_a_call_of_a_sampled_trace_has_weight_one_whether_or_not_it_was_also_drawn(function) -> None:
    token = INCOMING.set(PARENT)
    try:
        with installed(traced(InMemorySpanExporter(), sample=0.3)) as runtime:
            for number in range(2000):
                function({"id": f"r{number}", "segment": "EWR"})
    finally:
        INCOMING.reset(token)
    assert isinstance(runtime.log, MemoryLog)
    assert [record.weight for record in runtime.log.records] == [1.0] * 2000


def test_threads_that_hand_over_at_once_lose_no_span_from_the_account() -> None:
    exporter = InMemorySpanExporter()
    threads, calls = 8, 60
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with installed(traced(exporter)) as runtime:
            workers = [
                threading.Thread(target=lambda: [score({}) for _ in range(calls)]) for _ in range(threads)
            ]
            for worker in workers:
                worker.start()
            assert runtime.spans is not None
            while any(worker.is_alive() for worker in workers):
                assert runtime.spans.ledger().balanced
            assert runtime.flush(20.0)
            ledger = runtime.spans.ledger()
    finally:
        sys.setswitchinterval(interval)
    assert ledger.offered == ledger.delivered == 3 * threads * calls
    assert len(exporter.get_finished_spans()) == 3 * threads * calls


class Gated(SpanExporter):
    """Says when it was asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked, self.may = threading.Event(), threading.Event()
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        assert self.may.wait(20.0)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def test_a_queue_that_is_full_drops_and_counts_every_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "MOST_CALLS", 5)
    exporter = Gated()
    with installed(traced(exporter)) as runtime:
        score({})
        assert exporter.asked.wait(20.0)
        for _ in range(8):
            score({})
        assert runtime.spans is not None
        ledger = runtime.spans.ledger()
        assert (ledger.offered, ledger.queued, dict(ledger.dropped)) == (27, 18, {"full": 9})
        exporter.may.set()
        assert runtime.flush(20.0)
        assert runtime.close(20.0)
        score({})
        ledger = runtime.spans.ledger()
    assert exporter.taken == ledger.delivered == 18
    assert dict(ledger.dropped) == {"full": 9, "closed": 3}
    assert ledger.balanced


def test_a_stage_that_outlives_its_call_is_in_no_span_and_the_account_stays() -> None:
    exporter = InMemorySpanExporter()
    left: list[object] = []

    @mlobs.observe(model="outlived")
    def outlived() -> None:
        stage = mlobs.stage("afterwards")
        stage.__enter__()
        left.append(stage)

    with installed(traced(exporter)) as runtime:
        outlived()
        assert runtime.spans is not None
        before = runtime.spans.ledger().offered
        left[0].__exit__(None, None, None)  # type: ignore[attr-defined]
        assert runtime.flush(5.0)
        assert runtime.spans.ledger().offered == before == 1
    assert [span.name for span in exporter.get_finished_spans()] == ["outlived"]
    assert isinstance(runtime.log, MemoryLog)
    assert runtime.log.records[0].stage_durations_s == {}


def test_a_kept_call_in_a_signal_handler_waits_for_no_lock_of_the_interrupted_one() -> None:
    exporter = InMemorySpanExporter()
    with installed(traced(exporter)) as runtime:
        assert runtime.spans is not None
        before = signal.signal(signal.SIGUSR1, lambda *_: score({}))
        try:
            with runtime.spans._wake:  # as a first call has it, or a flush
                signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert runtime.flush(5.0)
    assert len(exporter.get_finished_spans()) == 3
