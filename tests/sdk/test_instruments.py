"""Queues, batches, caches and ages, as a scrape sees them."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest

import mlobs
from mlobs.sdk.meter import MOST_SETS
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.testing import capture


def test_inside_a_call_everything_belongs_to_its_model() -> None:
    looks, waiting = mlobs.cache(), mlobs.queue("gpu")

    @mlobs.observe(model="instruments")
    def score() -> int:
        looks.looked(True)
        looks.looked(False)
        looks.failed()
        with waiting.wait():
            assert seen.value("mlobs_queue_length", model="instruments", stage="gpu") == 1
        mlobs.batch(3)
        mlobs.feature_age("balance", 42.0)
        return 1

    with capture() as seen:
        score()
        score()
        for result in ("hit", "miss", "error"):
            at = {"model": "instruments", "stage": "feature_read", "result": result}
            assert seen.value("mlobs_cache_requests_total", **at) == 2
        assert seen.value("mlobs_queue_length", model="instruments") == 0
        assert seen.value("mlobs_queue_duration_seconds_count", model="instruments", stage="gpu") == 2
        assert seen.value("mlobs_batch_size_sum", model="instruments") == 6
        assert seen.value("mlobs_batch_size_bucket", model="instruments", le="4.0") == 2
        assert seen.value("mlobs_batch_size_bucket", model="instruments", le="2.0") == 0
        assert seen.value("mlobs_feature_age_seconds_sum", model="instruments", feature="balance") == 84
        assert seen.value("mlobs_model_info", model="instruments") == 1


def test_what_enters_in_one_thread_may_leave_in_another() -> None:
    waiting = mlobs.queue(model="m")
    with capture() as seen:
        entered = waiting.entered()
        thread = threading.Thread(target=lambda: waiting.left(entered))
        thread.start()
        thread.join()
        assert seen.value("mlobs_queue_length") == 0
        assert seen.value("mlobs_queue_duration_seconds_count") == 1
        waiting.set_length(7)
        assert seen.value("mlobs_queue_length") == 7


def test_an_age_has_an_edge_on_every_freshness_threshold() -> None:
    fresh = ObjectiveSettings("f", SliSettings("freshness", threshold=Decimal(77)), Decimal("0.99"), "m")
    with capture(Settings(service="s", slo=SloSettings(objectives=(fresh,)))) as seen:
        mlobs.feature_age("x", 77, model="m")
        mlobs.feature_age("x", 78, model="m")
        assert seen.value("mlobs_feature_age_seconds_bucket", le="77.0") == 1
        mlobs.feature_age("x", -3, model="m")  # a clock that is ahead
        assert seen.value("mlobs_feature_age_seconds_bucket", le="1.0") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "x", 10**400, object()])
def test_a_strange_value_is_counted_as_such_and_nothing_else(value: object) -> None:
    with capture(strict=False) as seen:
        mlobs.batch(value, model="m")  # type: ignore[arg-type]
        mlobs.feature_age("x", value, model="m")  # type: ignore[arg-type]
        mlobs.queue(model="m").waited(value)  # type: ignore[arg-type]
        assert seen.internal_errors == {"batch": 1, "feature_age": 1, "queue": 1}
        assert not seen.value("mlobs_batch_size_count")


def test_names_beyond_the_cap_are_other() -> None:
    with capture() as seen:
        for number in range(MOST_SETS + 50):
            mlobs.feature_age(f"feature-{number}\ud800", 1, model="m")
        assert seen.value("mlobs_feature_age_seconds_count", feature="__other__") == 50
        assert seen.value("mlobs_label_overflow_total") == 50
