"""Spans as a real receiver gets them, by HTTP and gRPC; deadlines, exit and SIGTERM with bad collectors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import mlobs
from mlobs.sdk.api import installed
from mlobs.sdk.otlp import exporter_for
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.spans import SpanPipeline
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.testing import MemoryLog
from tests.sdk.receiver import RECEIVERS, Receiver, attributes, dead, hung
from tests.servers import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=list(RECEIVERS))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with RECEIVERS[request.param]() as found:  # type: ignore[attr-defined]
        yield found


def sending(url: str, *, sample: float = 1.0, slow: str | None = None) -> Runtime:
    objectives = (
        ()
        if slow is None
        else (ObjectiveSettings("fast", SliSettings("latency", Decimal(slow)), Decimal("0.9"), "sent"),)
    )
    settings = Settings(service="fraud-api", sample=sample, slo=SloSettings(objectives=objectives))
    runtime = Runtime(settings, log=MemoryLog())
    resource = {"service.name": "fraud-api"}
    runtime.spans = SpanPipeline(exporter_for(url), resource, runtime.guard, runtime.bits)
    return runtime


@mlobs.observe(model="sent", version="9")
def score(request: dict[str, Any]) -> float:
    with mlobs.stage("feature_read"):
        sum(range(20_000))
    with mlobs.stage("inference"):
        if request.get("bad"):
            raise ValueError("secret")
    return 0.5


def test_a_receiver_gets_the_call_and_its_stages_with_their_true_times(receiver: Receiver) -> None:
    before = time.time_ns()
    with installed(sending(receiver.url)) as runtime:
        score({})
        after = time.time_ns()
        assert runtime.close(10.0)
    (resource,) = receiver.requests[0].resource_spans
    assert [(each.key, each.value.string_value) for each in resource.resource.attributes] == [
        ("service.name", "fraud-api")
    ]
    (root,) = receiver.named("sent")
    (read,) = receiver.named("feature_read")
    (inference,) = receiver.named("inference")
    slack = 2_000_000  # time_ns and perf_counter are two clocks
    assert before - slack <= root.start_time_unix_nano <= root.end_time_unix_nano <= after + slack
    assert isinstance(runtime.log, MemoryLog)
    (record,) = runtime.log.records
    for span in (read, inference):
        assert span.parent_span_id == root.span_id
        assert span.trace_id == root.trace_id
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert took == pytest.approx(record.stage_durations_s[span.name], abs=2e-6)
    assert root.start_time_unix_nano <= read.start_time_unix_nano
    assert read.end_time_unix_nano <= inference.start_time_unix_nano
    assert (record.trace_id, record.span_id) == (root.trace_id.hex(), root.span_id.hex())
    assert attributes(root)["ml.model.version"] == "9"


def test_errors_and_slow_calls_arrive_whatever_the_rate_and_no_message_with_them(receiver: Receiver) -> None:
    with installed(sending(receiver.url, sample=0.0, slow="1e-9")) as runtime:
        score({})
        with pytest.raises(ValueError):
            score({"bad": True})
        assert runtime.close(10.0)
    slow, failed = receiver.named("sent")
    assert (slow.status.code, failed.status.code) == (0, 2)
    assert failed.events[0].attributes[0].value.string_value == "ValueError"
    assert b"secret" not in receiver.requests[0].SerializeToString()


def test_a_call_under_the_threshold_that_is_not_drawn_does_not_arrive(receiver: Receiver) -> None:
    with installed(sending(receiver.url, sample=0.0, slow="60")) as runtime:
        score({})
        assert runtime.close(10.0)
    assert receiver.spans == []


def test_a_kept_generation_has_the_conventions_attributes(receiver: Receiver) -> None:
    @mlobs.observe(model="chat")
    @mlobs.generates(model="llama-3-8b", provider="vllm")
    def answer(prompt: str) -> Iterator[str]:
        yield "a"
        yield "b"
        mlobs.token_usage(input=7)

    with installed(sending(receiver.url)) as runtime:
        assert list(answer("hello")) == ["a", "b"]
        assert runtime.close(10.0)
    (span,) = receiver.named("chat")
    found = {name: value for name, value in attributes(span).items() if name.startswith("gen_ai.")}
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama-3-8b",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
    }


def test_flush_waits_no_longer_than_told_for_a_slow_collector_and_then_tells_the_truth(
    receiver: Receiver,
) -> None:
    receiver.hold.clear()
    with installed(sending(receiver.url)) as runtime:
        score({})
        assert runtime.flush(0.2) is False
        receiver.hold.set()
        assert runtime.flush(10.0) is True
    assert len(receiver.spans) == 3
    runtime.close(5.0)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("collector", [dead, hung])
def test_flush_and_close_obey_their_deadline_with_a_bad_collector(collector: Any, scheme: str) -> None:
    kind: AbstractContextManager[str] = collector()
    with kind as address, installed(sending(f"{scheme}://{address}")) as runtime:
        score({})
        began = time.monotonic()
        assert runtime.flush(0.3) is False
        assert runtime.close(0.3) is False
        assert time.monotonic() - began < 2.0
        assert runtime.spans is not None
        ledger = runtime.spans.ledger()
        assert ledger.balanced
        assert ledger.delivered == 0


FIRST = """
import atexit, time
atexit.register(lambda: print(time.time()))  # first registered, last called
"""
EXIT = """
import sys, time, mlobs
mlobs.init(service="s", otlp=sys.argv[1], trace_sample=1.0)
@mlobs.observe(model="m")
def score(x): return x
for n in range(300): score({"n": n})
time.sleep(0.5)  # the sending thread is in the middle of it
print(time.time(), flush=True)
"""


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("collector", [dead, hung])
def test_a_bad_collector_delays_the_exit_by_two_seconds_at_most(collector: Any, scheme: str) -> None:
    with collector() as address:
        done = subprocess.run(
            [sys.executable, "-c", FIRST + EXIT, f"{scheme}://{address}"],
            capture_output=True, text=True, cwd=ROOT, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    began, ended = map(float, done.stdout.split())
    assert ended - began < 2.0 + 1.0  # on two busy cores


BOTH = """
import sys, threading, time, mlobs
@mlobs.observe(model="m")
def score(x): return x
score({})  # before init: what we do at the exit is registered before the feature log is even loaded
mlobs.init(service="s", otlp=sys.argv[1], sample=1.0, feature_log=sys.argv[2])
from mlobs.featurelog.spool import SpoolWriter
SpoolWriter.append = lambda *_: threading.Event().wait()  # a disk that hangs
for n in range(300): score({"n": n})
time.sleep(0.5)
print(time.time(), flush=True)
"""


def test_a_hung_disk_and_a_hung_collector_delay_the_exit_by_two_seconds_together(tmp_path: Path) -> None:
    with hung() as address:
        done = subprocess.run(
            [sys.executable, "-c", FIRST + BOTH, f"http://{address}", str(tmp_path)],
            capture_output=True, text=True, cwd=ROOT, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    began, ended = map(float, done.stdout.split())
    assert ended - began < 2.0 + 1.0  # one after the other they took 4


FOREVER = """
import signal, sys, time, mlobs
mlobs.init(service="s", otlp=sys.argv[1], trace_sample=1.0)
if sys.argv[2] == "handled":
    def end(*_):
        mlobs.close()
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
@mlobs.observe(model="m", prediction_id="id")
def score(request): return 0.5
number = 0
while True:
    score({"id": f"{number}"})
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.005)
"""
INTERVAL_S = 1.0
"""Five commit intervals: two cores are shared with other tests."""


@pytest.mark.parametrize("handler", ["handled", "none"])
def test_sigterm_loses_no_more_than_the_last_interval_and_nothing_with_a_handler_that_closes(
    receiver: Receiver, handler: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FOREVER, receiver.url, handler],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        eventually(lambda: len(receiver.spans) > 100, "spans before the signal")
        killed = time.time()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    made = {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if line.count(" ") == 1}
    arrived = {str(attributes(span)["ml.prediction.id"]) for span in receiver.named("m")}
    lost = [at for number, at in made.items() if number not in arrived]
    if handler == "handled":
        assert lost == []
        assert process.returncode == 0
    else:
        assert all(at > killed - INTERVAL_S for at in lost)
        assert process.returncode == -signal.SIGTERM
