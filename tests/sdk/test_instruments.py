"""Queues, batches, caches and ages, as a scrape sees them."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import mlobs
from mlobs.featurelog.opening import open_log
from mlobs.sdk.api import installed
from mlobs.sdk.meter import MOST_SETS
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.serve import render
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
        mlobs.queue(model="m").set_length(value)  # type: ignore[arg-type]
        assert seen.internal_errors == {"batch": 1, "feature_age": 1, "queue": 2}
        assert not seen.value("mlobs_batch_size_count")
        assert not seen.value("mlobs_queue_length")


def test_a_sum_never_goes_back_for_a_clock_that_does() -> None:
    with capture(strict=False) as seen:
        mlobs.queue(model="m").waited(-0.5)
        mlobs.batch(-1, model="m")
        assert seen.internal_errors == {"batch": 1, "queue": 1}
        assert not seen.value("mlobs_queue_duration_seconds_count")


class Wordless:
    """As an array or a frame: no truth value; and no text either."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __str__(self) -> str:
        raise ValueError("wordless")


def test_objects_without_text_or_truth_do_not_reach_the_host() -> None:
    with capture(strict=False) as seen:
        mlobs.cache("feature_read", model="m").looked(Wordless())  # type: ignore[arg-type]
        mlobs.queue(Wordless(), model="m").left(Wordless())  # type: ignore[arg-type]
        mlobs.cache(Wordless(), model="m").looked(True)  # type: ignore[arg-type]
        mlobs.current().set_features(None)  # type: ignore[arg-type]
        with mlobs.generation(model="g") as response:
            response.token(Wordless())  # type: ignore[arg-type]
        assert seen.internal_errors == {"cache": 1, "queue": 1, "stage": 2, "tokens": 1}
        assert seen.value("mlobs_cache_requests_total", result="hit") == 1


@pytest.mark.parametrize("at", ["2026-11-01", float("nan"), 10**400, Wordless()])
def test_a_label_of_no_time_is_counted_and_the_page_stays_whole(at: Any, tmp_path: Path) -> None:
    runtime = Runtime(Settings(service="s"), log=open_log(str(tmp_path), service="s"))
    with installed(runtime):
        mlobs.log_label("early", 1, event_time=5.0)
        mlobs.log_label("x", 1, event_time=at)
        assert mlobs.flush(5)
        page = render("")[0].decode()
    assert 'mlobs_internal_errors_total{reason="log_label",service="s"} 1.0' in page
    assert 'end="in",pipeline="featurelog",service="s"} 5.0' in page
    assert runtime.close(5)


def test_names_beyond_the_cap_are_other() -> None:
    with capture() as seen:
        for number in range(MOST_SETS + 50):
            mlobs.feature_age(f"feature-{number}\ud800", 1, model="m")
        assert seen.value("mlobs_feature_age_seconds_count", feature="__other__") == 50
        assert seen.value("mlobs_label_overflow_total") == 50
