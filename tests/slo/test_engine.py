"""The embedded evaluator as `serve` drives it."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from mlobs.settings import BurnWindowSettings
from mlobs.slices import slice_at
from mlobs.slo import read
from tests.slo.world import START, Service, World, file_store, objective, settings

DAY = 86400.0
HOUR = 3600.0


def steady(service: Service, t: float, step: float) -> None:
    service.run(ok=10 * step)


def outage(service: Service, t: float, step: float) -> None:
    service.run(error=10 * step)


def test_a_healthy_service_fires_nothing_and_keeps_its_whole_budget() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + 2 * HOUR, 30, steady)
    assert not world.log
    status = world.status("up")
    assert status.remaining == 1.0
    assert status.bad == 0
    assert status.total == 10 * 2 * HOUR


def test_a_total_outage_pages_and_the_alert_ceases_once_when_it_heals() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + 8 * HOUR, 60, steady)
    world.run(START + 8 * HOUR, START + 8 * HOUR + 600, 15, outage)
    assert world.first() == pytest.approx(START + 8 * HOUR + 60, abs=30)
    world.run(START + 8 * HOUR + 600, START + 10 * HOUR, 15, steady)
    ended = [(at, alert) for at, alert in world.log if not alert.firing and alert.severity == "page"]
    assert len(ended) == 1
    assert ended[0][0] <= START + 8 * HOUR + 600 + 1800
    alert = next(alert for _, alert in world.log if alert.firing)
    assert (alert.cause, alert.slo, alert.model, alert.service) == (
        "availability",
        "up",
        "fraud",
        "fraud-api",
    )


def test_since_stays_the_time_at_which_it_began_to_fire() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + 8 * HOUR, 60, steady)
    world.run(START + 8 * HOUR, START + 8 * HOUR + 600, 30, outage)
    pages = [alert for _, alert in world.log if alert.severity == "page"]
    assert len(pages) > 5
    assert len({alert.since for alert in pages}) == 1


def test_a_failed_scrape_is_a_state_and_no_zero() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + HOUR, 30, steady)
    before = world.status("up").total
    world.service.down = True
    world.run(START + HOUR, START + HOUR + 120, 30, steady)
    assert world.status("up").total == before
    [target] = read.targets(world.store)
    assert not target.up
    assert "refused" in target.error
    world.service.down = False
    world.run(START + HOUR + 120, START + HOUR + 150, 30, steady)
    assert world.status("up").total == before + 10 * 150  # nothing of the gap is lost


def test_absent_data_pages_after_a_quarter_of_an_hour_and_is_never_ok() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + 2 * HOUR, 15, steady)
    world.service.down = True
    world.run(START + 2 * HOUR, START + 3 * HOUR, 15, steady)
    first = world.first(kind="absent")
    assert first == pytest.approx(START + 2 * HOUR + 900, abs=60)
    assert world.status("up").state == "absent"


def test_an_objective_that_never_had_data_becomes_absent_too() -> None:
    world = World(settings(objective("up", "availability")))
    world.service.down = True
    world.run(START, START + HOUR, 15, steady)
    assert world.first(kind="absent") == pytest.approx(START + 900, abs=60)
    assert world.status("up").remaining is None


def test_a_restart_of_the_target_loses_no_event_that_was_scraped_after_it() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + HOUR, 30, steady)
    before = world.status("up").total
    world.service.restart(START + HOUR)
    # Twice as many as before: only the process start can tell that the counter began again.
    world.service.run(ok=100_000)
    world.tick(START + HOUR + 30)
    assert world.status("up").total == before + 100_000


def test_a_restart_of_serve_goes_on_from_the_store(tmp_path) -> None:
    config = settings(objective("up", "availability"), objective("fast", "p99", "0.99"))
    world = World(config, file_store(tmp_path / "a.db"))
    world.run(START, START + HOUR, 30, steady)
    before = world.status("up").total
    service = world.service
    world.store.close()
    world = World(config, file_store(tmp_path / "a.db"))
    world.service = service
    service.run(ok=500)
    world.tick(START + HOUR + 30)
    assert world.status("up").total == before + 500
    assert world.status("fast").total == 60


def test_an_alert_that_ceased_while_serve_was_down_gets_its_last_word(tmp_path) -> None:
    config = settings(objective("up", "availability"))
    world = World(config, file_store(tmp_path / "a.db"))
    world.run(START, START + 8 * HOUR, 60, steady)
    world.run(START + 8 * HOUR, START + 8 * HOUR + 300, 15, outage)
    assert read.firing(world.store)
    service = world.service
    world.store.close()
    world = World(config, file_store(tmp_path / "a.db"))
    world.service = service
    service.run(ok=1_000_000)
    alerts = world.tick(START + 3 * DAY + 12 * HOUR)
    assert [alert.severity for alert in alerts if not alert.firing].count("page") == 1


def test_the_store_and_the_registry_show_what_the_last_evaluation_found() -> None:
    registry = CollectorRegistry()
    world = World(settings(objective("up", "availability")), registry=registry)
    world.run(START, START + 2 * HOUR, 15, steady)
    [status] = read.statuses(world.store)
    assert status.name == "up"
    assert status.history[-1][1] == 1.0
    assert (
        registry.get_sample_value("mlobs_slo_error_budget_remaining_ratio", {"slo": "up", "model": "fraud"})
        == 1.0
    )
    rate = registry.get_sample_value("mlobs_slo_burn_rate", {"slo": "up", "model": "fraud", "window": "1h"})
    assert rate == 0.0


def test_a_drift_breach_of_this_process_is_an_alert_at_the_next_tick() -> None:
    registry = CollectorRegistry()
    labels = ["model", "feature", "segment", "severity"]
    breach = Gauge("mlobs_drift_breach", "breach", labels, registry=registry)
    world = World(settings(objective("up", "availability")), registry=registry)
    world.run(START, START + 60, 15, steady)
    breach.labels("fraud", "temp", "", "page").set(1)
    [alert] = [a for a in world.tick(START + 90) if a.kind == "breach"]
    assert (alert.cause, alert.feature, alert.severity, alert.firing) == ("drift", "temp", "page", True)
    breach.labels("fraud", "temp", "", "page").set(0)
    [ended] = [a for a in world.tick(START + 120) if a.kind == "breach"]
    assert not ended.firing
    assert not world.tick(START + 150)


def test_a_drift_breach_tells_when_what_broke_began() -> None:
    registry = CollectorRegistry()
    labels = ["model", "feature", "segment", "severity"]
    breach = Gauge("mlobs_drift_breach", "breach", labels, registry=registry)
    onset = Gauge("mlobs_drift_breach_since_timestamp_seconds", "onset", labels, registry=registry)
    world = World(settings(objective("up", "availability")), registry=registry)
    world.tick(START + HOUR)
    for feature in ("temp", "wind", "dew"):
        breach.labels("fraud", feature, "", "page").set(1)
    onset.labels("fraud", "temp", "", "page").set(START + 600)
    onset.labels("fraud", "wind", "", "page").set(START + DAY)  # of a clock that runs ahead
    since = {alert.feature: alert.since for alert in world.tick(START + HOUR + 30)}
    assert since == {"temp": START + 600, "wind": START + HOUR + 30, "dew": START + HOUR + 30}
    assert {a.since for a in world.tick(START + HOUR + 60) if a.feature == "temp"} == {START + 600}


def test_counters_of_this_process_count_from_where_the_engine_found_them() -> None:
    registry = CollectorRegistry()
    slices = Counter("mlobs_drift_slices", "slices", ["model", "result"], registry=registry)
    slices.labels("fraud", "ok").inc(100)  # restored by the stage before we began
    world = World(settings(objective("drift", "drift", "0.95")), registry=registry)
    world.tick(START)
    slices.labels("fraud", "drifted").inc()
    world.tick(START + 60)
    status = world.status("drift")
    assert (status.bad, status.total) == (1, 1)


def test_mostly_insufficient_drift_slices_are_an_absence_and_not_a_verdict() -> None:
    world = World(settings(objective("drift", "drift", "0.95")))
    world.service.slices = {"ok": 0, "insufficient": 0}
    world.tick(START)
    world.service.slices = {"ok": 10, "insufficient": 30}
    world.tick(START + HOUR)
    assert world.status("drift").state == "absent"
    assert world.status("drift").total == 10
    assert world.first("ticket", kind="absent", slo="drift") == START + HOUR
    [alert] = [alert for _, alert in world.log if alert.kind == "absent"]
    assert alert.summary == "drift: 30 of 40 slices of the last 15 min could not be judged"
    world.service.slices = {"ok": 60, "insufficient": 30}
    [ended] = [a for a in world.tick(START + HOUR + 300) if a.kind == "absent"]
    assert not ended.firing


def test_one_slice_that_could_not_be_judged_raises_no_alert() -> None:
    world = World(settings(objective("drift", "drift", "0.95"), drift_window=HOUR))
    world.service.slices = {"ok": 0, "insufficient": 0}
    world.tick(START)
    world.service.slices = {"ok": 0, "insufficient": 1}
    world.tick(START + HOUR)
    assert world.status("drift").state == "absent"
    assert world.first("ticket", kind="absent") is None
    world.service.slices = {"ok": 0, "insufficient": 2}
    world.tick(START + 2 * HOUR)
    assert world.first("ticket", kind="absent") == START + 2 * HOUR


def daily_world() -> World:
    """The demo's shape: hourly ticks of an event clock, slices of a New York day, stretched windows."""
    windows = (BurnWindowSettings("page", 5 * DAY, 2 * DAY, Decimal("0.7")),)
    zone = "America/New_York"
    return World(
        settings(
            objective("p99", "p99", "0.9"),
            objective("up", "availability", "0.999"),
            windows=windows, slice_s=DAY, zone=zone, drift_window=DAY,
        )
    )  # fmt: skip


