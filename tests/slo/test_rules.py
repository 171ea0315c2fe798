"""Rules for Prometheus: accepted by the real promtool, and the same bytes for the same objectives."""

from __future__ import annotations

import dataclasses
import re
from decimal import Decimal
from pathlib import Path

import pytest

from mlobs.config import load_settings
from mlobs.settings import BurnWindowSettings
from mlobs.slo.openslo import bundle_of, read_openslo, settings_of, write_openslo
from mlobs.slo.rules import kubernetes_document, rules_document
from mlobs.slo.ruletests import tests_document as rule_tests
from mlobs.slo.validate import check
from mlobs.slo.write import to_yaml
from tests.slo.world import objective, settings

ROOT = Path(__file__).resolve().parents[2]

ALL = settings(
    objective("up", "availability"),
    objective("fast", "latency", "0.99"),
    objective("p99", "p99", "0.99"),
    objective("rows", "data_quality", "0.99"),
    objective("drift", "drift", "0.95"),
)


def test_promtool_accepts_the_rules(promtool, tmp_path) -> None:
    path = tmp_path / "slo.rules.yaml"
    path.write_text(to_yaml(rules_document(ALL)))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr  # duplicates are a lint error, with status 0


def test_stretched_windows_give_rules_that_promtool_accepts(promtool, tmp_path) -> None:
    windows = (BurnWindowSettings("page", 5 * 86400.0, 2 * 86400.0, Decimal("0.7")),)
    config = settings(objective("p99", "p99", "0.9"), windows=windows)
    path = tmp_path / "slo.rules.yaml"
    path.write_text(to_yaml(rules_document(config)))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr  # duplicates are a lint error, with status 0


def test_budgets_are_exact_from_text_to_rule() -> None:
    text = to_yaml(rules_document(settings(objective("up", "availability", "0.999"))))
    assert "vector(0.001)" in text


def test_text_of_users_cannot_leave_its_string(promtool, tmp_path) -> None:
    evil = dataclasses.replace(objective("up", "availability"), model='a"} or vector(1) # {{ query "up" }}\n')
    path = tmp_path / "slo.rules.yaml"
    path.write_text(to_yaml(rules_document(settings(evil))))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr  # duplicates are a lint error, with status 0
    assert 'model="a\\"} or vector(1) # {{ query \\"up\\" }}\\n"' in path.read_text()


SLOTH = {
    *(f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")),
    "slo:objective:ratio", "slo:error_budget:ratio", "slo:time_period:days", "slo:current_burn_rate:ratio",
    "slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio", "sloth_slo_info",
}  # fmt: skip
"""What Sloth 0.11 records for an objective of 30 days, in a rule each."""


@pytest.mark.parametrize(("count", "most"), [(1, 20), (3, 10 * 3), (10, 4 * 10), (100, 2.2 * 100)])
def test_few_rules_per_objective(count: int, most: float) -> None:
    """Two of an objective's own; the 18 that are shared are Sloth's names less the budget's, and four."""
    config = settings(*(objective(f"up{n}", "availability") for n in range(count)))
    rules = [rule for group in rules_document(config)["groups"] for rule in group["rules"]]
    assert len(rules) <= most
    recorded = {rule["record"] for rule in rules if "record" in rule}
    assert recorded - SLOTH == {"mlobs:slo_events:increase", "mlobs:slo_events:sum"}
    assert not SLOTH - recorded


@pytest.mark.parametrize("share", ["0.9", "0.95", "0.99", "0.995", "0.999", "0.9995", "0.9999", "0.99999"])
def test_a_promise_that_is_worked_out_from_its_budget_is_still_exact(share: str) -> None:
    """`slo:objective:ratio` is `1 - slo:error_budget:ratio`, in floats."""
    assert 1 - float(1 - Decimal(share)) == float(share)


def test_the_kubernetes_object_carries_the_same_groups() -> None:
    document = kubernetes_document(ALL)
    assert document["kind"] == "PrometheusRule"
    assert document["spec"]["groups"] == rules_document(ALL)["groups"]


def test_the_committed_rules_are_what_the_code_writes(golden) -> None:
    golden(ROOT / "alerts" / "example.rules.yaml", to_yaml(rules_document(ALL)))


def test_the_committed_tests_of_the_rules_are_what_the_code_writes(golden) -> None:
    golden(ROOT / "alerts" / "example.rules.test.yaml", to_yaml(rule_tests(ALL, "example.rules.yaml")))


def test_the_example_is_accepted_and_its_written_files_are_what_the_code_writes(golden, promtool) -> None:
    folder = ROOT / "examples" / "slo"
    example = load_settings(folder / "slo.yaml")
    assert not check(example)
    golden(folder / "rules" / "fraud-api.rules.yaml", to_yaml(rules_document(example)))
    golden(
        folder / "rules" / "fraud-api.rules.test.yaml", to_yaml(rule_tests(example, "fraud-api.rules.yaml"))
    )
    golden(
        folder / "rules" / "kubernetes" / "fraud-api.prometheusrule.yaml",
        to_yaml(kubernetes_document(example)),
    )
    golden(folder / "openslo.yaml", write_openslo(bundle_of(example)))
    checked = promtool("check", "rules", str(folder / "rules" / "fraud-api.rules.yaml"))
    assert "SUCCESS" in checked.stdout, checked.stdout + checked.stderr


def test_the_examples_openslo_file_is_the_same_objectives() -> None:
    folder = ROOT / "examples" / "slo"
    text = (folder / "openslo.yaml").read_text()
    assert settings_of(read_openslo(text)).slo == load_settings(folder / "slo.yaml").slo


def test_two_services_in_one_prometheus_stay_apart() -> None:
    """Shared rules record what their own service's rules have counted, or two files would record the same
    series."""
    for rule in (rule for group in rules_document(ALL)["groups"] for rule in group["rules"]):
        if "labels" in rule and "sloth_id" in rule["labels"]:
            continue  # an objective's own
        recorded = re.findall(r"(?:mlobs:slo_|slo:)[\w:]+(\{[^}]*\})?", rule["expr"])
        assert all('sloth_service="fraud-api"' in found for found in recorded), rule


def test_a_drift_breach_is_an_alert_of_its_own_and_user_text_stays_text(promtool, tmp_path) -> None:
    odd = dataclasses.replace(objective("drift", "drift", "0.95"), model='fr.au"d')
    rules = rules_document(settings(odd))["groups"][0]["rules"]
    [breach] = [rule for rule in rules if rule.get("alert") == "MlobsDriftBreach"]
    assert breach["expr"] == 'mlobs_drift_breach{model=~"fr\\\\.au\\"d"} >= 1'
    assert breach["labels"]["cause"] == "drift"
