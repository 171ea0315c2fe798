"""Calendar periods begin at local midnight of the first and have their own length; budgets know how much
has passed."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mlobs.settings import ObjectiveSettings
from mlobs.slo.periods import period_of
from tests.slo.world import World, objective, settings

DAY = 86400.0


def calendar(kind: str, zone: str = "UTC") -> ObjectiveSettings:
    return dataclasses.replace(objective("up", "availability"), calendar=kind, zone=zone)


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("kind", "now", "start", "days"),
    [
        ("month", "2026-02-10T12:00", "2026-02-01T00:00", 28),
        ("month", "2026-12-31T23:59", "2026-12-01T00:00", 31),
        ("month", "2027-01-01T00:00", "2027-01-01T00:00", 31),
        ("quarter", "2026-11-23T00:00", "2026-10-01T00:00", 92),
        ("quarter", "2026-03-31T00:00", "2026-01-01T00:00", 90),
    ],
)
def test_a_calendar_period_begins_on_the_first_and_has_its_own_length(
    kind: str, now: str, start: str, days: int
) -> None:
    assert period_of(calendar(kind), at(now)) == (at(start), days * DAY)


def test_a_month_with_a_clock_change_is_an_hour_off() -> None:
    start, length = period_of(calendar("month", "America/New_York"), at("2026-03-15T12:00"))
    assert datetime.fromtimestamp(start, UTC).isoformat() == "2026-03-01T05:00:00+00:00"
    assert length == 31 * DAY - 3600


def test_a_rolling_period_ends_now() -> None:
    assert period_of(objective("up", "availability"), 40 * DAY) == (10 * DAY, 30 * DAY)


def test_the_budget_of_a_month_is_that_of_the_whole_month_and_begins_anew() -> None:
    world = World(settings(calendar("month")))
    t = at("2026-02-01T00:00")
    world.service.started = t
    while t < at("2026-02-15T00:00"):
        t += 3600
        world.service.run(ok=3597.75, error=2.25)  # 0.0625 % bad: at this pace 62.5 % of a month's budget
        world.tick(t)
    half = world.status("up")
    assert half.consumed == pytest.approx(0.3125, rel=0.01)
    assert half.budget_minutes == pytest.approx(28 * 1440 * 0.001)
    while t < at("2026-03-01T01:00"):
        t += 3600
        world.service.run(ok=3600)
        world.tick(t)
    assert world.status("up").bad == 0
    assert world.status("up").consumed == 0


def test_a_service_older_than_the_month_has_the_month_so_far_and_not_all_of_it() -> None:
    world = World(settings(calendar("month")))
    t = at("2026-01-01T00:00")
    world.service.started = t
    while t < at("2026-02-08T00:00"):
        t += 21600
        world.service.run(ok=21587, error=13)
        world.tick(t)
    # A quarter of February has passed at 60 % of the allowed pace.
    assert world.status("up").consumed == pytest.approx(0.25 * 13 / 21.6, rel=0.02)
