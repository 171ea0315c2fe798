"""Thirty simulated days: healthy services that page nobody, and budgets that equal the truth."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from mlobs import names
from mlobs.slo.evaluate import plan
from mlobs.slo.replay import Past, firing, slices_of
from mlobs.slo.rules import rules_document
from mlobs.slo.write import to_yaml
from tests.slo.test_sli import Extra
from tests.slo.world import START, World, objective, settings

DAY, HOUR = 86400.0, 3600.0
MINUTES = 30 * 1440


@pytest.mark.parametrize(("pace", "share"), list(itertools.product((1, 3, 20, 100), (0.005, 0.008))))
def test_a_healthy_service_pages_nobody_in_thirty_days_of_p99_slices(pace: int, share: float) -> None:
    """Seeded. Accepted: one page in a hundred such months for the worst of these, 0.8 % at 1 request a
    second."""
    draw = np.random.default_rng(int(pace * 1000 + share * 1e4))
    total = draw.poisson(pace * 60.0, MINUTES).astype(float)
    slow = draw.binomial(total.astype(int), share).astype(float)
    times = np.arange(MINUTES) * 60.0
    past = slices_of(times, np.cumsum(slow), np.cumsum(total), 60.0)
    p99 = objective("p99", "p99", "0.99")
    assert not firing(plan(p99, settings(p99)), past)["page"].any()


def diurnal(t: float) -> float:
    """Requests a second: 5000 at the peak, 50 at the low, none for six hours of the night."""
    hour = t / HOUR % 24
    if hour < 6:
        return 0.0
    return 50.0 + 4950.0 * np.sin(np.pi * (hour - 6) / 18) ** 2  # type: ignore[no-any-return]


def month(
    incident: tuple[float, float], share: float = 0.5, initialised: bool = True
) -> tuple[World, float, float]:
    """A month of minutes with hourly restarts; returns the world and the true bad and total."""
    world = World(settings(objective("up", "availability")))
    service = world.service
    t, bad, total, errors_seen = START, 0.0, 0.0, initialised
    text = service.text
    world.tick(t)
    while t < START + 30 * DAY:
        step = 60.0 if incident[0] - 600 <= t <= incident[1] + 600 else 300.0
        t += step
        if int((t - START) // HOUR) != int((t - step - START) // HOUR):
            service.restart(t - step / 2)
        count = float(round(diurnal(t - step / 2) * step))
        part = round(count * share) if incident[0] < t <= incident[1] else 0
        service.run(ok=count - part, error=part)
        bad, total = bad + part, total + count
        errors_seen = errors_seen or part > 0
        if not errors_seen:
            service.text = lambda: "\n".join(x for x in text().split("\n") if '"error"' not in x)  # type: ignore[method-assign]
        elif "text" in vars(service):
            del service.text
        world.tick(t)
    return world, bad, total


@pytest.mark.parametrize(
    ("begin", "initialised", "name"),
    [
        (10 * DAY + 6.2 * HOUR, True, "night low"),
        (10 * DAY + 15 * HOUR, True, "day peak"),
        (10 * DAY + 15 * HOUR, False, "an error series that is born with its first error"),
    ],
)
@pytest.mark.nightly
def test_the_budget_is_the_truth_after_thirty_days(begin: float, initialised: bool, name: str) -> None:
    """Also of a foreign service whose counter of errors is not there before the first: of a process that is
    known a new series began at zero."""
    world, bad, total = month((START + begin, START + begin + 1200), initialised=initialised)
    status = world.status("up")
    assert status.bad == bad
    assert status.consumed == pytest.approx(bad / total / 0.001, rel=1e-3), name


def counters(incident: tuple[float, float]) -> tuple[str, str, float, float]:
    """A month of minutes as promtool's series, ok and error, restarted every hour; the true bad and total."""
    ok, error, oks, errors, bad, total = 0.0, 0.0, ["0"], ["0"], 0.0, 0.0
    for minute in range(1, MINUTES + 1):
        t = minute * 60.0
        if minute % 60 == 30:
            ok = error = 0.0
        count = float(round(diurnal(t - 30) * 60))
        part = float(round(count * 0.5)) if incident[0] < t <= incident[1] else 0.0
        ok, error, bad, total = ok + count - part, error + part, bad + part, total + count
        oks.append(f"{ok:.0f}")
        errors.append(f"{error:.0f}")
    return " ".join(oks), " ".join(errors), bad, total


