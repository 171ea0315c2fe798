"""What a scraper gets: exemplars that resolve, native histograms with the right quantiles, by negotiation."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import mlobs
from mlobs.sdk.api import installed
from mlobs.sdk.buckets import make_bounds
from mlobs.sdk.exemplars import SLOT, Exemplars, Noted, read, write
from mlobs.sdk.meter import REQUEST
from mlobs.sdk.native import Native, make_native
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.serve import render
from mlobs.sdk.spans import SpanPipeline
from mlobs.sdk.trace import TraceContext
from mlobs.sdk.workers import Crew
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


@pytest.mark.parametrize("accept", ["", OPENMETRICS, PROTOBUF])
def test_texts_that_cannot_be_written_cost_no_scrape(accept: str) -> None:
    runtime, _, _ = traced()
    runtime.guard.strict = False
    with installed(runtime):

        @mlobs.observe(model="m\ud800", version="\udfff", decision=lambda result: "\udc00")
        def odd() -> float:
            with mlobs.stage("stage\ud800"):
                mlobs.cache("cache\ud800").looked(True)
            mlobs.feature_age("age\ud800", math.nan)
            mlobs.feature_age("age\ud800", 1.0)
            mlobs.batch(math.inf)  # type: ignore[arg-type]
            return math.nan

        odd()
        body, _ = render(accept)
        assert b"m\\\\ud800" in body or b"m\\ud800" in body
        assert b"NaN" not in body


def test_an_exemplar_leads_to_its_trace_and_to_its_feature_record() -> None:
    runtime, exporter, log = traced()
    with installed(runtime):
        for number in range(3):
            score({"n": number})
        assert runtime.flush(5.0)
        found = exemplars_shown()
    assert found
    traces = {f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()}
    assert set(found) <= traces
    assert set(found) <= {record.trace_id for record in log.records}


def test_a_call_that_is_recorded_but_not_traced_is_no_exemplar() -> None:
    runtime, _, log = traced(trace_sample=0.0)
    with installed(runtime):
        score({})
        assert runtime.flush(5.0)
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


def test_a_call_whose_spans_the_collector_refused_is_no_exemplar(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, exporter, _ = traced()
    monkeypatch.setattr(exporter, "export", lambda spans: SpanExportResult.FAILURE)
    with installed(runtime):
        score({})
        assert not runtime.flush(5.0)
        assert exemplars_shown() == []


def test_a_rare_slow_call_stays_an_exemplar_however_many_fast_ones_follow() -> None:
    exemplars = Exemplars(lambda model: (0.1, 1.0))
    for number in range(1000):
        took = 0.5 if number == 3 else 0.01
        exemplars.note(("m", "1", "ok"), took, TraceContext(f"{number:032x}", "0" * 16, True), float(number))
    assert [int(noted.trace_id, 16) for noted in exemplars.all()["m", "1", "ok"]] == [999, 3]


@given(st.lists(st.tuples(st.integers(0, 8), st.binary(min_size=8, max_size=8)), max_size=4))
def test_a_slot_that_is_half_written_is_no_exemplar(torn: list[tuple[int, bytes]]) -> None:
    """Whatever of the slot is not what was written: all nine cells, or none."""
    noted = Noted(0.25, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1_700_000_000.5)
    cells = [0.0] * SLOT * 3
    write(cells, 1, noted)
    assert list(read(cells)) == [noted]
    whole = list(cells)
    for place, raw in torn:
        cells[SLOT + place] = struct.unpack("<d", raw)[0]
    assert list(read(cells)) == ([noted] if cells == whole else [])


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


NATIVE = '{__name__="mlobs_request_duration_native_seconds",model="measured",outcome="ok"}'


def scraping(prometheus: Callable[..., Prometheus], port: int) -> Prometheus:
    found = prometheus(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"scrape_configs: [{{job_name: a, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n",
        flags=["--enable-feature=native-histograms,exemplar-storage"],
    )
    eventually(lambda: found.query(NATIVE), "the native family")
    return found


def has_the_quantiles_of(values: Sequence[float], found: Prometheus) -> None:
    for share in (0.01, 0.25, 0.5, 0.9, 0.99, 0.999):
        (sample,) = found.query(f"histogram_quantile({share}, {NATIVE})")
        true = values[math.ceil(share * len(values)) - 1]
        assert abs(float(sample["value"][1]) / true - 1) <= 2 ** (1 / 8) - 1, share
    (sample,) = found.query(f"histogram_count({NATIVE})")
    assert float(sample["value"][1]) == len(values)
    (sample,) = found.query(f"histogram_sum({NATIVE})")
    assert float(sample["value"][1]) == pytest.approx(math.fsum(values))


def test_the_real_prometheus_reads_native_histograms_classic_buckets_and_exemplars(
    prometheus: Callable[..., Prometheus],
) -> None:
    drawn = random.Random(7)
    values = sorted(drawn.lognormvariate(-4.0, 1.2) for _ in range(20_000))
    runtime, _, _ = traced()
    with installed(runtime):
        observe_all(runtime, "measured", values)
        score({})
        assert runtime.flush(5.0)
        server = mlobs.start_metrics_server()
        try:
            found = scraping(prometheus, server.port)
            has_the_quantiles_of(values, found)
            edge = f'{BUCKET}{{model="measured",outcome="ok",le="0.1"}}'
            (sample,) = found.query(edge)
            assert float(sample["value"][1]) == sum(value <= 0.1 for value in values)
            end = str(float(sample["value"][0]) + 60)
            shown = found.get("query_exemplars", query=BUCKET, start="0", end=end)
            traces = {each["labels"]["trace_id"] for series in shown for each in series["exemplars"]}
            assert traces == {noted.trace_id for noted in runtime.exemplars.all()["exposed", "1", "ok"]}
        finally:
            server.close()


WORKER = """
import json, sys
from pathlib import Path
from bisect import bisect_left
from mlobs.sdk.meter import REQUEST
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.workers import Crew
from mlobs.settings import Settings
runtime = Runtime(Settings(service="test"), strict=True)
runtime.meter.move(Crew(Path(sys.argv[1]), "test", runtime.guard.swallow))
bounds = runtime.bounds("measured")
cells = runtime.meter.block(REQUEST, ("measured", "1"), bounds)
for value in json.loads(sys.stdin.readline()):
    cells[0] += 1
    cells[bisect_left(bounds.fine, value) + 2] += 1
    cells[1] += value
