"""Forked and spawned workers add up exactly, the dead are folded, a full disk is an error that is counted."""

from __future__ import annotations

import fcntl
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

import mlobs
from mlobs import names
from mlobs.sdk import merging, rundir
from mlobs.sdk.api import _BINDINGS, installed
from mlobs.sdk.buckets import make_bounds, plain_bounds
from mlobs.sdk.cellfile import CellFile, records, records_and_life
from mlobs.sdk.collector import make_registry
from mlobs.sdk.meter import (
    COUNTER,
    GAUGE,
    GOOD,
    HISTOGRAM,
    LEDGER,
    LEDGER_NOW,
    MOST_SETS,
    REQUEST,
    Family,
    Key,
    Meter,
)
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.workers import ACCUMULATOR, Crew
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings

ROOT = Path(__file__).resolve().parents[2]
CALLS = Family("calls_total", COUNTER, ("by",), "Calls.")
TOOK = Family("took_seconds", HISTOGRAM, ("by",), "Seconds.")
LENGTH = Family("length", GAUGE, ("by",), "Length.", "living")
LAST = Family("last", GAUGE, ("by",), "Last.", "last")
BOUNDS = plain_bounds((0.1, 1.0))


def raising(site: str, problem: Exception) -> None:
    raise AssertionError(site) from problem


def crew(folder: Path, trouble: Callable[[str, Exception], None] = raising) -> Crew:
    return Crew(folder, "s", trouble)


def die(one: Crew) -> None:
    """As the kernel does it: the lock is free, the file is there."""
    os.close(one.file._held)


def member(folder: Path, settings: Settings | None = None) -> Runtime:
    """A worker, as `init` makes it."""
    found = Runtime(settings or Settings(service="s"), meter=Meter(), strict=True)
    found.crew = crew(folder)
    found.meter.move(found.crew)
    return found


def shown(one: Crew, meter: Meter | None = None) -> dict[tuple[str, ...], list[float]]:
    totals, _ = one.totals([] if meter is None else meter.read())
    return {(key.family.name, *key.values): total.rounded() for key, total in totals.items()}


def script(text: str, tmp_path: Path, *arguments: str) -> dict[str, float]:
    """What a program of its own prints last, as JSON; its temporary folder is `tmp_path`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + text, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


HEAD = """
import json, multiprocessing, os, signal, sys, threading, time
import mlobs
from mlobs.sdk.serve import render
from prometheus_client.parser import text_string_to_metric_families
def value(metric, **labels):
    return sum(sample.value for family in text_string_to_metric_families(render("")[0].decode())
               for sample in family.samples if sample.name == metric
               and all(sample.labels.get(name) == want for name, want in labels.items()))
