"""The written rules in the real promtool: the generated tests pass, and the reference values hold."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from mlobs.settings import Settings
from mlobs.slo import ruletests
from mlobs.slo.evaluate import plan
from mlobs.slo.policy import WORKBOOK
from mlobs.slo.rules import rules_document
from mlobs.slo.ruletests import SCRAPE, _expect, _series
from mlobs.slo.write import to_yaml
from tests import servers
from tests.slo.reference import CASES, STEP, Case
from tests.slo.world import objective, settings


def prove(folder: Path, config: Settings, tests: dict) -> None:  # type: ignore[type-arg]
    (folder / "slo.rules.yaml").write_text(to_yaml(rules_document(config)))
    (folder / "slo.test.yaml").write_text(to_yaml(tests))
    command = [str(servers.need("promtool")), "test", "rules", str(folder / "slo.test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_the_generated_tests_of_an_availability_objective_pass(promtool, tmp_path) -> None:
    config = settings(objective("up", "availability"))
    prove(tmp_path, config, ruletests.tests_document(config, "slo.rules.yaml"))


def test_the_generated_tests_of_slices_that_nobody_could_judge_pass(promtool, tmp_path) -> None:
    config = settings(objective("drift", "drift", "0.95"))
    document = ruletests.tests_document(config, "slo.rules.yaml")
    tests = [test for test in document["tests"] if "could not be judged" in test["name"]]
    assert len(tests) == 1
    prove(tmp_path, config, document | {"tests": tests})


@pytest.mark.nightly
def test_the_generated_tests_of_every_kind_pass(promtool, tmp_path) -> None:
    config = settings(
        objective("up", "availability"),
        objective("fast", "latency", "0.99"),
        objective("p99", "p99", "0.99"),
        objective("rows", "data_quality", "0.99"),
        objective("drift", "drift", "0.95", severity="page"),
    )
    prove(tmp_path, config, ruletests.tests_document(config, "slo.rules.yaml"))


def absent_at(config: Settings, minutes: int, ok: str, left: str) -> dict:  # type: ignore[type-arg]
    """A promtool test: whether drift slices that count up like this are told as absent."""
    slices = 'mlobs_drift_slices_total{{model="fraud",result="{}"}}'
    return {
        "interval": "1m",
        "input_series": [
            {"series": slices.format("ok"), "values": ok},
            {"series": slices.format("drifted"), "values": "0x400"},
            {"series": slices.format("insufficient"), "values": left},
        ],
        "promql_expr_test": [_expect(plan(config.slo.objectives[0], config), "ticket", minutes * 60,
                                     firing=left != ok, alert="MlobsSloAbsent")],
    }  # fmt: skip


def test_slices_that_nobody_could_judge_are_told_as_absent_by_the_rules_too(promtool, tmp_path) -> None:
    config = settings(objective("drift", "drift", "0.95"), drift_window=3600.0)
    hourly = "0x58 1x60 2x60 3x60 4x60"  # a window an hour
    cases = [
        absent_at(config, 200, "0x400", hourly),  # all
        absent_at(config, 200, hourly, hourly),  # half of them: as good as judged
        absent_at(config, 290, "0x58 1x400", hourly),  # one of the first two, none later
    ]
    tests = {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "30s", "tests": cases}
    prove(tmp_path, config, tests)


def test_the_rules_hand_on_when_what_broke_began(promtool, tmp_path) -> None:
    config = settings(objective("drift", "drift", "0.95"))
    labels = '{model="fraud",feature="te\\"mp",segment="",severity="page"}'
    expected = {
        "exp_labels": {
            "model": "fraud", "feature": 'te"mp', "severity": "page", "kind": "breach", "cause": "drift",
            "service": "fraud-api",
        },
        "exp_annotations": {"summary": 'fraud: te"mp broke its check', "since": "1.364e+09"},
    }  # fmt: skip
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f"mlobs_drift_breach{labels}", "values": "1x10"},
            {"series": f"mlobs_drift_breach_since_timestamp_seconds{labels}", "values": "1364000000x10"},
        ],
        "alert_rule_test": [
            {"alertname": "MlobsDriftBreach", "eval_time": "5m", "exp_alerts": [expected]},
        ],
    }
    prove(tmp_path, config, {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "30s", "tests": [case]})


def test_a_burn_says_how_many_of_how_many_in_which_window(promtool, tmp_path) -> None:
    """One alert while it goes from the quick tier to the slow one, with the numbers of each."""
    config = settings(objective("up", "availability"))
    labels = {
        "slo": "up", "service": "fraud-api", "model": "fraud", "cause": "availability", "kind": "burn",
        "mlobs_table": "t1", "sloth_id": "fraud-api-up", "sloth_service": "fraud-api", "sloth_slo": "up",
        "severity": "page",
    }  # fmt: skip

    def said(at: str, rate: str, spoken: str, window: str, bad: int, total: int) -> dict:  # type: ignore[type-arg]
        annotations = {
            "summary": f"up: burning {spoken} times too fast",
            "description": "See slo:current_burn_rate:ratio and slo:period_error_budget_remaining:ratio of "
            "fraud-api-up.",
            "burn_rate": rate, "budget_remaining": "1",
            "window": window, "bad": str(bad), "total": str(total),
        }  # fmt: skip
        alerts = [{"exp_labels": labels, "exp_annotations": annotations}]
        return {"alertname": "MlobsSloBurn", "eval_time": at, "exp_alerts": alerts}

    series = 'mlobs_request_duration_seconds_count{{model="fraud",outcome="{}"}}'
    # Ten requests a second for two hours, then half of them bad for ten minutes.
    case = {
        "interval": "15s",
        "input_series": [
            {"series": series.format("ok"), "values": "0+150x480 72075+75x39 75150+150x99"},
            {"series": series.format("error"), "values": "0x480 75+75x39 3000x100"},
        ],
        "alert_rule_test": [
            said("2h10m", "83.33333333333333", "83.33", "1h", 3000, 36000),
            said("2h18m", "36.231884057971016", "36.23", "6h", 3000, 82800),
        ],
    }
    prove(tmp_path, config, {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "30s", "tests": [case]})


def test_p99_slices_page_within_ten_minutes_and_a_stall_of_five_stays_silent_in_promtool(
    promtool, tmp_path
) -> None:
    """As in test_reference_embedded.py: 5000 requests a second, 3 % slow for ever; all for five minutes."""
    config = settings(*(dataclasses.replace(objective(n, "p99", "0.99"), model=n) for n in ("slow", "stall")))
    slow, stall = (plan(each, config) for each in config.slo.objectives)
    mature = 4500
    checks = [
        _expect(slow, "page", mature + 8 * 60 - STEP, firing=False),
        _expect(slow, "page", mature + 10 * 60, firing=True),
        *(_expect(stall, "page", mature + at, firing=False) for at in range(60, 1500, 120)),
    ]
    series = [
        *_series(slow, [(mature, 0.005), (1500, 0.03)]),
        *_series(stall, [(mature, 0.005), (300, 1.0), (1200, 0.005)]),
    ]
    case = {"interval": f"{SCRAPE}s", "input_series": series, "promql_expr_test": checks}
    prove(tmp_path, config, {"rule_files": ["slo.rules.yaml"], "evaluation_interval": "30s", "tests": [case]})


def step_changes(cases: list[tuple[Case, int]], mature: int, length: int) -> tuple[Settings, dict]:  # type: ignore[type-arg]
    """An objective for each case and tier; silent one step before the stated moment, firing one after it."""
    objectives, series, checks = [], {}, []
    for case, tier in cases:
        model = f"{case.kind}-{case.share}"
        window = dataclasses.replace(WORKBOOK[tier], severity="page")
        each = dataclasses.replace(
            objective(f"{model}-{tier}", case.kind, case.objective, severity="page"),
            model=model, windows=(window,),
        )  # fmt: skip
        objectives.append(each)
    config = settings(*objectives)
    for (case, tier), each in zip(cases, objectives, strict=True):
        planned = plan(each, config)
        phases = [(mature, 0.0), (length, case.share)]
        series |= {found["series"]: found for found in _series(planned, phases)}
        expected = case.fast if tier == 0 else case.slow
        if expected is None:
            checks.append(_expect(planned, "page", mature + length - 60, firing=False))
        else:
            checks.append(_expect(planned, "page", int(mature + expected - 2 * STEP), firing=False))
            checks.append(_expect(planned, "page", int(mature + expected + STEP), firing=True))
    test = {
        "interval": f"{SCRAPE}s",
        "input_series": list(series.values()),
        "promql_expr_test": checks,
    }
    document = {"rule_files": ["slo.rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": [test]}
    return config, document


def test_the_quick_reference_values_hold_in_promtool(promtool, tmp_path) -> None:
    cases = [
        (case, 0)
        for case in CASES
        if case.kind in ("availability", "latency") and case.fast is not None and case.fast <= 600
    ]
    config, document = step_changes(cases, 4500, 900)
    prove(tmp_path, config, document)


@pytest.mark.nightly
def test_every_fast_reference_value_holds_in_promtool(promtool, tmp_path) -> None:
    config, document = step_changes([(case, 0) for case in CASES], 4500, 4500)
    prove(tmp_path, config, document)


@pytest.mark.nightly
def test_every_slow_reference_value_holds_in_promtool(promtool, tmp_path) -> None:
    cases = [(case, 1) for case in CASES if case.slow is not None]
    config, document = step_changes(cases, 6 * 3600 + 900, 18_700)
    prove(tmp_path, config, document)
