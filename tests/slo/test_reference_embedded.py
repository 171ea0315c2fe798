"""Detection and reset times of the embedded evaluator, at its real pace: scrape 15 s, evaluation 30 s."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from functools import lru_cache

import pytest

from mlobs.records import Alert
from mlobs.settings import BurnWindowSettings
from mlobs.slo.policy import WORKBOOK
from tests.slo.reference import CASES, STEP, Case
from tests.slo.world import START, Service, World, objective, settings

HOUR = 3600.0
ONSET = START + 7 * HOUR


def name_of(case: Case, tier: int) -> str:
    return f"{case.kind}-{case.objective}-{case.share}-{tier}"


class Fleet(World):
    """One service a case behind one target, each with a model of its own."""

    def __init__(self, objectives, windows=None) -> None:  # type: ignore[no-untyped-def]
        super().__init__(settings(*objectives, windows=windows))
        self.services: dict[str, Service] = {}

    def fetch(self, url: str) -> str:
        return "".join(service.text().replace("# EOF\n", "") for service in self.services.values())


@lru_cache(maxsize=1)
def simulated() -> dict[str, float]:
    """First firing of each case and tier, in seconds after the onset; each tier is an objective of its
    own."""
    objectives = []
    for case in CASES:
        for tier in (0, 1):
            window = dataclasses.replace(WORKBOOK[tier], severity="page")
            each = objective(name_of(case, tier), case.kind, case.objective, severity="page")
            objectives.append(dataclasses.replace(each, model=f"{case.kind}-{case.share}", windows=(window,)))
    fleet = Fleet(objectives)
    fleet.services = {f"{case.kind}-{case.share}": Service(f"{case.kind}-{case.share}") for case in CASES}
    for service in fleet.services.values():
        service.slices = {"ok": 0.0, "drifted": 0.0}
    t = START
    first: dict[str, float] = {}
    while t < ONSET + 18_700:
        # Quick through the mature past, to the second where windows begin.
        step = 300.0 if t < ONSET - 6 * HOUR - 900 else 15.0
        t += step
        for case in CASES:
            share = case.share if t > ONSET else 0.0
            service = fleet.services[f"{case.kind}-{case.share}"]
            count = 100.0 * step
            if case.kind == "availability":
                service.run(ok=count * (1 - share), error=count * share)
            elif case.kind == "latency":
                service.run(ok=count, slow=count * share)
            else:
                whole = float(t // 60 - (t - step) // 60)
                service.slices["drifted" if share else "ok"] += whole
        for alert in fleet.tick(t):
            if alert.firing and alert.kind == "burn" and alert.short_window_s is not None:
                first.setdefault(alert.slo, t - ONSET)
    return first


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {case.objective} {case.share:.1%}")
def test_a_step_change_is_found_when_the_reference_says(case: Case) -> None:
    first = simulated()
    if case.fast is None:
        assert name_of(case, 0) not in first
    else:
        assert first[name_of(case, 0)] == pytest.approx(case.fast, abs=STEP)
    if case.slow is not None:
        assert first[name_of(case, 1)] == pytest.approx(case.slow, abs=STEP)


@pytest.mark.parametrize(("tier", "expected"), [(0, 270), (1, 1770)])
def test_a_ten_minute_outage_resets_when_the_reference_says(tier: int, expected: float) -> None:
    window = WORKBOOK[tier]
    world = World(settings(objective("up", "availability"), windows=(window,)))
    world.run(START, START + 7 * HOUR, 60, lambda s, t, d: s.run(ok=100 * d))
    world.run(ONSET, ONSET + 600, 15, lambda s, t, d: s.run(error=100 * d))
    world.run(ONSET + 600, ONSET + 600 + 2000, 15, lambda s, t, d: s.run(ok=100 * d))
    last = max(at for at, alert in world.log if alert.firing and alert.short_window_s is not None)
    assert last - (ONSET + 600) == pytest.approx(expected, abs=STEP)


def pages(world: World) -> list[tuple[float, Alert]]:
    return [(at, alert) for at, alert in world.log if alert.firing and alert.severity == "page"]


def test_p99_slices_page_within_ten_minutes_and_a_stall_of_five_stays_silent() -> None:
    fleet = Fleet([dataclasses.replace(objective(n, "p99", "0.99"), model=n) for n in ("slow", "stall")])
    fleet.services = {name: Service(name) for name in ("slow", "stall")}
    t = START
    while t < ONSET + 3600:
        step = 60.0 if t < ONSET - 300 else 15.0
        t += step
        count = 5000 * step
        fleet.services["slow"].run(ok=count, slow=count * (0.03 if t > ONSET else 0.005))
        fleet.services["stall"].run(ok=count, slow=count * (1.0 if ONSET < t <= ONSET + 300 else 0.005))
        fleet.tick(t)
    found = pages(fleet)
    assert {alert.slo for _, alert in found} == {"slow"}
    assert 8 * 60 <= found[0][0] - ONSET <= 10 * 60
    assert found[0][1].since == ONSET  # the start of the first bad slice


def young(age: float, bad_for: float) -> World:
    """A service that is `age` seconds old when it fails wholly for `bad_for` seconds, then an hour of
    health."""
    world = World(settings(objective("up", "availability")))
    world.run(START, START + age, 15, lambda s, t, d: s.run(ok=100 * d))
    world.run(START + age, START + age + bad_for, 15, lambda s, t, d: s.run(error=100 * d))
    world.run(START + age + bad_for, START + age + bad_for + HOUR, 15, lambda s, t, d: s.run(ok=100 * d))
    return world


@pytest.mark.parametrize("minutes", [10, 30])
def test_a_young_service_is_silent_over_a_blip_and_pages_at_an_outage(minutes: int) -> None:
    assert not pages(young(minutes * 60.0, 60.0))
    outage = pages(young(minutes * 60.0, 600.0))
    assert outage
    assert outage[0][0] <= START + minutes * 60 + 600


def hourly(per_hour: int, bad_from: float, until: float, only: int | None = None) -> World:
    """`per_hour` single requests, all bad from `bad_from` on, or only the one with this number."""
    world = World(settings(objective("up", "availability")))
    gap = HOUR / per_hour

    def load(service: Service, t: float, step: float) -> None:
        for number in range(int((t - step - START) // gap) + 1, int((t - START) // gap) + 1):
            bad = number == only if only is not None else START + number * gap > bad_from
            service.run(error=1) if bad else service.run(ok=1)

    world.run(START, until, 30, load)
    return world


def test_one_error_at_sixty_requests_an_hour_pages_nobody() -> None:
    assert not pages(hourly(60, 0, START + 10 * HOUR, only=400))


@pytest.mark.parametrize("per_hour", [5, 12])
def test_a_quiet_service_that_fails_wholly_pages_within_two_hours(per_hour: int) -> None:
    world = hourly(per_hour, ONSET, ONSET + 2 * HOUR)
    assert pages(world)[0][0] > ONSET


def test_half_of_a_quiet_services_events_bad_pages_where_no_tier_can() -> None:
    """With an objective of 80 % no default tier is reachable: the absolute rule alone speaks."""
    windows = (BurnWindowSettings("page", HOUR, 300.0, Decimal("0.02")),)
    world = World(settings(objective("up", "availability", "0.8"), windows=windows))
    world.run(START, START + 7 * HOUR, 300, lambda s, t, d: s.run(ok=1, error=1))
    assert pages(world)
