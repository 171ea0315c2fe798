"""The reference values of young and quiet services, resets and healthy p99 slices, for the written rules;
test_reference_embedded.py and test_truth.py have the same for the embedded evaluator."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlobs.slo import timeslice
from mlobs.slo.evaluate import plan
from mlobs.slo.policy import WORKBOOK
from mlobs.slo.replay import Past, firing
from mlobs.slo.ruletests import _expect
from tests.slo.reference import STEP
from tests.slo.test_reference_rules import prove
from tests.slo.world import objective, settings

HOUR, SCRAPE, MINUTES = 3600, 15, 30 * 1440
ONSET = 6 * HOUR + 900
SERIES = 'mlobs_request_duration_seconds_count{{model="{}",outcome="{}"}}'


def series(name: str, bad: Callable[[int], bool], gap: float, end: int) -> list[dict[str, str]]:
    """Requests every `gap` seconds as counters of ok and error, scraped every 15 s."""
    counts, lines = {"ok": 0.0, "error": 0.0}, {"ok": ["0"], "error": ["0"]}
    for t in range(SCRAPE, end + 1, SCRAPE):
        first, last = int((t - SCRAPE) // gap) + 1, int(t // gap)
        for number in (last,) if gap >= SCRAPE else ():
            if first <= last:
                counts["error" if bad(int(number * gap)) else "ok"] += 1
        if gap < SCRAPE:
            counts["error" if bad(t) else "ok"] += SCRAPE / gap
        for outcome, values in lines.items():
            values.append(f"{counts[outcome]:g}")
    return [{"series": SERIES.format(name, outcome), "values": " ".join(v)} for outcome, v in lines.items()]


def between(start: int, end: int) -> Callable[[int], bool]:
    return lambda t: start < t <= end


Case = tuple[Callable[[int], bool], float, list[tuple[int, bool]]]
"""Which requests are bad, seconds between two, and when the page must fire or be silent."""


def hold(folder: Path, cases: dict[str, Case], end: int, tiers: dict[str, int] | None = None) -> None:
    """Each case is a model of its own in one Prometheus; `tiers` leaves some of them one tier alone."""
    windows = {name: (WORKBOOK[tier],) for name, tier in (tiers or {}).items()}
    objectives = [
        dataclasses.replace(objective(name, "availability"), model=name, windows=windows.get(name))
        for name in cases
    ]
    config = settings(*objectives)
    test: dict[str, Any] = {"interval": f"{SCRAPE}s", "input_series": [], "promql_expr_test": []}
    for each in objectives:
        bad, gap, checks = cases[each.name]
        test["input_series"] += series(each.name, bad, gap, end)
        planned = plan(each, config)
        test["promql_expr_test"] += [_expect(planned, "page", at, firing=fires) for at, fires in checks]
    prove(folder, config, {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "30s", "tests": [test]})


def test_a_young_service_is_silent_over_a_blip_and_pages_at_an_outage_in_promtool(promtool, tmp_path) -> None:
    cases: dict[str, Case] = {}
    for born in (600, 1800):
        silent = [(at, False) for at in range(born, born + 2400, 150)]
        cases[f"blip{born}"] = between(born, born + 60), 0.01, silent
        cases[f"outage{born}"] = between(born, born + 600), 0.01, [(born + 600, True)]
    hold(tmp_path, cases, 4200)


@pytest.mark.nightly
def test_quiet_services_and_resets_hold_in_promtool(promtool, tmp_path) -> None:
    one, end = ONSET // 60 * 60, ONSET + 2 * HOUR
    cases: dict[str, Case] = {
        "one-error": (between(one - 1, one), 60, [(at, False) for at in range(one, end, 600)])
    }
    for hourly in (5, 12):
        checks = [(ONSET, False), (ONSET + 2 * HOUR, True)]
        cases[f"quiet{hourly}"] = between(ONSET, end), HOUR / hourly, checks
    for name, reset in (("fast", 270), ("slow", 1770)):
        after = ONSET + 600 + reset
        checks = [(after - STEP, True), (after + 2 * STEP, False)]
        cases[name] = between(ONSET, ONSET + 600), 0.01, checks
    hold(tmp_path, cases, end, {"fast": 0, "slow": 1})


def refuted(slow: Any, total: Any) -> Any:
    """What promql._refuted writes, over arrays."""
    share = timeslice.SLOW_SHARE
    margin = 2.3263 * np.sqrt(share * (1 - share) * total) + 1.2
    return slow > share * total + margin * (total < timeslice.EXACT_FROM)


def judged(slow: Any, total: Any) -> Past:
    """Slices of a minute as promql.slice_bad judges them, counted up."""
    spans = timeslice.growth(60.0)
    sums = [[np.convolve(counts, np.ones(span))[: len(counts)] for counts in (slow, total)] for span in spans]
    evidence = refuted(*sums[-1])
    for one, whole in sums[-2::-1]:
        enough = whole >= timeslice.ENOUGH
        evidence = np.where(enough, refuted(one, whole), evidence)
    bad = (slow > timeslice.SLOW_SHARE * total) & evidence & (total > 0)
    return Past(np.arange(len(slow)) * 60.0, np.cumsum(bad * 1.0), np.cumsum((total > 0) * 1.0))


@pytest.mark.parametrize(("pace", "share"), list(itertools.product((1, 3, 20, 100), (0.005, 0.008))))
def test_the_rules_page_nobody_in_thirty_days_of_healthy_p99_slices(pace: int, share: float) -> None:
    """The rules' approximation instead of the exact test. Seeded; accepted: one page in a hundred such months
    for the worst of these, 0.8 % at 1 request a second."""
    draw = np.random.default_rng(int(pace * 1000 + share * 1e4))
    total = draw.poisson(pace * 60.0, MINUTES).astype(float)
    slow = draw.binomial(total.astype(int), share).astype(float)
    p99 = objective("p99", "p99", "0.99")
    assert not firing(plan(p99, settings(p99)), judged(slow, total))["page"].any()


def test_the_rules_judgement_finds_what_is_slow() -> None:
    total = np.full(600, 1200.0)
    slow = np.where(np.arange(600) > 300, 36.0, 6.0)
    p99 = objective("p99", "p99", "0.99")
    assert firing(plan(p99, settings(p99)), judged(slow, total))["page"].any()
