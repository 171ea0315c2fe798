"""Stages: each passage in the bucket it belongs to, and no more of them remembered than one record needs."""

from __future__ import annotations

import asyncio

import pytest

import mlobs
from mlobs.sdk import call as call_module
from mlobs.sdk.call import CURRENT, FIRST_LAP, MOST_LAPS
from mlobs.settings import Settings
from mlobs.testing import capture

BUCKET = "mlobs_stage_duration_seconds_bucket"
COUNT = "mlobs_stage_duration_seconds_count"
SUM = "mlobs_stage_duration_seconds_sum"


def ticks(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    """The stages' clock gives these times, one after the other."""
    left = iter(times)
    monkeypatch.setattr(call_module, "perf_counter", lambda: next(left))


@pytest.mark.parametrize(
    ("took", "edge"),
    [(0.0, "0.25"), (0.25, "0.25"), (0.2500001, "0.5"), (0.5, "0.5"), (1.0, "1.0"), (8.0, "+Inf")],
)
def test_a_passage_falls_into_the_bucket_of_its_upper_edge(
    monkeypatch: pytest.MonkeyPatch, took: float, edge: str
) -> None:
    @mlobs.observe(model="m")
    def score() -> None:
        with mlobs.stage("inference"):
            return

    with capture(Settings(service="test", sample=1.0, buckets=(0.25, 0.5, 1.0))) as seen:
        ticks(monkeypatch, 0.0, took)
        score()
        edges = ["0.25", "0.5", "1.0", "+Inf"]
        under = [seen.value(BUCKET, stage="inference", le=each) for each in edges]
        assert under == [float(place >= edges.index(edge)) for place in range(len(edges))]
        assert seen.value(SUM, stage="inference") == took
    assert seen.records[0].stage_durations_s == {"inference": took}


def test_a_loop_of_stages_is_counted_whole_and_remembered_to_a_limit() -> None:
    laps: list[int] = []

    @mlobs.observe(model="m")
    def score() -> None:
        for _ in range(3 * MOST_LAPS):
            with mlobs.stage("step"):
                pass
        with mlobs.stage("late"):
            pass
        marker = CURRENT.get()
        assert marker is not None
        laps.append(len(marker) - FIRST_LAP)

    with capture() as seen:
        score()
        assert seen.value(COUNT, stage="step") == 3 * MOST_LAPS
        assert seen.value(COUNT, stage="late") == 1
    assert laps == [MOST_LAPS]


def test_the_same_stage_in_several_tasks_of_a_call_has_its_own_time_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read(go_on: asyncio.Event) -> None:
        with mlobs.stage("feature_read"):
            await go_on.wait()

    @mlobs.observe(model="m")
    async def score() -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        tasks = [asyncio.create_task(read(gate)) for gate in gates]
        await asyncio.sleep(0)
        for gate, task in zip(gates, tasks, strict=True):  # the first one in is the first one out
            gate.set()
            await task

    with capture(Settings(service="test", sample=1.0, buckets=(1.0, 2.5))) as seen:
        ticks(monkeypatch, 0.0, 1.0, 2.0, 4.0)  # 2 s and 3 s; last in, first out would be 1 s and 4 s
        asyncio.run(score())
        assert seen.value(BUCKET, stage="feature_read", le="1.0") == 0
        assert seen.value(BUCKET, stage="feature_read", le="2.5") == 1
        assert seen.value(COUNT, stage="feature_read") == 2


def test_asking_for_the_call_between_stages_changes_neither() -> None:
    @mlobs.observe(model="m")
    def score() -> None:
        with mlobs.stage("feature_read"):
            mlobs.current().set_features({"amount": 1.0})
        with mlobs.stage("inference"):
            pass

    with capture() as seen:
        score()
        score()
        assert seen.value(COUNT, stage="inference") == 2
    assert [list(record.stage_durations_s) for record in seen.records] == [["feature_read", "inference"]] * 2
