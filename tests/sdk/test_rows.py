"""Batch calls: one call, n records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import mlobs
from mlobs.errors import UsageError
from mlobs.settings import ModelSettings, Settings
from mlobs.testing import capture

COUNT = "mlobs_request_duration_seconds_count"


@mlobs.observe(
    model="batches",
    batch="rows",
    prediction_id="id",
    entity=lambda row: row["card"],
    decision=lambda prediction: "block" if prediction > 0.5 else "pass",
)
def score_all(rows: list[dict]) -> list[float]:
    predictions = [row["amount"] / 10 for row in rows]
    for row in rows:
        row["amount"] = -1.0  # a function may do that
    return predictions


def some_rows(count: int) -> list[dict]:
    return [{"id": f"p{number}", "card": f"c{number}", "amount": float(number)} for number in range(count)]


def test_one_call_is_counted_once_and_each_row_leaves_a_record() -> None:
    with capture() as seen:
        assert score_all(some_rows(8)) == [number / 10 for number in range(8)]
    assert seen.value(COUNT, model="batches") == 1
    assert seen.value("mlobs_good_predictions_total", model="batches", result="ok") == 1
    assert seen.value("mlobs_batch_size_sum", model="batches") == 8
    assert seen.value("mlobs_predictions_total", model="batches", decision="block") == 2
    assert seen.value("mlobs_predictions_total", model="batches", decision="pass") == 6
    assert [record.prediction_id for record in seen.records] == [f"p{number}" for number in range(8)]
    assert [record.features["amount"] for record in seen.records] == [float(number) for number in range(8)]
    assert [record.prediction for record in seen.records] == [number / 10 for number in range(8)]
    assert [record.entity_key for record in seen.records] == [f"c{number}" for number in range(8)]
    assert [record.decision for record in seen.records] == ["pass"] * 6 + ["block"] * 2
    assert len({(record.duration_s, record.trace_id, record.event_time) for record in seen.records}) == 1


def test_rows_are_kept_by_their_own_ids_whatever_batch_they_come_in() -> None:
    kept = []
    for size in (1000, 10):
        with capture(Settings(service="test", sample=0.1)) as seen:
            rows = some_rows(1000)
            for begin in range(0, 1000, size):
                score_all(rows[begin : begin + size])
        kept.append([record.prediction_id for record in seen.records])
        assert {record.weight for record in seen.records} == {10.0}
    assert kept[0] == kept[1]
    assert 70 < len(kept[0]) < 130


def test_without_ids_a_drawn_call_keeps_all_of_its_rows() -> None:
    @mlobs.observe(model="no-ids", batch=lambda rows: rows)
    def each(rows: list[dict]) -> list[int]:
        return [1] * len(rows)

    with capture(Settings(service="test", sample=0.2)) as seen:
        for _ in range(200):
            each([{"n": 1}, {"n": 2}, {"n": 3}])
    calls = len(seen.records) / 3
    assert 15 < calls < 70
    assert {record.weight for record in seen.records} == {5.0}
    assert len({record.prediction_id for record in seen.records}) == len(seen.records)


def test_every_row_of_a_call_that_failed_is_kept_with_weight_one() -> None:
    with capture(Settings(service="test", sample=0.0)) as seen, pytest.raises(TypeError):
        score_all([{"id": "a", "card": "c", "amount": 1.0}, {"id": "b", "card": "c", "amount": "none"}])
    assert [(record.prediction_id, record.outcome, record.weight) for record in seen.records] == [
        ("a", "error", 1.0),
        ("b", "error", 1.0),
    ]


def test_the_rows_near_the_threshold_are_kept_and_no_others() -> None:
    model = ModelSettings("batches", decision_threshold=0.5, near_threshold=0.05)
    with capture(Settings(service="test", sample=0.0, models=(model,))) as seen:
        score_all(some_rows(10))
    assert [(record.prediction_id, record.sampling_reason) for record in seen.records] == [
        ("p5", "near_threshold")
    ]


def test_ids_may_be_a_parameter_of_their_own() -> None:
    @mlobs.observe(model="ids", batch="rows", prediction_id="ids")
    async def each(ids: list[str], rows: list[dict]) -> tuple[int, ...]:
        return tuple(range(len(rows)))

    with capture() as seen:
        assert asyncio.run(each(["x", "y"], [{}, {}])) == (0, 1)
    assert [(record.prediction_id, record.prediction) for record in seen.records] == [("x", 0), ("y", 1)]


@pytest.mark.parametrize("rows", [None, "text", 7, {"a": 1}, [1, None], [{}], object()])
@pytest.mark.parametrize("result", [None, 3, "ab", [1, 2, 3], object()])
def test_what_is_no_batch_costs_records_and_not_the_call(rows: object, result: object) -> None:
    @mlobs.observe(model="odd", batch="rows", decision=lambda prediction: prediction > 0)
    def odd(rows: object) -> object:
        return result

    with capture(strict=False) as seen:
        assert odd(rows) is result
    assert seen.value(COUNT, model="odd", outcome="ok") == 1


def test_a_generator_has_no_rows_to_match_and_is_refused() -> None:
    def stream(rows: list[dict]) -> Iterator[int]:
        yield 1

    with pytest.raises(UsageError, match="batch="):
        mlobs.observe(model="x", batch="rows")(stream)


def test_a_batch_that_is_no_name_and_no_callable_is_refused() -> None:
    with pytest.raises(UsageError, match="batch="):
        mlobs.observe(model="x", batch=7)(score_all)  # type: ignore[call-overload]
