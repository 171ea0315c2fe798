"""Good predictions: each call has one result, and the indicator reads it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

import mlobs
from mlobs.sdk.buckets import make_bounds
from mlobs.sdk.collector import make_registry
from mlobs.sdk.good import RESULTS, results, spoiled
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.testing import Seen, capture
from tests.slo.test_sli import Extra, run_minutes
from tests.slo.world import START, settings

GOOD = "mlobs_good_predictions_total"
FAST = ObjectiveSettings("good", SliSettings("good_prediction", Decimal(5)), Decimal("0.9"), "fraud")
AGED = ObjectiveSettings(
    "aged", SliSettings("freshness", Decimal(60), metric="mlobs_feature_age_seconds"), Decimal("0.9"), "fraud"
)


def with_objectives(*objectives: ObjectiveSettings) -> Settings:
    return Settings(service="test", sample=0.0, slo=SloSettings(objectives=objectives))


def by_result(seen: Seen) -> dict[str, float | None]:
    return {result: seen.value(GOOD, model="fraud", result=result) for result in RESULTS}


@mlobs.observe(model="fraud")
def score(*, valid: bool = True, age: float = 0.0, error: bool = False) -> float:
    if error:
        raise ValueError
    if not valid:
        mlobs.current().set_valid(False)
    mlobs.feature_age("balance", age)
    return 0.5


def test_every_result_stands_at_zero_before_it_happens() -> None:
    with capture(with_objectives(FAST)) as seen:
        score()
        assert by_result(seen) == {"ok": 1, "error": 0, "invalid": 0, "stale": 0, "slow": 0}


def test_each_call_has_the_first_result_that_fits() -> None:
    with capture(with_objectives(FAST, AGED)) as seen:
        score()
        score(valid=False)
        score(valid=False, age=61.0)
        score(age=61.0)
        score(age=60.0)
        with pytest.raises(ValueError):
            score(error=True)
        assert by_result(seen) == {"ok": 2, "error": 1, "invalid": 2, "stale": 1, "slow": 0}


def test_a_call_over_the_threshold_is_slow_and_counted_once_when_it_was_invalid_too() -> None:
    tight = ObjectiveSettings(
        "good", SliSettings("good_prediction", Decimal("1e-9")), Decimal("0.9"), "fraud"
    )
    with capture(with_objectives(tight)) as seen:
        score()
        score(valid=False)
        assert by_result(seen) == {"ok": 0, "error": 0, "invalid": 1, "stale": 0, "slow": 1}


def test_a_call_that_the_client_left_is_neither_good_nor_bad() -> None:
    @mlobs.observe(model="fraud")
    async def wait() -> None:
        raise asyncio.CancelledError

    with capture(with_objectives(FAST)) as seen:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(wait())
        assert by_result(seen) == dict.fromkeys(RESULTS, 0)


Calls = st.lists(
    st.tuples(
        st.sampled_from(("ok", "error", "cancelled")),
        st.booleans(),
        st.booleans(),
        st.sampled_from((0.1, 9.0)),
    )
)


@given(Calls, st.sampled_from((None, 1.0)))
def test_results_add_up_to_the_calls_however_they_mix(
    calls: list[tuple[str, bool, bool, float]], threshold: float | None
) -> None:
    bounds = make_bounds([1.0])
    counts = {outcome: [0.0] * bounds.size for outcome in ("ok", "error", "cancelled")}
    apart: dict[str, float] = {}
    expected = dict.fromkeys(RESULTS, 0.0)
    for outcome, valid, fresh, took in calls:
        counts[outcome][next((i for i, edge in enumerate(bounds.fine) if took <= edge), bounds.size - 1)] += 1
        late = threshold is not None and took > threshold
        if outcome == "ok" and not (valid and fresh):
            apart[spoiled(valid, late)] = apart.get(spoiled(valid, late), 0.0) + 1
        if outcome == "error":
            expected["error"] += 1
        elif outcome == "cancelled":
            expected["slow"] += late
        else:
            expected["invalid" if not valid else "stale" if not fresh else "slow" if late else "ok"] += 1
    assert results(counts, bounds, threshold, apart) == expected


def test_the_indicator_reads_what_the_sdk_counts() -> None:
    world = Extra(settings(FAST))
    with capture(with_objectives(FAST, AGED)) as seen:

        def page() -> str:
            families = generate_latest(make_registry(seen.runtime)).decode().splitlines(keepends=True)
            return "".join(line for line in families if line.startswith(GOOD))

        score()
        run_minutes(world, [page()])
        for _ in range(90):
            score()
        for _ in range(8):
            score(valid=False)
        for _ in range(2):
            score(age=61.0)
        world.extra = page()
    world.tick(START + 120)
    status = world.status("good")
    assert (status.bad, status.total) == (10, 101)
    assert status.spent_by == (("result=invalid", 8.0), ("result=stale", 2.0))