COUNT = "mlobs_request_duration_seconds_count"
def fork(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_forks_after_import_after_init_and_within_a_call_add_up(tmp_path: Path) -> None:
    found = script(
        """
@mlobs.observe(model="m")
def score(inner=None):
    if inner: inner()
def works(times):
    return lambda: [score() for _ in range(times)]
if sys.argv[1] == "init":
    mlobs.init(service="s")
    score()
    fork(works(10))
    fork(works(20))
    assert value("mlobs_requests_in_flight") == 0
    score(lambda: fork(works(3)))                       # the child dies within the parent's call
    children = []
    def inner():
        child = os.fork()
        children.append(child)
    score(inner)                                        # and this child ends its parent's call too
    if not children[0]:
        score()
        os._exit(0)
    os.waitpid(children[0], 0)
    print(json.dumps({"count": value(COUNT), "in flight": value("mlobs_requests_in_flight"),
                      "errors": value("mlobs_internal_errors_total")}))
else:
    def child():
        mlobs.init(service="s")
        score()
    fork(child); fork(child)
    mlobs.init(service="s")
    print(json.dumps({"count": value(COUNT)}))
""",
        tmp_path,
        "init",
    )
    assert found == {"count": 1 + 10 + 20 + 3 + 1 + 1 + 1, "in flight": 0, "errors": 0}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_add_up(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        HEAD
        + """
from tests.sdk.worker_app import score, worked
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    score(1)
    children = [context.Process(target=worked, args=(times,)) for times in (5, 7)]
    for child in children: child.start()
    for child in children: child.join()
    print(json.dumps({"count": value(COUNT, model="m"), "errors": value("mlobs_internal_errors_total")}))
"""
    )
    done = subprocess.run(
        [sys.executable, str(program), method],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"count": 13, "errors": 0}


def test_processes_that_gave_themselves_other_names_add_up(tmp_path: Path) -> None:
    """gunicorn does so to all of its processes where setproctitle is installed: what `ps` shows, no more."""
    found = script(
        """
import ctypes
def rename(title):
    libc, size = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(15, title, 0, 0, 0)                      # PR_SET_NAME: /proc/self/comm and stat
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    ctypes.memset(start, 0, end - start)                # /proc/self/cmdline
    ctypes.memmove(start, title, min(len(title), end - start))
@mlobs.observe(model="m")
def score(): pass
rename(b"main) S 1 (x")
def child():
    rename(b"work) R 7 (y")
    mlobs.init(service="s")
    score()
    assert b"work" in open("/proc/self/cmdline", "rb").read()
fork(child); fork(child)
mlobs.init(service="s")
print(json.dumps({"count": value(COUNT), "errors": value("mlobs_internal_errors_total")}))
""",
        tmp_path,
    )
    assert found == {"count": 2, "errors": 0}


def test_a_process_alone_makes_no_file(tmp_path: Path) -> None:
    script(
        """
mlobs.init(service="s")
@mlobs.observe
def score(): pass
score()
assert value(COUNT) == 1
import subprocess
subprocess.run([sys.executable, "-c", "pass"])
print(json.dumps({"threads": threading.active_count()}))
""",
        tmp_path,
    )
    assert list(tmp_path.iterdir()) == []


def test_a_fork_in_the_middle_of_a_flush_keeps_the_accounts(tmp_path: Path) -> None:
    found = script(
        """
mlobs.init(service="s", feature_log=sys.argv[1], sample=1.0)
@mlobs.observe
def score(features): pass
stop = threading.Event()
def flushes():
    while not stop.is_set(): mlobs.flush(2)
thread = threading.Thread(target=flushes)
thread.start()
def child():
    for _ in range(20): score({"a": 1})
    assert mlobs.flush(5)
    mlobs.close(5)
for _ in range(5):
    for _ in range(10): score({"a": 1})
    fork(child)
stop.set(); thread.join()
assert mlobs.flush(5)
of = {"pipeline": "featurelog"}
print(json.dumps({"count": value(COUNT), "offered": value("mlobs_pipeline_offered_total", **of),
                  "delivered": value("mlobs_pipeline_delivered_total", **of),
                  "dropped": value("mlobs_pipeline_dropped_total", **of)}))
""".replace("mlobs_pipeline_offered_total", names.PIPELINE_OFFERED)
        .replace("mlobs_pipeline_delivered_total", names.PIPELINE_DELIVERED)
        .replace("mlobs_pipeline_dropped_total", names.PIPELINE_DROPPED),
        tmp_path,
        str(tmp_path / "log"),
    )
    assert found == {"count": 150, "offered": 150, "delivered": 150, "dropped": 0}


def test_256_dead_workers_are_one_file(tmp_path: Path) -> None:
    numbers = random.Random(5)
    took = [numbers.expovariate(3) for _ in range(256)]
    for number, seconds in enumerate(took):
        one, meter = crew(tmp_path), Meter()
        meter.move(one)
        meter.add(CALLS, ("all",))
        meter.add(CALLS, (f"set {number}",))
        meter.block(TOOK, ("all",), BOUNDS)[0] += seconds
        meter.block(TOOK, ("all",), BOUNDS)[1 + (seconds > 0.1) + (seconds > 1)] += 1
        meter.block(LENGTH, ("all",))[0] = 9
        die(one)
    last = crew(tmp_path)
    before = shown(last)
    assert before["calls_total", "all"] == [256]
    assert before["calls_total", "__other__"] == [57], "sets beyond the cap of one process are one"
    assert before["took_seconds", "all"][0] == math.fsum(took)
    assert sum(before["took_seconds", "all"][1:]) == 256
    assert ("length", "all") not in before, "a queue ends with its process"
    assert {path.name for path in tmp_path.iterdir()} == {
        ACCUMULATOR,
        last.file.path.name,
        "lock",
        "sets-calls_total",
    }
    assert shown(last) == before


def test_a_sum_of_seconds_is_the_same_whoever_has_died(tmp_path: Path) -> None:
    numbers = random.Random(3)
    living = []
    for _ in range(40):
        one, meter = crew(tmp_path), Meter()
        meter.move(one)
        meter.block(TOOK, ("all",), BOUNDS)[0] = numbers.random() / 3
        living.append(one)
    last = crew(tmp_path)
    seen = {shown(last)["took_seconds", "all"][0]}
    numbers.shuffle(living)
    for one in living:
        die(one)
        seen.add(shown(last)["took_seconds", "all"][0])
    assert len(seen) == 1, "an ulp less is a reset of the counter to Prometheus"


def test_beyond_the_cap_too_no_counter_goes_back_whoever_is_asked_and_whoever_dies(tmp_path: Path) -> None:
    numbers = random.Random(11)
    members = []
    for _ in range(4):
        one, meter = crew(tmp_path), Meter()
        meter.move(one)
        members.append((one, meter))
    before: dict[tuple[str, ...], list[float]] = {}
    counted = 0
    while members:
        for _, meter in members:
            for _ in range(60):
                meter.add(CALLS, (f"set {numbers.randrange(600)}",))
                counted += 1
        for one, meter in numbers.sample(members, len(members)):
            now = shown(one, meter)
            assert sum(cells[0] for cells in now.values()) == counted
            assert len(now) <= MOST_SETS + 1
            assert all(cells >= before[key] for key, cells in now.items() if key in before)
            before |= now
        if counted > 2_000:
            die(members.pop(numbers.randrange(len(members)))[0])
    assert before["calls_total", "__other__"][0] > 100


def test_a_fold_that_was_killed_half_way_counts_nothing_twice(tmp_path: Path) -> None:
    one, meter = crew(tmp_path), Meter()
    meter.move(one)
    meter.add(CALLS, ("all",), 3)
    die(one)
    kept = one.file.path.read_bytes()
    last = crew(tmp_path)
    assert last.fold() == 1
    one.file.path.write_bytes(kept)  # killed between the new accumulator and the end of the file
    assert last._read()[0][Key(CALLS, ("all",))].rounded() == [3]
    assert shown(last)["calls_total", "all"] == [3]
    assert not one.file.path.exists()


def test_good_predictions_do_not_go_back_whichever_worker_reads_between_two_counts(tmp_path: Path) -> None:
    """A spoiled call is two counts; who reads one without the other shows a good prediction too many."""
    workers = [member(tmp_path), member(tmp_path)]
    requests = workers[0].meter.block(REQUEST, ("m", "1"), workers[0].bounds("m"))

    def ended(calls: int) -> None:
        requests[0] += calls
        requests[2] += calls

    def good(by: Runtime) -> float:
        page = generate_latest(make_registry(by)).decode()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in page.splitlines()
            if line.startswith("mlobs_good_predictions_total{") and 'result="ok"' in line
        )

    ended(5)
    assert [good(one) for one in workers] == [5, 5]
    ended(1)
    assert good(workers[0]) == 6  # too early
    workers[0].meter.add(GOOD, ("m", "1", "invalid"))
    assert [good(one) for one in workers] == [6, 6]
    die(workers[0].crew)
    assert good(workers[1]) == 6
    assert good(member(tmp_path)) == 6
    stricter = ObjectiveSettings("o", SliSettings("p99", Decimal("0.001")), Decimal("0.99"), "m")
    assert good(member(tmp_path, Settings(service="s", slo=SloSettings(objectives=(stricter,))))) == 5, (
        "of another threshold it is another count"
    )


