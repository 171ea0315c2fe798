"""The schedule of causes, the hours of the replay, and the judgement over pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from mlobs.demo.flights import midnight
from mlobs.demo.plan import LEAST_DAYS, SLOW_FAULT, WEATHER_FAULT, make_plan
from mlobs.demo.replay import Departure, by_hour
from mlobs.demo.run import Options, run_demo
from mlobs.demo.summary import DAY, PagedIncident, judge
from mlobs.errors import UsageError
from mlobs.notify.read import IncidentRow


def paged(at: float, *names: str) -> PagedIncident:
    row = IncidentRow("id", "k", "", "s", "m", "c", (), "page", "open", "t", at, at, None, "")
    return PagedIncident(row, at, names, ("hook",))


@pytest.mark.parametrize("days", range(LEAST_DAYS, 32))
def test_every_stretch_begins_quiet_has_two_faults_of_four_days_and_ends_healed(days: int) -> None:
    plan = make_plan(days)
    weather, slow = plan.faults
    assert (weather.name, slow.name) == (WEATHER_FAULT, SLOW_FAULT)
    assert plan.start + 3 * DAY <= weather.start < weather.end < slow.start < slow.end < plan.end
    for fault in plan.faults:
        assert (fault.last - fault.first).days >= 3
    assert slow.start - weather.end >= 1.9 * DAY  # the first incident is over before the second pages


def test_the_whole_month_has_two_quiet_weeks_and_the_second_fault_in_its_last_third() -> None:
    weather, slow = make_plan().faults
    assert (weather.first, weather.last) == (date(2013, 3, 15), date(2013, 3, 19))
    assert (slow.first, slow.last) == (date(2013, 3, 23), date(2013, 3, 27))


@pytest.mark.parametrize("days", [0, LEAST_DAYS - 1, 32])
def test_a_stretch_that_proves_nothing_is_refused(days: int) -> None:
    with pytest.raises(UsageError, match="14 to 31"):
        make_plan(days)


def test_a_folder_with_an_earlier_run_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlobs.db").touch()
    with pytest.raises(UsageError, match="an empty folder"):
        run_demo(Options(days=LEAST_DAYS, folder=tmp_path), Console())


def test_hours_cover_the_stretch_with_empty_ones_and_every_departure_once() -> None:
    start = midnight(date(2013, 3, 10))
    end = midnight(date(2013, 3, 11))
    rows = [Departure(start + offset, {}, None, 0.0) for offset in (0.0, 3599.0, 3600.0, 20 * 3600.0)]
    hours = list(by_hour(rows, start, end))
    assert len(hours) == 23  # the clocks went forward
    assert [len(found) for _, found in hours if found] == [2, 1, 1]
    assert hours[-1][0] == end


def test_the_right_pages_pass() -> None:
    plan = make_plan()
    weather, slow = plan.faults
    pages = [paged(weather.start + 3 * DAY, "dewp", "temp"), paged(slow.start + 3 * DAY, "inference")]
    judgement = judge(plan, pages)
    assert judgement.passed
    assert [outcome.delay for outcome in judgement.outcomes] == [3 * DAY, 3 * DAY]


def test_a_page_in_the_quiet_stretch_is_false_and_fails() -> None:
    plan = make_plan()
    weather, slow = plan.faults
    pages = [
        paged(plan.start + DAY, "temp"),
        paged(weather.start + 3 * DAY, "temp"),
        paged(slow.start + 3 * DAY, "inference"),
    ]
    judgement = judge(plan, pages)
    assert not judgement.passed
    assert [page.paged_at for page in judgement.false] == [plan.start + DAY]


def test_a_page_that_names_the_wrong_thing_fails() -> None:
    plan = make_plan()
    weather, slow = plan.faults
    pages = [paged(weather.start + 3 * DAY, "humid"), paged(slow.start + 3 * DAY, "inference")]
    judgement = judge(plan, pages)
    assert not judgement.passed
    assert not judgement.outcomes[0].named


def test_a_fault_without_a_page_fails() -> None:
    plan = make_plan()
    assert not judge(plan, [paged(plan.faults[0].start + 3 * DAY, "temp")]).passed


def test_without_faults_silence_passes_and_any_page_fails() -> None:
    plan = make_plan(faults=False)
    assert judge(plan, []).passed
    assert not judge(plan, [paged(plan.start + DAY, "temp")]).passed
    assert replace(plan, days=20).faults == ()
