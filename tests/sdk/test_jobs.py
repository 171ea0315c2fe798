"""Runs of jobs: on /metrics, in a textfile that promtool reads, at a collector."""

from __future__ import annotations

import asyncio
import gzip
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import mlobs
from mlobs.errors import UsageError
from mlobs.sdk import jobfile
from mlobs.testing import FakeClock, Seen, capture
from tests.servers import need

T0 = 1_700_000_000.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(T0)


@pytest.fixture
def seen(clock: FakeClock) -> Iterator[Seen]:
    with capture(clock=clock) as found:
        yield found


def train(fail: BaseException | None = None) -> str:
    run = mlobs.current_job()
    run.rows(70)
    run.rows(30)
    run.data(datetime(2023, 11, 14, tzinfo=UTC))
    run.checkpoint("fraud")
    if fail is not None:
        raise fail
    return "done"


def test_a_run_shows_on_metrics(seen: Seen) -> None:
    nightly = mlobs.job(name="nightly")(train)
    assert nightly() == "done"
    assert nightly() == "done"
    at = {"service": "test", "job_name": "nightly"}
    assert seen.value("mlobs_job_runs_total", outcome="ok", **at) == 2
    assert seen.value("mlobs_job_runs_total", outcome="error", **at) == 0
    assert seen.value("mlobs_job_rows_total", **at) == 200
    assert seen.value("mlobs_job_last_success_timestamp_seconds", **at) == T0
    assert seen.value("mlobs_job_data_timestamp_seconds", **at) == 1_699_920_000
    assert seen.value("mlobs_checkpoint_timestamp_seconds", service="test", model="fraud") == T0
    assert 0 <= (seen.value("mlobs_job_duration_seconds", **at) or -1) < 10


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError("theirs"), "error"), (KeyboardInterrupt(), "cancelled"), (SystemExit(0), "ok"),
     (SystemExit(3), "error"), (asyncio.CancelledError(), "cancelled")],
)  # fmt: skip
def test_each_end_has_its_outcome_and_the_same_exception(
    seen: Seen, error: BaseException, outcome: str
) -> None:
    with pytest.raises(type(error)) as caught:
        mlobs.job(train)(error)
    assert caught.value is error
    assert seen.value("mlobs_job_runs_total", outcome=outcome) == 1
    assert (seen.value("mlobs_job_last_success_timestamp_seconds") is None) == (outcome != "ok")


def test_a_coroutine_function_is_a_job_and_a_generator_is_refused(seen: Seen) -> None:
    @mlobs.job
    async def pipeline() -> int:
        await asyncio.sleep(0)
        mlobs.current_job().rows(5)
        return 1

    assert asyncio.run(pipeline()) == 1
    assert seen.value("mlobs_job_rows_total", job_name="pipeline") == 5

    def stream() -> Iterator[int]:
        yield 1

    with pytest.raises(UsageError, match="decorate the function that reads it"):
        mlobs.job(stream)


def test_the_textfile_goes_on_from_run_to_run_and_promtool_accepts_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    nightly = mlobs.job(name='night"ly/1', textfile=tmp_path)(train)
    for failure in (None, ValueError("theirs")):
        with capture(clock=clock):  # as a process of its own
            if failure is None:
                nightly()
            else:
                with pytest.raises(ValueError, match="theirs"):
                    nightly(failure)
        clock.advance(3600)
    (path,) = tmp_path.iterdir()  # nothing else is left behind
    assert path.name == "mlobs_night_ly_1.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # the node exporter is another user
    found = {
        (family.name, values[1:]): value
        for (family, values), value in jobfile.parse(path.read_text()).items()
    }
    assert found["mlobs_job_runs_total", ("ok",)] == found["mlobs_job_runs_total", ("error",)] == 1
    assert found["mlobs_job_rows_total", ()] == 200
    assert found["mlobs_job_last_success_timestamp_seconds", ()] == T0  # known while runs fail
    assert found["mlobs_job_last_run_timestamp_seconds", ()] == T0 + 3600
    checked = subprocess.run(
        [need("promtool"), "check", "metrics"], input=path.read_text(), capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("before", [b"no such { text", b"\xff\xfe", b""])
def test_a_broken_textfile_is_counted_and_begun_anew(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "mlobs_train.prom"
    path.write_bytes(before)
    with capture(strict=False) as seen:
        assert mlobs.job(textfile=tmp_path)(train)() == "done"
        assert seen.internal_errors == ({"job_textfile_before": 1} if before else {})
    assert jobfile.parse(path.read_text())[jobfile.RUNS, ("train", "ok")] == 1


def test_a_folder_that_is_not_there_costs_the_file_and_not_the_job(tmp_path: Path) -> None:
    with capture(strict=False) as seen:
        assert mlobs.job(textfile=tmp_path / "gone")(train)() == "done"
        assert seen.internal_errors == {"job_textfile": 1}
        assert seen.value("mlobs_job_runs_total", outcome="ok") == 1


def test_a_write_that_fails_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly = mlobs.job(textfile=tmp_path)(train)
    with capture():
        nightly()
    (path,) = tmp_path.iterdir()
    old = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with capture(strict=False) as seen:
        assert nightly() == "done"
        assert seen.internal_errors == {"job_textfile": 1}
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, old)]


@pytest.mark.parametrize("value", [float("nan"), -1, None, "x", 10**400])
def test_what_is_no_count_and_no_time_is_not_taken(value: object) -> None:
    @mlobs.job(name="j")
    def strange() -> None:
        run = mlobs.current_job()
        run.rows(value)  # type: ignore[arg-type]
        run.data(value)  # type: ignore[arg-type]
        run.data(datetime(2026, 1, 1))  # noqa: DTZ001 - without a zone

    with capture(strict=False) as seen:
        strange()
        assert seen.internal_errors == {"job": 3}
        assert seen.value("mlobs_job_rows_total") == 0
        assert seen.value("mlobs_job_data_timestamp_seconds") is None


def test_outside_of_a_job_nothing_needs_it(seen: Seen) -> None:
    assert train() == "done"
    assert seen.value("mlobs_job_runs_total") is None


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    taken: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/metrics"
            taken.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_is_pushed_to_the_collector(
    seen: Seen, collector: tuple[str, list[ExportMetricsServiceRequest]]
) -> None:
    url, taken = collector
    mlobs.job(name="nightly", otlp=url)(train)()
    (request,) = taken
    (resource,) = request.resource_metrics
    assert {"service.name": "test"}.items() <= {
        each.key: each.value.string_value for each in resource.resource.attributes
    }.items()
    found = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    assert found["mlobs_job_last_success_timestamp_seconds"].gauge.data_points[0].as_double == T0
    runs = {
        {each.key: each.value.string_value for each in point.attributes}["outcome"]: point.as_double
        for point in found["mlobs_job_runs"].sum.data_points
    }
    assert runs == {"ok": 1, "error": 0, "cancelled": 0}


def test_a_collector_that_is_not_there_costs_two_seconds_at_the_most() -> None:
    with capture(strict=False) as seen:
        began = time.monotonic()
        assert mlobs.job(otlp="http://127.0.0.1:9")(train)() == "done"
        assert time.monotonic() - began < 4
        assert seen.internal_errors == {"job_otlp": 1}
