"""The decorated function behaves as before, and its calls are counted, timed and kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

import mlobs
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.testing import FakeClock, capture

COUNT = "mlobs_request_duration_seconds_count"
SUM = "mlobs_request_duration_seconds_sum"


def with_threshold(seconds: str, **more: object) -> Settings:
    objective = ObjectiveSettings("fast", SliSettings("p99", Decimal(seconds)), Decimal("0.99"), "fraud")
    return Settings(service="test", slo=SloSettings(objectives=(objective,)), **more)  # type: ignore[arg-type]


@mlobs.observe(model="fraud", version="7")
def score(transaction: dict, *, factor: float = 0.5) -> float:
    """Scores."""
    with mlobs.stage("inference"):
        if transaction.get("bad"):
            raise ValueError("bad")
        return factor


def test_result_name_docstring_and_signature_stay() -> None:
    assert score({}, factor=0.25) == 0.25
    assert score.__name__ == "score"
    assert score.__doc__ == "Scores."
    assert str(inspect.signature(score)) == "(transaction: 'dict', *, factor: 'float' = 0.5) -> 'float'"


def test_a_call_is_counted_and_its_stage_timed() -> None:
    with capture() as seen:
        score({"amount": 1.0})
    assert seen.value(COUNT, model="fraud", model_version="7", outcome="ok") == 1
    assert seen.value("mlobs_stage_duration_seconds_count", stage="inference") == 1
    assert seen.value("mlobs_requests_in_flight", model="fraud") == 0


def test_every_outcome_stands_at_zero_before_it_happens() -> None:
    with capture() as seen:
        score({})
    assert seen.value(COUNT, model="fraud", outcome="error") == 0
    assert seen.value(COUNT, model="fraud", outcome="cancelled") == 0


def test_an_exception_is_the_same_object_and_counted_as_an_error() -> None:
    with capture() as seen, pytest.raises(ValueError, match="bad") as caught:
        score({"bad": True})
    assert caught.value.__context__ is None
    assert seen.value(COUNT, model="fraud", outcome="error") == 1
    assert [(record.outcome, record.sampling_reason, record.weight) for record in seen.records] == [
        ("error", "error", 1.0)
    ]


def test_a_kept_call_leaves_a_record_of_what_the_model_saw_and_said() -> None:
    clock = FakeClock(1_000.0)
    with capture(clock=clock) as seen:
        score({"amount": 3.0})
    (record,) = seen.records
    assert record.features == {"amount": 3.0}
    assert record.prediction == 0.5
    assert (record.model, record.model_version, record.service) == ("fraud", "7", "test")
    assert record.event_time == 1_000.0
    assert record.stage_durations_s.keys() == {"inference"}
    assert record.weight == 1.0


def test_a_bucket_edge_stands_on_every_threshold() -> None:
    with capture(with_threshold("0.0987")) as seen:
        score({})
    assert seen.value("mlobs_request_duration_seconds_bucket", model="fraud", outcome="ok", le="0.0987") == 1


def test_a_slow_call_is_kept_with_weight_one_whatever_the_rate() -> None:
    with capture(with_threshold("0.000000001", sample=0.0)) as seen:
        score({})
    assert [(record.sampling_reason, record.weight) for record in seen.records] == [("slow", 1.0)]


def test_calls_under_the_rate_are_kept_by_id_alike_everywhere() -> None:
    @mlobs.observe(model="by-id", prediction_id="id")
    def by_id(request: dict) -> int:
        return 1

    kept = []
    for _ in range(2):
        with capture(Settings(service="test", sample=0.1)) as seen:
            for number in range(1000):
                by_id({"id": f"request-{number}"})
        kept.append([record.prediction_id for record in seen.records])
        assert {record.weight for record in seen.records} == {10.0}
    assert kept[0] == kept[1]
    assert 70 < len(kept[0]) < 130


@pytest.mark.parametrize("ident", [lambda request: request["id"], lambda request: 10**5000])
def test_calls_whose_id_cannot_be_had_are_drawn_without_one(ident: Callable[[dict], Any]) -> None:
    @mlobs.observe(model="without-id", prediction_id=ident)
    def without_id(request: dict) -> int:
        return 1

    with capture(Settings(service="test", sample=0.1), strict=False) as seen:
        for _ in range(1000):
            without_id({})
    assert 60 < len(seen.records) < 150
    assert {record.weight for record in seen.records} == {10.0}
    assert len({record.prediction_id for record in seen.records}) == len(seen.records)
    assert seen.value("mlobs_internal_errors_total", reason="prediction_id") == 1000


def test_a_coroutine_is_timed_to_its_real_end_and_stays_one() -> None:
    @mlobs.observe(model="async")
    async def predict(request: dict) -> str:
        await asyncio.sleep(0.02)
        return mlobs.current().prediction_id

    assert inspect.iscoroutinefunction(predict)
    with capture() as seen:

        async def both() -> list[str]:
            return list(await asyncio.gather(predict({"n": 1}), predict({"n": 2})))

        ids = asyncio.run(both())
    assert len(set(ids)) == 2
    assert {record.prediction_id for record in seen.records} == set(ids)
    assert {record.features["n"]: record.prediction for record in seen.records} == dict(
        zip((1, 2), ids, strict=True)
    )
    total = seen.value(SUM, model="async", outcome="ok")
    assert total is not None
    assert total >= 0.04


def test_a_cancelled_coroutine_is_cancelled_and_no_error() -> None:
    @mlobs.observe(model="cancel")
    async def predict() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(predict())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture() as seen:
        asyncio.run(main())
    assert seen.value(COUNT, model="cancel", outcome="cancelled") == 1
    assert seen.value(COUNT, model="cancel", outcome="error") == 0


def test_a_generator_keeps_send_throw_and_return_and_ends_when_it_ends() -> None:
    @mlobs.observe(model="gen")
    def talk() -> Iterator[object]:
        got = yield "first"
        try:
            yield got
        except KeyError:
            yield "caught"
        return "end"

    assert inspect.isgeneratorfunction(talk)
    with capture() as seen:
        stream = talk()
        assert seen.value(COUNT, model="gen", outcome="ok") == 0
        assert next(stream) == "first"
        assert seen.value("mlobs_requests_in_flight", model="gen") == 1
        assert stream.send("back") == "back"
        assert stream.throw(KeyError()) == "caught"
        with pytest.raises(StopIteration) as stopped:
            next(stream)
    assert stopped.value.value == "end"
    assert seen.value(COUNT, model="gen", outcome="ok") == 1


def test_a_generator_does_not_leak_its_call_to_its_consumer() -> None:
    @mlobs.observe(model="leak")
    def tokens() -> Iterator[str]:
        yield mlobs.current().prediction_id
        yield mlobs.current().prediction_id

    with capture() as seen:
        stream = tokens()
        first = next(stream)
        assert mlobs.current().binding is None
        assert next(stream) == first
        stream.close()
    assert seen.value(COUNT, model="leak", outcome="cancelled") == 1


def test_an_async_generator_ends_when_it_ends() -> None:
    @mlobs.observe(model="agen")
    async def tokens(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def main() -> list[int]:
        return [number async for number in tokens(3)]

    assert inspect.isasyncgenfunction(tokens)
    with capture() as seen:
        assert asyncio.run(main()) == [0, 1, 2]
    assert seen.value(COUNT, model="agen", outcome="ok") == 1


def test_a_decision_is_counted_and_recorded() -> None:
    @mlobs.observe(model="decide", decision=lambda probability: probability > 0.5)
    def decide(request: dict) -> float:
        return 0.7

    @mlobs.observe(model="said")
    def said(request: dict) -> float:
        mlobs.current().set_decision("block")
        mlobs.current().set_segment("DE")
        return 0.7

    with capture() as seen:
        decide({})
        said({})
    assert seen.value("mlobs_predictions_total", model="decide", decision="true") == 1
    assert seen.value("mlobs_predictions_total", model="said", decision="block") == 1
    assert [(record.decision, record.segment) for record in seen.records] == [("true", None), ("block", "DE")]


def test_outside_of_a_call_current_and_stage_do_nothing() -> None:
    with mlobs.stage("inference"):
        mlobs.current().set_segment("DE")
    assert len(mlobs.current().prediction_id) == 32


def test_methods_of_every_kind_are_observed() -> None:
    class Model:
        @mlobs.observe(model="bound")
        def bound(self, request: dict) -> str:
            return type(self).__name__

        @mlobs.observe(model="static")
        @staticmethod
        def static(request: dict) -> int:
            return 2

        @classmethod
        @mlobs.observe(model="class")
        def of_class(cls, request: dict) -> type:
            return cls

    with capture() as seen:
        assert Model().bound({}) == "Model"
        assert Model.static({}) == 2
        assert Model.of_class({}) is Model
    for model in ("bound", "static", "class"):
        assert seen.value(COUNT, model=model, outcome="ok") == 1


def test_a_label_reaches_the_log() -> None:
    with capture() as seen:
        mlobs.log_label("abc", 1, event_time=5.0)
    assert [(label.prediction_id, label.label, label.event_time) for label in seen.labels] == [
        ("abc", 1, 5.0)
    ]
