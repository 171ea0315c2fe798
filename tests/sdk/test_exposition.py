"""What a scraper gets: exemplars that resolve, native histograms with the right quantiles, by negotiation."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import mlobs
from mlobs.sdk.api import installed
from mlobs.sdk.buckets import make_bounds
from mlobs.sdk.meter import REQUEST
from mlobs.sdk.native import Native, make_native
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.serve import render
from mlobs.sdk.spans import SpanPipeline
from mlobs.settings import Settings
from mlobs.testing import MemoryLog
from tests.servers import Prometheus, eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
BUCKET = "mlobs_request_duration_seconds_bucket"


def traced(**more: object) -> tuple[Runtime, InMemorySpanExporter, MemoryLog]:
    exporter, log = InMemorySpanExporter(), MemoryLog()
    given = {"service": "test", "sample": 1.0, "native": True, **more}
    runtime = Runtime(Settings(**given), log=log, strict=True)  # type: ignore[arg-type]
    runtime.spans = SpanPipeline(lambda: exporter, {"service.name": "test"}, runtime.guard, runtime.bits)
    return runtime, exporter, log


@mlobs.observe(model="exposed", version="1")
def score(request: dict) -> float:
    return 0.5


def test_a_family_comes_once_however_many_pipelines_report_in_it() -> None:
    with installed(traced()[0]):
        text = render(OPENMETRICS)[0].decode()
    assert text.count("# TYPE mlobs_pipeline_offered counter") == 1
    assert text.count("mlobs_pipeline_offered_total{") == 2


def exemplars_shown() -> list[str]:
    families = text_string_to_metric_families(render(OPENMETRICS)[0].decode())
    return [
        sample.exemplar.labels["trace_id"]
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]


def test_an_exemplar_leads_to_its_trace_and_to_its_feature_record() -> None:
    runtime, exporter, log = traced()
    with installed(runtime):
        for number in range(3):
            score({"n": number})
        found = exemplars_shown()
        assert runtime.flush(5.0)
    assert found
    traces = {f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()}
    assert set(found) <= traces
    assert set(found) <= {record.trace_id for record in log.records}


def test_a_call_that_is_recorded_but_not_traced_is_no_exemplar() -> None:
    runtime, _, log = traced(trace_sample=0.0)
    with installed(runtime):
        score({})
        assert exemplars_shown() == []
    assert len(log.records) == 1


def test_a_call_whose_spans_were_dropped_is_no_exemplar() -> None:
    runtime, _, log = traced()
    assert runtime.spans is not None
    runtime.spans.close(0.1)
    with installed(runtime):
        score({})
        assert exemplars_shown() == []
    assert len(log.records) == 1


@pytest.mark.parametrize(
    ("accept", "native", "starts"),
    [
        (PROTOBUF + "," + OPENMETRICS + ";q=0.8", True, "application/vnd.google.protobuf"),
        (PROTOBUF + "," + OPENMETRICS + ";q=0.8", False, "application/openmetrics-text"),
        (OPENMETRICS, True, "application/openmetrics-text"),
        ("", True, "text/plain"),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited", True, "text/plain"),
    ],
)
def test_the_format_is_what_the_scraper_accepts_and_protobuf_only_when_asked_for(
    accept: str, native: bool, starts: str
) -> None:
    with installed(traced(native=native)[0]):
        score({})
        assert render(accept)[1].startswith(starts)


def opened(native: Native) -> dict[int, int]:
    """Counts by bucket, read as a scraper reads spans and deltas."""
    found, deltas, place, count = {}, iter(native.deltas), 0, 0
    for gap, length in native.spans:
        place += gap
        for _ in range(length):
            count += next(deltas)
            found[place] = count
            place += 1
    assert next(deltas, None) is None
    return found


@given(st.lists(st.floats(1e-6, 60.0)), st.lists(st.floats(1e-4, 100.0), min_size=1, max_size=5))
def test_native_buckets_hold_what_was_observed_in_them(values: list[float], edges: list[float]) -> None:
    bounds = make_bounds(edges)
    counts = [0.0] * bounds.size
    expected: dict[int, int] = {}
    zero = 0
    for value in values:
        counts[bisect_left(bounds.fine, value)] += 1
        if value <= 2.0**bounds.low:
            zero += 1
        else:
            place = next(step for step in range(-14 * 8, 49) if value <= 2.0 ** (step / 8))
            expected[place] = expected.get(place, 0) + 1
    native = make_native(counts, math.fsum(values), bounds)
    assert (native.zero_count, native.count) == (zero, len(values))
    assert opened(native) == expected


def test_what_is_beyond_the_scale_stands_above_its_last_bucket() -> None:
    bounds = make_bounds([0.1])
    counts = [0.0] * (bounds.size - 1) + [3.0]
    assert opened(make_native(counts, 300.0, bounds)) == {6 * 8 + 1: 3}


def observe_all(runtime: Runtime, model: str, values: Sequence[float]) -> None:
    bounds = runtime.bounds(model)
    cells = runtime.meter.block(REQUEST, (model, "1"), bounds)
    for value in values:
        cells[0] += 1
        cells[bisect_left(bounds.fine, value) + 2] += 1
        cells[1] += value


def test_the_real_prometheus_reads_native_histograms_classic_buckets_and_exemplars(
    prometheus: Callable[..., Prometheus],
) -> None:
    drawn = random.Random(7)
    values = sorted(drawn.lognormvariate(-4.0, 1.2) for _ in range(20_000))
    runtime, _, _ = traced()
    with installed(runtime):
        observe_all(runtime, "measured", values)
        score({})
        server = mlobs.start_metrics_server()
        try:
            target = f"{{targets: ['127.0.0.1:{server.port}']}}"
            config = (
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"scrape_configs: [{{job_name: a, static_configs: [{target}]}}]\n"
            )
            found = prometheus(config, flags=["--enable-feature=native-histograms,exemplar-storage"])
            native = '{__name__="mlobs_request_duration_native_seconds",model="measured",outcome="ok"}'
            eventually(lambda: found.query(native), "the native family")
            for share in (0.01, 0.25, 0.5, 0.9, 0.99, 0.999):
                (sample,) = found.query(f"histogram_quantile({share}, {native})")
                true = values[math.ceil(share * len(values)) - 1]
                assert abs(float(sample["value"][1]) / true - 1) <= 2 ** (1 / 8) - 1, share
            (sample,) = found.query(f"histogram_count({native})")
            assert float(sample["value"][1]) == len(values)
            (sample,) = found.query(f"histogram_sum({native})")
            assert float(sample["value"][1]) == pytest.approx(math.fsum(values))
            edge = f'{BUCKET}{{model="measured",outcome="ok",le="0.1"}}'
            (sample,) = found.query(edge)
            assert float(sample["value"][1]) == sum(value <= 0.1 for value in values)
            end = str(float(sample["value"][0]) + 60)
            shown = found.get("query_exemplars", query=BUCKET, start="0", end=end)
            traces = {each["labels"]["trace_id"] for series in shown for each in series["exemplars"]}
            assert traces == {
                noted.trace_id for noted in runtime.exemplars.of((REQUEST.name, "exposed", "1", "ok"))
            }
        finally:
            server.close()
