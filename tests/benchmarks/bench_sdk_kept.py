"""Kept calls with 30 features and five spans, and everything at 1 %, beside a careful user's stack.

CPU seconds net of the bare function, of the process (background threads of both sides counted) and of the
caller's thread. The peer's kept call: opentelemetry-sdk with its batch processor, and an orjson line with
three features keyed-hashed. The careful user's stack: histogram, counter, in-flight gauge, four stage
histograms, W3C extract, traces with four stage spans where the parent is sampled (1 % of the carriers), a
JSON line for 1 % of the calls; ours also keeps the record of each traced call. Both sides' exporters take
spans and do nothing with them.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import mlobs
from mlobs.sdk.trace import INCOMING, parse_traceparent
from tests.benchmarks.figures import Row, show
from tests.benchmarks.stages import STAGES, bare, four_stages

REQUEST: dict[str, Any] = {f"feature_{place}": place * 0.37 for place in range(27)}
REQUEST |= {"email": "user17@example.org", "phone": "+491701234567", "device": "d4711"}
SECRET = ("email", "phone", "device")
KEY = b"0123456789abcdef0123456789abcdef"
CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
SAMPLED = {"traceparent": CARRIER["traceparent"][:-2] + "01"}


def carriers() -> Callable[[], dict[str, str]]:
    """One request in a hundred comes from a caller that traces it; both sides honour that."""
    return cycle([CARRIER] * 99 + [SAMPLED]).__next__


REGISTRY = CollectorRegistry()
CALL = Histogram("call_seconds", "A call.", ["model"], registry=REGISTRY).labels("m")
DONE = Counter("calls", "Calls.", ["model", "outcome"], registry=REGISTRY).labels("m", "ok")
FLIGHT = Gauge("in_flight", "In flight.", ["model"], registry=REGISTRY).labels("m")
STAGE = Histogram("stage_seconds", "A stage.", ["stage"], registry=REGISTRY)
RESOLVED = {name: STAGE.labels(name) for name in STAGES}
W3C = TraceContextTextMapPropagator()


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def line_of(request: dict[str, Any], result: float, took: float, span: trace.Span) -> bytes:
    features = dict(request)
    for name in SECRET:
        features[name] = hashlib.blake2b(features[name].encode(), key=KEY, digest_size=16).hexdigest()
    context = span.get_span_context()
    return orjson.dumps(
        {
            "time": time.time(),
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "model": "m",
            "features": features,
            "prediction": result,
            "duration_s": took,
        }
    )


def kept_by_hand(tracer: trace.Tracer, log: logging.Logger) -> Callable[[dict[str, Any]], float]:
    def score(request: dict[str, Any]) -> float:
        start = time.perf_counter()
        with tracer.start_as_current_span("m", attributes={"ml.model.name": "m"}) as span:
            for name in STAGES:
                with tracer.start_as_current_span(name, attributes={"ml.stage": name}):
                    pass
            log.info("%s", line_of(request, 0.5, time.perf_counter() - start, span).decode())
        return 0.5

    return score


def careful(tracer: trace.Tracer, log: logging.Logger) -> Callable[[dict[str, Any]], float]:
    carrier = carriers()

    def score(request: dict[str, Any]) -> float:
        FLIGHT.inc()
        start = time.perf_counter()
        try:
            with tracer.start_as_current_span("m", context=W3C.extract(carrier())) as span:
                for name in STAGES:
                    with RESOLVED[name].time(), tracer.start_as_current_span(name):
                        pass
            DONE.inc()
            took = time.perf_counter() - start
            CALL.observe(took)
            if random.random() < 0.01:
                log.info("%s", line_of(request, 0.5, took, span).decode())
        finally:
            FLIGHT.dec()
        return 0.5

    return score


def in_a_request(fn: Callable[[dict[str, Any]], float]) -> Callable[[dict[str, Any]], float]:
    """Our side of the context: what the integrations do with the same carrier."""
    carrier = carriers()
    read, enter, leave = parse_traceparent, INCOMING.set, INCOMING.reset

    def score(request: dict[str, Any]) -> float:
        token = enter(read(carrier()["traceparent"]))
        try:
            return fn(request)
        finally:
            leave(token)

    return score


def cost(
    fn: Callable[[dict[str, Any]], float], calls: int, settle: Callable[[], object]
) -> tuple[float, float]:
    """(all threads', the caller's) CPU seconds a call; what is queued is done before the clock stops."""
    settle()
    process, thread = time.process_time(), time.thread_time()
    for _ in range(calls):
        fn(REQUEST)
    mine = time.thread_time() - thread
    settle()
    return (time.process_time() - process) / calls, mine / calls


def best(
    sides: dict[str, tuple[Callable[[dict[str, Any]], float], Callable[[], object]]], rounds: int, calls: int
) -> dict[str, tuple[float, float]]:
    found = {name: (float("inf"), float("inf")) for name in sides}
    for _ in range(rounds):
        for name, (fn, settle) in sides.items():
            everything, mine = cost(fn, calls, settle)
            found[name] = min(found[name][0], everything), min(found[name][1], mine)
    return found


def peer(folder: Path, ratio: float) -> tuple[trace.Tracer, logging.Logger, Callable[[], object]]:
    sampler = ALWAYS_ON if ratio >= 1 else ParentBased(TraceIdRatioBased(ratio))
    provider = TracerProvider(resource=Resource({"service.name": "s"}), sampler=sampler)
    processor = BatchSpanProcessor(Nowhere(), max_queue_size=1 << 16, schedule_delay_millis=200)
    provider.add_span_processor(processor)
    log = logging.getLogger(f"peer{ratio}")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(logging.FileHandler(folder / f"peer{ratio}.log"))
    return provider.get_tracer("peer"), log, lambda: processor.force_flush(10_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2_000)
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample, title, calls in (
            (1.0, "kept call", given.calls),
            (0.01, "everything at 1 %", given.calls * 3),
        ):
            mlobs.init(
                service="bench", sample=sample, trace_sample=sample, feature_log=str(folder / f"log{sample}"),
                exporter=Nowhere(),
            )  # fmt: skip
            ours = mlobs.observe(model=f"m{sample}")(four_stages(mlobs.stage))
            tracer, log, settle = peer(folder, sample)
            theirs = (kept_by_hand if sample == 1.0 else careful)(tracer, log)
            mine = ours if sample == 1.0 else in_a_request(ours)
            for fn in (mine, theirs):
                for _ in range(2_000):
                    fn(REQUEST)
            got = best(
                {
                    "bare": (bare, lambda: None),
                    "ours": (mine, lambda: mlobs.flush(10)),
                    "theirs": (theirs, settle),
                },
                given.rounds,
                calls,
            )
            goals = (0.50, 0.10) if sample == 1.0 else (0.12, 0.12)
            for place, where in enumerate(("all threads", "the caller's")):
                us, them = (got[side][place] - got["bare"][place] for side in ("ours", "theirs"))
                rows.append(Row(f"{title}, {where}", us * 1e6, them * 1e6, goals[place]))
            mlobs.close(10)
    return show("us a call", rows)


if __name__ == "__main__":
    sys.exit(main())
