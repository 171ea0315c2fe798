"""Calls from within calls, forks before `init`, generators that answer a close."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mlobs


def test_a_signal_handler_that_calls_the_observed_function_does_not_hang() -> None:
    script = """
import signal, mlobs, faulthandler
faulthandler.dump_traceback_later(60, exit=True)
mlobs.init(service="s", sample=1.0)
calls = 0
@mlobs.observe(model="m")
def score(request: dict) -> float:
    return 0.5
def handler(*_):
    score({})
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(200_000):
    score({})
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


def test_no_signal_handler_is_installed_whatever_is_set_up(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    exporter = InMemorySpanExporter()
    mlobs.init(service="s", sample=1.0, feature_log=tmp_path / "log", exporter=exporter)
    server = mlobs.start_metrics_server()
    try:
        mlobs.job(name="j")(lambda: mlobs.observe(model="m")(lambda request: 0.5)({}))()
        assert mlobs.flush(60)
        assert exporter.get_finished_spans()
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    finally:
        server.close()
        assert mlobs.close(60)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_a_fork_before_init_counts_the_parents_calls_once() -> None:
    script = """
import os, mlobs
from mlobs.sdk.collector import CellCollector
from mlobs.sdk.api import default_runtime
@mlobs.observe(model="m")
def score(request: dict) -> float:
    return 0.5
for _ in range(100):
    score({})
read, write = os.pipe()
if os.fork() == 0:
    score({})
    samples = [s for family in CellCollector(default_runtime).collect() for s in family.samples]
    counts = [s.value for s in samples if s.name.endswith("_count") and s.labels.get("outcome") == "ok"]
    os.write(write, str(sum(counts)).encode())
    os._exit(0)
os.wait()
assert os.read(read, 100) == b"101.0", "the child tells of both, of each call once"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def stubborn() -> Iterator[int]:
    try:
        yield 1
    except GeneratorExit:
        yield 2


@pytest.mark.parametrize("make", [stubborn, mlobs.observe(model="stubborn")(stubborn)])
def test_a_generator_may_answer_a_thrown_exit(make) -> None:
    generator = make()
    assert next(generator) == 1
    assert generator.throw(GeneratorExit) == 2
    with pytest.raises(StopIteration):
        next(generator)


def test_a_host_that_seeded_its_random_numbers_gets_the_same_ones_with_us() -> None:
    script = """
import random, mlobs
mlobs.init(service="s", sample=0.3)
@mlobs.observe(model="m")
def score(request: dict) -> float:
    return random.random()
random.seed(7)
plain = [random.random() for _ in range(500)]
random.seed(7)
assert [score({}) for _ in range(500)] == plain
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_forked_children_give_out_ids_of_their_own() -> None:
    script = """
import os, mlobs
from mlobs.sdk.api import default_runtime
mlobs.init(service="s", sample=1.0)
def child():
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(default_runtime().bits(128)).encode())
        os._exit(0)
    os.wait()
    return os.read(read, 100)
assert child() != child()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
