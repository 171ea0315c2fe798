"""Several workers: a call that counts into the worker's file, and a scrape beside the files of the dead.

The peer of the call is prometheus-client's multiprocess mode doing the same (`@Histogram.time()`), both net
of the bare function, rounds interleaved, CPU time. The peer's scrape is `MultiProcessCollector` over files
that as many workers left, of the same families.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PEER_FOLDER = tempfile.TemporaryDirectory()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = PEER_FOLDER.name  # read when prometheus_client is imported

from prometheus_client import CollectorRegistry, Histogram, generate_latest  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

import mlobs  # noqa: E402
from mlobs.sdk.api import installed  # noqa: E402
from mlobs.sdk.collector import make_registry  # noqa: E402
from mlobs.sdk.runtime import Runtime  # noqa: E402
from mlobs.sdk.workers import Crew  # noqa: E402
from mlobs.settings import Settings  # noqa: E402
from mlobs.testing import MemoryLog  # noqa: E402
from tests.benchmarks.bench_sdk_call import costs, drive  # noqa: E402
from tests.benchmarks.figures import Row, show  # noqa: E402
from tests.benchmarks.stages import STAGES, bare, bare_async  # noqa: E402

MODELS = tuple(f"model-{number}" for number in range(5))


def worker(folder: Path, *, stays: bool) -> Runtime:
    """A worker that counted every series once."""
    runtime = Runtime(Settings(service="bench", sample=1e-12), log=MemoryLog())
    crew = Crew(folder, "bench", runtime.guard.swallow)
    runtime.crew = crew
    runtime.meter.move(crew)
    with installed(runtime):
        for model in MODELS:

            @mlobs.observe(model=model)
            def call() -> None:
                for name in STAGES:
                    with mlobs.stage(name):
                        pass

            call()
    if not stays:
        os.close(crew.file._held)  # what the kernel does when a process ends
    return runtime


PEER_WORKER = """
from prometheus_client import Histogram
call = Histogram("call_seconds", "A call.", ["model", "outcome"])
stage = Histogram("stage_seconds", "A stage.", ["model", "stage"])
for model in {models}:
    for outcome in ("ok", "error", "cancelled"):
        call.labels(model, outcome).observe(0.01)
    for name in {stages}:
        stage.labels(model, name).observe(0.01)
"""


def peer_worker() -> None:
    text = PEER_WORKER.format(models=MODELS, stages=STAGES)
    subprocess.run([sys.executable, "-c", text], check=True)


def least(fn: Callable[[], object], rounds: int = 7) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        fn()
        best = min(best, time.process_time() - began)
    return best


def calls(folder: Path, rounds: int, number: int) -> list[Row]:
    runtime = worker(folder, stays=True)
    alone = Runtime(Settings(service="alone", sample=1e-12), log=MemoryLog())
    peer = Histogram("timed_seconds", "A call.", ["model", "version"]).labels("m", "1").time()(bare)
    with installed(alone):
        in_lists = mlobs.observe(model="plain")(bare)
        for _ in range(2_000):
            in_lists({})
        with_own = costs({"bare": bare, "lists": in_lists}, rounds, number)
    with installed(runtime):
        in_file = mlobs.observe(model="plain")(bare)
        in_file_async = drive(mlobs.observe(model="async")(bare_async))
        for _ in range(2_000):
            in_file({})
            in_file_async({})
        sides = {"bare": bare, "peer": peer, "file": in_file}
        sides |= {"bare async": drive(bare_async), "async": in_file_async}
        got = costs(sides, rounds, number)
    beside = got["peer"] - got["bare"]
    ours = got["file"] - got["bare"]
    return [
        Row("call of one of several workers", ours * 1e6, beside * 1e6, 0.30),
        Row("the same, async", (got["async"] - got["bare async"]) * 1e6, beside * 1e6, 0.35),
        Row(
            "beside our own call of a process alone",
            ours * 1e6,
            (with_own["lists"] - with_own["bare"]) * 1e6,
            math.inf,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--dead", type=int, default=256)
    parser.add_argument("--peer-dead", type=int, default=32, help="each is a process of its own, 0.2 s")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "one").mkdir()
        (Path(base) / "many").mkdir()
        rows += calls(Path(base) / "one", given.rounds, given.calls)
        alone = make_registry(worker(Path(base) / "one", stays=True))
        (Path(base) / "single").mkdir()
        alone = make_registry(worker(Path(base) / "single", stays=True))
        one = least(lambda: generate_latest(alone))
        for _ in range(given.dead):
            worker(Path(base) / "many", stays=False)
        many = make_registry(worker(Path(base) / "many", stays=True))
        began = time.process_time()
        generate_latest(many)
        folding = time.process_time() - began
        beside = least(lambda: generate_latest(many))
        rows.append(
            Row(f"scrape beside {given.dead} dead workers, and 1 worker", beside * 1e6, one * 1e6, 2.0)
        )
        rows.append(
            Row(f"the one scrape that folds {given.dead}, and 1 worker", folding * 1e6, one * 1e6, math.inf)
        )
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(given.peer_dead):
        peer_worker()
    peer = least(lambda: generate_latest(registry), 3)
    rows.append(
        Row(
            f"scrape beside {given.dead} dead, and the peer beside {given.peer_dead}",
            beside * 1e6,
            peer * 1e6,
            math.inf,
        )
    )
    return show("us", rows)


if __name__ == "__main__":
    sys.exit(main())
