"""OpenSLO v1 goes out and comes back equal; a file of somebody else's is read for what it says."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import pytest

from mlobs.errors import ConfigError
from mlobs.settings import ChannelSettings, NotifySettings, Settings, SliSettings, SloSettings
from mlobs.slo.openslo import bundle_of, read_openslo, settings_of, write_openslo
from mlobs.slo.policy import WORKBOOK
from mlobs.slo.rules import rules_document
from tests.slo.test_sli import KINDS
from tests.slo.world import objective, settings

FOREIGN = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: web-availability, displayName: Web}
spec:
  description: Web pages are served
  service: web
  indicator:
    metadata: {name: web-ok}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'http_requests_total{code!~"5.."}'}}}
        total: {metricSource: {type: Prometheus, spec: {query: http_requests_total}}}
  timeWindow: [{duration: 28d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.995}]
  alertPolicies: [web-policy]
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: fast}
spec: {severity: page, condition: {kind: burnrate, op: gte, threshold: 13.44, lookbackWindow: 1h,
alertAfter: 5m}}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: web-policy}
spec:
  conditions: [{conditionRef: fast}]
  notificationTargets: [{targetRef: oncall}]
---
apiVersion: openslo/v1
kind: AlertNotificationTarget
metadata: {name: oncall}
spec: {target: slack}
"""


def everything() -> Settings:
    own = dataclasses.replace(
        objective("up", "availability"),
        windows=WORKBOOK[:2],
        runbook="https://wiki/up",
        description='Up: "it\'s"',
    )
    monthly = dataclasses.replace(
        objective("fast", "latency", "0.9995"), calendar="month", zone="Europe/Berlin", severity="ticket"
    )
    return Settings(
        service="fraud-api",
        slo=SloSettings(
            evaluator="prometheus",
            prometheus="http://127.0.0.1:9090",
            objectives=(
                own,
                monthly,
                objective("p99", "p99", "0.99", period_d=28),
                objective("d", "drift"),
                *KINDS,
            ),
            slice=300.0,
            zone="America/New_York",
            windows=WORKBOOK,
            breach=False,
        ),
        notify=NotifySettings(channels={"oncall": ChannelSettings("oncall", "slack")}),
    )


def test_everything_goes_out_and_comes_back_equal() -> None:
    bundle = bundle_of(everything())
    assert read_openslo(write_openslo(bundle)) == bundle
    assert settings_of(read_openslo(write_openslo(bundle))).slo == everything().slo


def test_the_plainest_objective_goes_out_and_comes_back_equal() -> None:
    bundle = bundle_of(Settings(service="a", slo=SloSettings(objectives=(objective("up", "availability"),))))
    assert read_openslo(write_openslo(bundle)) == bundle


def test_a_foreign_file_is_read_for_what_it_says_and_survives_the_round_trip() -> None:
    bundle = read_openslo(FOREIGN)
    [found] = bundle.slo.objectives
    assert bundle.service == "web"
    assert found.objective == Decimal("0.995")
    assert found.period == 28 * 86400
    assert found.sli == SliSettings(
        "ratio", good='http_requests_total{code!~"5.."}', total="http_requests_total"
    )
    assert found.windows is not None
    assert found.windows[0].budget == Decimal("0.02")
    assert read_openslo(write_openslo(bundle)) == bundle


def test_a_foreign_file_becomes_rules_that_promtool_accepts(promtool, tmp_path) -> None:
    from mlobs.slo.write import to_yaml

    path = tmp_path / "web.rules.yaml"
    path.write_text(to_yaml(rules_document(settings_of(read_openslo(FOREIGN)))))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("target: 0.995", "target: 99.5", "did you mean 99.5%"),
        ("target: 0.995", "target: 1", "no error budget"),
        ("kind: AlertPolicy", "kind: AlertPolcy", "did you mean 'AlertPolicy'"),
        ("alertPolicies: [web-policy]", "alertPolicies: [web-polcy]", "did you mean 'web-policy'"),
        ("duration: 28d", "duration: 28", "no duration"),
        ("openslo/v1\nkind: SLO", "openslo/v2\nkind: SLO", "openslo/v1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_its_remedy(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_openslo(FOREIGN.replace(old, new))


def test_every_problem_is_said_at_once() -> None:
    broken = FOREIGN.replace("target: 0.995", "target: 99.5").replace("28d", "x")
    with pytest.raises(ConfigError) as caught:
        read_openslo(broken)
    assert len(caught.value.problems) == 2


def test_an_op_that_says_the_opposite_of_the_measure_is_refused() -> None:
    text = write_openslo(bundle_of(settings(*(each for each in KINDS if each.name == "brier"))))
    assert "op: lte" in text
    with pytest.raises(ConfigError, match="lower is better of brier: write op: lte"):
        read_openslo(text.replace("op: lte", "op: gte"))


def test_a_models_quality_by_its_bare_series_is_refused_and_not_taken_for_an_age() -> None:
    text = write_openslo(bundle_of(settings(*(each for each in KINDS if each.name == "brier"))))
    bare = "\n".join(line for line in text.split("\n") if "mlobs/" not in line)
    with pytest.raises(ConfigError, match="model_quality"):
        read_openslo(bare.replace("  annotations:\n", ""))
