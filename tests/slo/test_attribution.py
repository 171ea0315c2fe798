"""What was spent, by what: and what a forecast may say."""

from __future__ import annotations

from mlobs.slo import read
from mlobs.slo.budget import exhaustion_band
from mlobs.slo.burn import Count
from tests.slo.test_sli import Extra
from tests.slo.world import START, World, objective, settings


def test_spending_is_told_apart_by_model_version() -> None:
    world = Extra(settings(objective("up", "availability")))
    text = (
        'mlobs_request_duration_seconds_count{{model="fraud",model_version="2",outcome="error"}} {}\n'
        'mlobs_request_duration_seconds_count{{model="fraud",model_version="2",outcome="ok"}} {}\n'
    )
    world.extra = text.format(0, 0)
    world.tick(START)
    world.service.run(ok=1000, error=1)
    world.extra = text.format(9, 90)
    world.tick(START + 60)
    status = world.status("up")
    assert status.spent_by == (("model_version=2", 9.0), ("model_version=1", 1.0))
    assert read.statuses(world.store)[0].spent_by == status.spent_by


def test_spending_on_data_quality_is_told_apart_by_check() -> None:
    world = Extra(settings(objective("rows", "data_quality", "0.99")))
    text = 'mlobs_data_quality_rows_total{{model="fraud",check="range",result="failed"}} {}\n'
    world.extra = text.format(0)
    world.tick(START)
    world.service.rows_ok, world.service.rows_bad = 90, 10
    world.extra = text.format(10)
    world.tick(START + 60)
    assert world.status("rows").spent_by == (("check=range", 10.0),)


def test_bad_drift_slices_are_put_down_to_the_features_in_breach() -> None:
    world = Extra(settings(objective("drift", "drift", "0.95")))
    world.service.slices = {"ok": 0, "drifted": 0}
    world.extra = 'mlobs_drift_breach{model="fraud",feature="temp",segment="",severity="page"} 1\n'
    world.tick(START)
    world.service.slices = {"ok": 3, "drifted": 2}
    world.tick(START + 300)
    assert world.status("drift").spent_by == (("feature=temp", 2.0),)


def test_more_values_than_the_cap_share_one_account() -> None:
    world = Extra(settings(objective("up", "availability")))
    line = 'mlobs_request_duration_seconds_count{{model="fraud",model_version="v{}",outcome="error"}} {}\n'
    world.extra = "".join(line.format(n, 0) for n in range(100))
    world.tick(START)
    world.extra = "".join(line.format(n, 1) for n in range(100))
    world.tick(START + 60)
    assert len(world.engine._accounts.parts("up")) <= 1 + 21
    assert dict(world.status("up").spent_by)["model_version=__other__"] >= 80


def test_absence_says_which_target_does_not_answer() -> None:
    world = World(settings(objective("up", "availability")))
    world.tick(START)
    world.service.down = True
    world.tick(START + 3600)
    [alert] = world.tick(START + 7200)
    assert "http://fraud:8000/metrics: ConnectionError: connection refused" in alert.summary


def test_the_band_of_exhaustion_holds_the_forecast_and_may_reach_never() -> None:
    early, late = exhaustion_band(0.0, 0.5, Count(100, 10_000), 0.001, 30 * 86400.0)
    assert early is not None
    assert late is not None
    assert early < 0.5 * 30 * 86400 / 10 < late
    assert exhaustion_band(0.0, 0.5, Count(1, 10_000), 0.001, 30 * 86400.0)[1] is None
    assert exhaustion_band(0.0, None, Count(1, 10), 0.001, 1.0) == (None, None)