def test_a_new_file_that_one_who_tidies_looks_at_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = crew(tmp_path)
    make, lock = os.posix_fallocate, fcntl.flock
    tidied: list[Path] = []
    refused = iter([True])

    def fallocate(*args: int) -> None:
        if not tidied:
            tidied.extend(tmp_path.glob("new-*"))
            tidied[0].unlink()
        make(*args)

    def flock(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and next(refused, False):
            raise BlockingIOError
        lock(descriptor, operation)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    monkeypatch.setattr(fcntl, "flock", flock)
    one, meter = crew(tmp_path), Meter()
    assert len(tidied) == 1
    meter.move(one)
    meter.add(CALLS, ("all",))
    assert shown(other)["calls_total", "all"] == [1]


def test_scrapes_while_workers_die_agree_and_never_go_back(tmp_path: Path) -> None:
    """Folding, reading and dying at once, in threads that share no lock."""
    died = threading.Event()
    seen: list[list[float]] = [[], []]

    def scrape(into: list[float]) -> None:
        one = crew(tmp_path)
        while not died.is_set():
            into.append(shown(one).get(("took_seconds", "all"), [0.0])[0])

    threads = [threading.Thread(target=scrape, args=(into,)) for into in seen]
    for thread in threads:
        thread.start()
    numbers = random.Random(7)
    for _ in range(100):
        one, meter = crew(tmp_path), Meter()
        meter.move(one)
        meter.block(TOOK, ("all",), BOUNDS)[0] = numbers.random() / 3
        die(one)
    died.set()
    for thread in threads:
        thread.join()
    for values in seen:
        assert values == sorted(values)
        assert len(values) > 3


@pytest.mark.parametrize("sharded", [False, True])
def test_calls_of_many_threads_before_and_after_joining_are_seen_by_the_others(
    tmp_path: Path, sharded: bool
) -> None:
    runtime = Runtime(Settings(service="s"), meter=Meter(sharded=sharded), strict=True)

    @mlobs.observe(model="m", version="1")
    def score(value: int) -> int:
        with mlobs.stage("inference"):
            return value

    def calls() -> None:
        for number in range(500):
            score(number)

    def in_threads() -> None:
        threads = [threading.Thread(target=calls) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with installed(runtime):
        in_threads()
        runtime.crew = crew(tmp_path)
        runtime.meter.move(runtime.crew)
        for binding in list(_BINDINGS):
            if binding.runtime is runtime:
                binding.settle(runtime)
        in_threads()
    other = crew(tmp_path)
    found = shown(other)[REQUEST.name, "m", "1"]
    assert merging.finished(found, runtime.bounds("m")) == found[0] == 4000
    assert sum(shown(other)["mlobs_stage_duration_seconds", "m", "1", "inference"][1:]) == 4000
    die(runtime.crew)
    assert shown(other)[REQUEST.name, "m", "1"][0] == 4000


def test_in_flight_is_of_the_living_and_what_the_dead_began_is_over(tmp_path: Path) -> None:
    bounds = make_bounds((0.1,))
    one, meter = crew(tmp_path), Meter()
    meter.move(one)
    cells = meter.block(REQUEST, ("m", "1"), bounds)
    cells[0], cells[2] = 5, 2
    other = crew(tmp_path)
    assert shown(other)[REQUEST.name, "m", "1"][0] == 5
    die(one)
    assert rundir.member_name(rundir.process(os.getpid())) in one.file.path.name, "a process of its pid lives"
    found = shown(other)[REQUEST.name, "m", "1"]
    assert (found[0], found[2]) == (2, 2)


def test_the_last_written_gauge_wins_and_outlives_its_process(tmp_path: Path) -> None:
    for value, at in ((1.0, 20.0), (2.0, 10.0)):
        one, meter = crew(tmp_path), Meter()
        meter.move(one)
        meter.block(LAST, ("all",))[:] = memoryview(bytearray(16)).cast("d")  # type: ignore[index]
        meter.block(LAST, ("all",))[0], meter.block(LAST, ("all",))[1] = value, at
        die(one)
    assert shown(crew(tmp_path))["last", "all"] == [1, 20]


def test_what_waited_in_a_dead_workers_pipeline_is_counted_as_lost(tmp_path: Path) -> None:
    one, meter = crew(tmp_path), Meter()
    meter.move(one)
    meter.block(LEDGER, ("spans", "offered"))[0] = 5
    meter.block(LEDGER, ("spans", "delivered"))[0] = 3
    meter.block(LEDGER_NOW, ("spans", "queued"))[0] = 2
    die(one)
    found = shown(crew(tmp_path))
    assert found["ledger", "spans", "dropped worker_died"] == [2]
    assert ("ledger_now", "spans", "queued") not in found


def test_workers_of_another_configuration_are_counted_by_the_edges_of_the_first() -> None:
    old, new = plain_bounds((0.1, 1.0)), plain_bounds((0.1, 0.5, 2.0))
    assert merging.moved(TOOK, [7.5, 1, 2, 3], old, new) == [7.5, 1, 0, 2, 3]
    totals: merging.Totals = {}
    merging.add(totals, (Key(TOOK, ("a",)), [0.5, 1, 0, 0, 0], new), alive=True)
    merging.add(totals, (Key(TOOK, ("a",)), [7.5, 1, 2, 3], old), alive=True)
    assert totals[Key(TOOK, ("a",))].rounded() == [8.0, 2, 0, 2, 3]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_sum_does_not_depend_on_the_order_of_dying(values: list[float], order: random.Random) -> None:
    first: list[float] = []
    merging.grow(first, values)
    mixed = list(values)
    order.shuffle(mixed)
    half = len(mixed) // 2
    folded: list[float] = []
    merging.grow(folded, mixed[:half])
    merging.grow(folded, mixed[half:])
    assert math.fsum(first) == math.fsum(folded) == math.fsum(values)


def test_records_grow_over_many_parts_and_a_torn_one_ends_the_reading(tmp_path: Path) -> None:
    file = CellFile(tmp_path, "a")
    kept = [
        file.add(json.dumps({"n": number, "pad": "é" * number}).encode(), number, 1) for number in range(400)
    ]
    for number, cells in enumerate(kept):
        for place in range(number):
            cells[place] = float(number)
        cells[number] = -1.0  # the spare one
    found, alive = records_and_life(file.path)
    assert alive
    assert [json.loads(text)["n"] for text, _ in found] == list(range(400))
    assert all(cells == [float(number)] * number for number, (_, cells) in enumerate(found))
    with open(file.path, "r+b") as torn:
        torn.seek(16 + 16)
        torn.write(b"X")
    assert list(records(file.path)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("no mount to be had")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_each_worker_its_own_metrics_and_is_counted(small_disk: Path) -> None:
    found = script(
        """
mlobs.init(service="s")
@mlobs.observe(model="m")
def score(): pass
score()
names = [chr(97 + number % 26) * (number // 26 + 1) for number in range(180)]
@mlobs.observe(model="named")
def named(name):
    with mlobs.stage(name): pass
def child():
    for name in names:
        for _ in range(10): named(name)
    assert value(COUNT, model="named") == 1800
    assert value("mlobs_stage_duration_seconds_count") == 1800, "its own are all there"
    assert value("mlobs_internal_errors_total", reason="workers_cells") > 0
    rest = os.open(os.path.join(os.environ["TMPDIR"], "rest"), os.O_WRONLY | os.O_CREAT)
    try:
        while True: os.write(rest, bytes(4096))
    except OSError: pass
    for _ in range(100): named("a")
    fork(lambda: [score(), sys.exit(value(COUNT, model="m") < 1)])           # no file for it at all
fork(child)
print(json.dumps({"count": value(COUNT, model="m")}))
""",
        small_disk,
    )
    assert found["count"] >= 1


def test_a_folder_that_others_could_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = rundir.base_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PermissionError):
        rundir.base_folder()


def test_what_a_dead_service_left_is_cleared_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = multiprocessing.get_context("fork").Process(target=lambda: None)
    child.start()
    gone = rundir.process(child.pid or 0)
    os.kill(child.pid or 0, signal.SIGKILL)
    dead = rundir.make_folder("s", gone)
    child.join()
    own = rundir.process(os.getpid())
    living = rundir.make_folder("s", own)
    assert not dead.exists()
    rundir.make_folder("other", own)
    assert living.exists()
