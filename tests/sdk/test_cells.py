"""No count is lost between threads, and both forms of a histogram tell the same."""

from __future__ import annotations

import math
import sys
import threading
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlobs
from mlobs.sdk.api import installed
from mlobs.sdk.buckets import make_bounds
from mlobs.sdk.collector import make_registry
from mlobs.sdk.guard import Guard
from mlobs.sdk.meter import MOST_SETS, PREDICTIONS, REQUEST, Meter, clean_label
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings

THREADS, CALLS = 4, 20_000


@pytest.fixture
def busy_switching() -> object:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: object) -> None:
    threads = [threading.Thread(target=work) for _ in range(THREADS)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_failure_is_lost_between_threads(busy_switching: object) -> None:
    guard = Guard()
    in_threads(lambda: [guard.swallow("site", ValueError()) for _ in range(CALLS)])
    assert guard.counts == {"site": THREADS * CALLS}


@pytest.mark.parametrize("sharded", [False, True])
def test_no_call_is_lost_between_threads(busy_switching: object, sharded: bool) -> None:
    runtime = Runtime(Settings(service="test"), meter=Meter(sharded=sharded))

    @mlobs.observe(model="threads")
    def score(value: int) -> int:
        with mlobs.stage("inference"):
            return value

    with installed(runtime):
        in_threads(lambda: [score(number) for number in range(CALLS)])
        counts = {
            (family.name, sample.name, sample.labels.get("outcome")): sample.value
            for family in make_registry(runtime).collect()
            for sample in family.samples
            if sample.labels.get("model") == "threads"
            and (sample.name.endswith("_count") or family.name == "mlobs_requests_in_flight")
        }
    total = THREADS * CALLS
    name = "mlobs_request_duration_seconds"
    assert counts[name, f"{name}_count", "ok"] == total
    assert counts["mlobs_requests_in_flight", "mlobs_requests_in_flight", None] == 0
    stage = "mlobs_stage_duration_seconds"
    assert counts[stage, f"{stage}_count", None] == total


def test_the_test_above_would_see_lost_counts(busy_switching: object) -> None:
    """The control: a read, a call and a write, between which threads do switch."""
    cells = [0]

    def work() -> None:
        for _ in range(CALLS):
            value = cells[0]
            (lambda: None)()  # noqa: PLC3002 - a call in the middle is what lets another thread in
            cells[0] = value + 1

    for _ in range(20):
        in_threads(work)
        if cells[0] < THREADS * CALLS:
            return
        cells[0] = 0
    pytest.fail("not one lost count in 20 tries: the control controls nothing")


@given(
    st.lists(st.floats(1e-6, 200.0), max_size=50),
    st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=12),
)
def test_classic_buckets_count_what_is_at_or_under_each_edge(values: list[float], edges: list[float]) -> None:
    bounds = make_bounds(edges)
    counts = [0.0] * bounds.size
    for value in values:
        counts[bisect_left(bounds.fine, value)] += 1
    got = bounds.cumulative(counts)
    assert got == [sum(value <= edge for value in values) for edge in bounds.classic] + [len(values)]


@pytest.mark.parametrize("edges", [[], [0.0], [-1.0], [math.inf], [math.nan]])
def test_edges_that_are_none_are_refused(edges: list[float]) -> None:
    with pytest.raises(ValueError):
        make_bounds(edges)


def test_labels_beyond_the_cap_are_counted_as_other_and_exactly() -> None:
    meter = Meter()
    for number in range(1_000):
        meter.add(PREDICTIONS, ("m", "1", f"decision-{number}"))
    rows = [(key.values, cells[0]) for key, cells, _ in meter.read()]
    assert len(rows) == MOST_SETS + 1
    assert sum(count for _, count in rows) == 1_000
    assert (("m", "1", "__other__"), 1_000 - MOST_SETS) in rows
    assert meter.overflow == {PREDICTIONS.name: 1_000 - MOST_SETS}


def test_a_label_can_always_be_written() -> None:
    assert clean_label("\ud800") == "\\ud800"
    assert clean_label(True) == "true"
    assert len(clean_label("x" * 1_000)) == 128
    assert clean_label(10**400).isdecimal()


def test_blocks_are_the_same_object_for_the_same_labels() -> None:
    meter = Meter()
    bounds = make_bounds([1.0])
    assert meter.block(REQUEST, ("m", "1"), bounds) is meter.block(REQUEST, ("m", "1"), bounds)