print("counted", flush=True)
sys.stdin.readline()
"""


def test_native_histograms_are_of_all_workers_those_that_live_and_those_that_died(
    prometheus: Callable[..., Prometheus], tmp_path: Path
) -> None:
    """The fast third died, the slow third lives beside us, the rest is our own."""
    drawn = random.Random(11)
    values = sorted(drawn.lognormvariate(-4.0, 1.5) for _ in range(15_000))
    workers = []
    for part in (values[:5_000], values[10_000:]):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        print(json.dumps(part), file=worker.stdin, flush=True)
        assert worker.stdout.readline() == "counted\n"
        workers.append(worker)
    workers[0].kill()
    workers[0].wait()
    runtime, _, _ = traced()
    runtime.crew = Crew(tmp_path, "test", runtime.guard.swallow)
    runtime.meter.move(runtime.crew)
    try:
        with installed(runtime):
            observe_all(runtime, "measured", values[5_000:10_000])
            server = mlobs.start_metrics_server()
            try:
                has_the_quantiles_of(values, scraping(prometheus, server.port))
            finally:
                server.close()
        names = [path.name for path in tmp_path.glob("*.cells")]
        assert len(names) == 2, "the dead one's is folded"
    finally:
        for worker in workers:
            with worker:
                worker.kill()