def test_five_days_of_three_percent_slow_page_after_three_bad_daily_slices_and_resolve() -> None:
    world = daily_world()
    seeded = random.Random(7)
    first = slice_at(1362200400.0, DAY, "America/New_York").start  # 2 March 2013, over a clock change
    days = [slice_at(first + (n + 0.5) * DAY, DAY, "America/New_York") for n in range(31)]
    for number, day in enumerate(days):
        share = 0.03 if 20 <= number < 25 else 0.002
        hours = round((day.end - day.start) / HOUR)
        for hour in range(hours):
            slow = sum(seeded.random() < share for _ in range(39))
            world.service.run(ok=39, slow=slow)
            world.tick(day.start + (hour + 1) * HOUR)
    pages = [(at, alert) for at, alert in world.log if alert.severity == "page"]
    fired = [at for at, alert in pages if alert.firing]
    assert fired[0] == days[22].end  # the third bad day has just closed
    assert {alert.cause for _, alert in pages} == {"latency"}
    [resolved] = [at for at, alert in pages if not alert.firing]
    assert days[24].end < resolved <= days[27].end
    status = world.status("p99")
    # 30 x 24 hours back from 2 April lies before the end of 2 March: the clock change took an hour out.
    assert (status.bad, status.total) == (5, 31)
    assert status.state == "exhausted"


def test_a_quiet_month_of_daily_slices_pages_nobody() -> None:
    world = daily_world()
    world.run(START, START + 30 * DAY, HOUR, lambda service, t, step: service.run(ok=39, slow=0))
    assert not world.log


def test_time_that_goes_back_is_answered_without_a_change() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + HOUR, 15, steady)
    total = world.status("up").total
    world.service.run(ok=1000)
    assert world.tick(START) == []
    assert world.status("up").total == total


def test_the_first_look_and_the_next_say_in_words_how_long_was_observed() -> None:
    world = World(settings(objective("up", "availability")))
    world.service.run(ok=1000)
    said = []
    for now in (START, START + 60):
        world.tick(now)
        said.append(world.status("up").reason.split(":")[0])
        # 1,000 requests in half a minute, and in one, would be some tens of millions in a month.
        assert 1_000_000 * 43 <= world.status("up").allowed / 0.001 <= 1_000_000 * 87
    assert said == ["seen for the first time just now", "observed for 1 min so far"]