@pytest.mark.parametrize(
    ("begin", "name"), [(10 * DAY + 6.2 * HOUR, "night low"), (10 * DAY + 15 * HOUR, "day peak")]
)
def test_the_rules_month_is_the_truth(promtool, tmp_path, begin: float, name: str) -> None:
    """The written expressions in the real promtool, evaluated on the hours: they are what a month is made
    of."""
    ok, error, bad, total = counters((begin, begin + 1200))
    config = settings(objective("up", "availability"))
    [group] = rules_document(config)["groups"]
    wanted = re.compile(
        r"slo_events:(increase|sum)$|ratio_rate30d$|slo:(error_budget|objective|time_period|period_)"
    )
    rules = [rule for rule in group["rules"] if wanted.search(rule.get("record", ""))]
    hourly = {"groups": [{**group, "interval": "1h", "rules": rules}]}
    (tmp_path / "slo.rules.yaml").write_text(to_yaml(hourly))
    series = 'mlobs_request_duration_seconds_count{{model="fraud",outcome="{}"}}'
    near = f"abs({{}} / {bad / total / 0.001!r} - 1) < bool 0.001"
    left = f"1 - {names.RULE_PERIOD_BUDGET_REMAINING}"
    case = {
        "interval": "1m",
        "input_series": [
            {"series": series.format("ok"), "values": ok},
            {"series": series.format("error"), "values": error},
        ],
        "promql_expr_test": [
            {
                "expr": f"sum({near.format(spent)})",
                "eval_time": "30d",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for spent in ("slo:period_burn_rate:ratio", f"({left})")
        ],
    }
    tests = {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "1h", "tests": [case]}
    (tmp_path / "slo.test.yaml").write_text(to_yaml(tests))
    done = promtool("test", "rules", str(tmp_path / "slo.test.yaml"))
    assert done.returncode == 0, f"{name}: {(done.stdout + done.stderr)[-2000:]}"


def test_a_bad_minute_of_a_service_that_is_hours_old_spends_no_month_in_the_rules(promtool, tmp_path) -> None:
    """One minute of the 43 that 99.9 % of 30 days allow; its age is known to the hour, and rounded up. A week
    allows ten."""
    month, week = objective("up", "availability"), objective("brief", "availability", period_d=7)
    [group] = rules_document(settings(month, week))["groups"]
    (tmp_path / "slo.rules.yaml").write_text(to_yaml({"groups": [{**group, "interval": "5m"}]}))
    series = 'mlobs_request_duration_seconds_count{{model="fraud",outcome="{}"}}'
    spent = f"1 - {names.RULE_PERIOD_BUDGET_REMAINING}{{{{slo='{{}}'}}}}"
    case = {
        "interval": "1m",
        "input_series": [  # from the fifth hour on
            {"series": series.format("ok"), "values": "_x300 0+6000x60 360000 366000+6000x180"},
            {"series": series.format("error"), "values": "_x300 0x60 6000 6000x180"},
        ],
        "promql_expr_test": [
            {
                "expr": f"sum(({spent.format(name)}) > bool {0.95 / allowed}) + "
                f"sum(({spent.format(name)}) < bool {1.4 / allowed})",
                "eval_time": "9h",
                "exp_samples": [{"labels": "{}", "value": 2}],
            }
            for name, allowed in (("up", 43.2), ("brief", 10.08))
        ],
    }
    tests = {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "5m", "tests": [case]}
    (tmp_path / "slo.test.yaml").write_text(to_yaml(tests))
    done = promtool("test", "rules", str(tmp_path / "slo.test.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def test_an_incident_of_any_hour_weighs_what_it_cost_in_events() -> None:
    """The same over three days with the engine's own arithmetic: coverage scales both alike."""
    world = World(settings(objective("up", "availability", period_d=3)))
    t, bad, total = START, 0.0, 0.0
    world.tick(t)
    while t < START + 3 * DAY:
        t += 600.0
        if int((t - START) // HOUR) != int((t - 600 - START) // HOUR):
            world.service.restart(t - 300)
        count = float(round(diurnal(t - 300) * 600))
        part = count // 2 if START + 30 * HOUR < t <= START + 30.5 * HOUR else 0.0
        world.service.run(ok=count - part, error=part)
        bad, total = bad + part, total + count
        world.tick(t)
    assert world.status("up").consumed == pytest.approx(bad / total / 0.001, rel=1e-3)


def test_an_error_series_that_is_born_late_loses_nothing() -> None:
    world = Extra(settings(objective("up", "availability")))
    ok = 'mlobs_request_duration_seconds_count{{model="fraud",outcome="ok",pod="b"}} {}\n'
    error = 'mlobs_request_duration_seconds_count{{model="fraud",outcome="error",pod="b"}} {}\n'
    world.extra = ok.format(1000)
    world.tick(START)
    world.extra = ok.format(2000) + error.format(7)
    world.tick(START + 60)
    assert world.status("up").bad == 7


def test_slices_are_empty_and_leave_the_denominator_while_nobody_asks() -> None:
    times = np.arange(600) * 60.0
    total = np.cumsum(np.where(times < 18_000, 10_000.0, 0.0))
    past = slices_of(times, np.zeros(600), total, 60.0)
    assert past.total[-1] == 299
    assert isinstance(past, Past)
