"""Every kind of indicator counts the right things, in the embedded evaluator and in the written rules."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from mlobs.config import parse_settings
from mlobs.errors import ConfigError
from mlobs.objectives import BETTER
from mlobs.settings import ObjectiveSettings, Settings, SliSettings
from mlobs.slo.rules import rules_document
from mlobs.slo.sli import edge_pattern, indicator, parse_selector
from mlobs.slo.validate import check
from mlobs.slo.write import to_yaml
from mlobs.stats.quality import quality
from tests.slo.test_engine import steady
from tests.slo.world import START, Service, World, objective, settings


def of(kind: str, share: str = "0.99", **fields: object) -> ObjectiveSettings:
    return ObjectiveSettings(kind, SliSettings(kind, **fields), Decimal(share), model="fraud")  # type: ignore[arg-type]


KINDS = [
    of("freshness", metric="mlobs_checkpoint_timestamp_seconds", threshold=Decimal(3600)),
    dataclasses.replace(
        of("freshness", metric="mlobs_feature_age_seconds", threshold=Decimal(60)), name="age"
    ),
    of("model_quality", metric="auc", threshold=Decimal("0.7")),
    of("boolean", metric='feature_store_up{store="redis"}'),
    of("ratio", good='reads_total{result="hit"}', total="reads_total"),
    dataclasses.replace(of("ratio", bad='reads_total{result="error"}', total="reads_total"), name="reads"),
    of("good_prediction", threshold=Decimal("0.1")),
    dataclasses.replace(of("composite", of=("ratio", "reads")), model=""),
    dataclasses.replace(of("model_quality", metric="brier", threshold=Decimal("0.2")), name="brier"),
    dataclasses.replace(
        of("model_quality", metric="gini", threshold=Decimal("0.4"), better="higher"), name="gini"
    ),
]


class Extra(World):
    """A world whose service shows a text of its own too."""

    extra = ""

    def fetch(self, url: str) -> str:
        return self.service.text().replace("# EOF\n", self.extra)


def test_promtool_accepts_the_rules_of_every_kind(promtool, tmp_path) -> None:
    path = tmp_path / "slo.rules.yaml"
    path.write_text(to_yaml(rules_document(settings(*KINDS))))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def run_minutes(world: Extra, texts: list[str]) -> None:
    for number, text in enumerate(texts, 1):
        world.extra = text
        steady(world.service, 0, 60)
        world.tick(START + 60 * number)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "freshness",
            f'mlobs_checkpoint_timestamp_seconds{{model="fraud"}} {START}\n',
            f'mlobs_checkpoint_timestamp_seconds{{model="fraud"}} {START - 4000}\n',
        ),
        (
            "model_quality",
            'mlobs_model_quality{model="fraud",metric="auc"} 0.72\n',
            'mlobs_model_quality{model="fraud",metric="auc"} 0.69\n',
        ),
        (
            "brier",
            'mlobs_model_quality{model="fraud",metric="brier"} 0.19\n',
            'mlobs_model_quality{model="fraud",metric="brier"} 0.21\n',
        ),
        ("boolean", 'feature_store_up{store="redis"} 1\n', 'feature_store_up{store="redis"} 0\n'),
    ],
)
def test_each_look_at_a_gauge_is_an_event(name: str, good: str, bad: str) -> None:
    world = Extra(settings(*(each for each in KINDS if each.name == name)))
    run_minutes(world, [good, bad, good, bad, bad])
    status = world.status(name)
    assert (status.bad, status.total) == (3, 5)


@pytest.mark.parametrize(
    ("metric", "better", "op"),
    [
        ("auc", None, "<"), ("precision", None, "<"), ("recall", "higher", "<"), ("brier", None, ">"),
        ("log_loss", None, ">"), ("mae", None, ">"), ("rmse", "lower", ">"), ("gini", "higher", "<"),
        ("pinball", "lower", ">"),
    ],
)  # fmt: skip
def test_a_measure_of_quality_is_bad_on_its_worse_side(metric: str, better: str | None, op: str) -> None:
    each = of("model_quality", metric=metric, threshold=Decimal("0.3"), better=better)
    gauge = indicator(each).gauge
    assert gauge is not None
    assert gauge.op == op
    assert not gauge.bad(0.3, START)
    assert f'metric="{metric}"}} {op} bool 0.3' in to_yaml(rules_document(settings(each)))


def test_every_measure_that_mlobs_makes_has_a_better_way() -> None:
    scores, weights = np.array([0.2, 0.9]), np.ones(2)
    made = quality(scores, np.array([0.0, 1.0]), weights, 0.5) | quality(
        scores, np.array([3.0, 4.0]), weights
    )
    assert made.keys() == BETTER.keys()


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ("metric: gini, threshold: 0.4", "`better: higher` or `better: lower`"),
        ("metric: Brier, threshold: 0.2", "did you mean 'brier'?"),
        ("metric: brier, threshold: 0.2, better: higher", "lower is better of brier: drop `better: higher`"),
        ("metric: auc, threshold: 80", "write a threshold like 0.8, not 80"),
        ("metric: rmse, threshold: -1", "rmse is never below zero"),
        ("metric: auc, threshold: 0.8, better: more", "'higher' or 'lower'"),
    ],
)
def test_a_quality_that_could_point_either_way_is_refused_with_advice(fields: str, advice: str) -> None:
    text = (
        "service: a\nslo: {objectives: [{name: q, objective: 95%, sli: {model_quality: {" + fields + "}}}]}\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse_settings(text)
    assert advice in str(caught.value)


def test_the_worst_replica_of_a_gauge_speaks() -> None:
    world = Extra(settings(KINDS[3]))
    run_minutes(
        world, ['feature_store_up{store="redis",pod="a"} 1\nfeature_store_up{store="redis",pod="b"} 0\n']
    )
    assert world.status("boolean").bad == 1


def test_a_ratio_counts_good_or_bad_of_any_counter() -> None:
    world = Extra(settings(KINDS[4], KINDS[5]))
    text = (
        'reads_total{{result="hit"}} {}\nreads_total{{result="miss"}} {}\nreads_total{{result="error"}} {}\n'
    )
    run_minutes(world, [text.format(0, 0, 0), text.format(90, 8, 2)])
    assert (world.status("ratio").bad, world.status("ratio").total) == (10, 100)
    assert (world.status("reads").bad, world.status("reads").total) == (2, 100)


def test_the_age_of_features_counts_requests_from_the_bucket_of_the_threshold() -> None:
    world = Extra(settings(KINDS[1]))
    text = (
        'mlobs_feature_age_seconds_bucket{{model="fraud",le="60.0"}} {}\n'
        'mlobs_feature_age_seconds_count{{model="fraud"}} {}\n'
    )
    run_minutes(world, [text.format(0, 0), text.format(70, 100)])
    assert (world.status("age").bad, world.status("age").total) == (30, 100)


def test_cancelled_calls_are_neither_good_nor_bad_for_availability() -> None:
    world = World(settings(objective("up", "availability")))
    world.tick(START)
    world.service.run(ok=90, error=10, cancelled=50)
    world.tick(START + 60)
    assert (world.status("up").bad, world.status("up").total) == (10, 100)


def test_nan_infinite_and_negative_samples_are_no_counts() -> None:
    world = Extra(settings(KINDS[5]))
    run_minutes(world, ['reads_total{result="hit"} 0\nreads_total{result="x"} 0\n'])
    world.extra = 'reads_total{result="hit"} NaN\nreads_total{result="x"} 5\nreads_total{result="y"} +Inf\n'
    world.tick(START + 120)
    status = world.status("reads")
    assert status.total == 5
    assert status.remaining is not None
    assert status.remaining == status.remaining


def test_a_page_of_html_is_a_failed_scrape() -> None:
    world = World(settings(objective("up", "availability")))
    world.tick(START)
    world.service.text = lambda: "<html>502</html>"  # type: ignore[method-assign]
    world.tick(START + 60)
    assert world.status("up").state != "ok"


def test_promql_with_window_is_for_prometheus_alone() -> None:
    total = "histogram_count(sum(increase(latency[$window])))"
    native = of(
        "ratio", good=f"histogram_fraction(0, 0.1, sum(increase(latency[$window]))) * {total}", total=total
    )
    [problem] = check(settings(native))
    assert "evaluator: prometheus" in problem.remedy
    config = Settings(
        service="fraud-api",
        slo=dataclasses.replace(settings(native).slo, evaluator="prometheus"),
    )
    assert "latency[5m]" in to_yaml(rules_document(config))


@pytest.mark.parametrize("text", ["a + b", "rate(a[5m])", "a{b=c}", 'a{b="c"', ""])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no selector"):
        parse_selector(text)


def test_a_selector_survives_its_own_spelling() -> None:
    text = 'a:b{c="d\\"e",f=~"g|h",i!="",j!~"k.*"}'
    assert parse_selector(parse_selector(text).promql()) == parse_selector(text)


def test_a_ratio_that_cannot_be_read_is_a_problem_with_its_place() -> None:
    [problem] = check(settings(of("ratio", good="rate(a[5m])", total="b")))
    assert "slo.objectives[0] (ratio).sli" in problem.where
    with pytest.raises(ConfigError):
        World(settings(of("ratio", good="rate(a[5m])", total="b")))


@pytest.mark.parametrize(
    ("threshold", "spelling"),
    [("1", "1.0"), ("1", "1"), ("0.1", "0.1"), ("0.25", "0.25"), ("100", "100.0"), ("1e-05", "1e-05")],
)
def test_a_threshold_matches_every_spelling_of_its_edge(threshold: str, spelling: str) -> None:
    each = of("latency", threshold=Decimal(threshold))
    labels = {"model": "fraud", "outcome": "ok", "le": spelling}
    assert indicator(each).bad[1].selector.matches(labels)
    assert not indicator(each).bad[1].selector.matches({**labels, "le": "7"})
    assert edge_pattern(Decimal(threshold))


def test_a_label_with_every_odd_character_is_read_back() -> None:
    service = Service(model='a"b\\c}d e')
    service.text  # noqa: B018
    config = settings(dataclasses.replace(objective("up", "availability"), model='a"b\\c}d e'))
    world = World(config)
    world.service.model = 'a\\"b\\\\c}d e'
    world.tick(START)
    world.service.run(ok=5)
    world.tick(START + 60)
    assert world.status("up").total == 5


def test_a_composite_is_bad_while_any_member_breaks_its_promise() -> None:
    both = dataclasses.replace(of("composite", of=("up", "reads")), model="")
    reads = dataclasses.replace(KINDS[5], name="reads")
    config = settings(objective("up", "availability"), reads, both)
    assert not check(config)
    world = Extra(config)
    text = 'reads_total{{result="hit"}} {}\nreads_total{{result="error"}} {}\n'
    run_minutes(world, [text.format(100 * n, 0) for n in range(10)])
    assert (world.status("composite").bad, world.status("composite").total) == (0, 9)
    for n in range(10, 14):
        steady(world.service, 0, 60)
        world.extra = text.format(100 * n, 50 * (n - 9))
        world.tick(START + 60 * (n + 1))
    assert world.status("composite").bad == 4
    assert 'sloth_id=~"fraud-api-up|fraud-api-reads"' in to_yaml(rules_document(config))


def test_a_composite_of_an_unknown_member_is_refused_with_the_nearest_name() -> None:
    [problem] = check(settings(objective("up", "availability"), of("composite", of=("up", "upp"))))
    assert "did you mean 'up'" in problem.remedy


def test_model_quality_never_pages_whatever_the_objective_says() -> None:
    each = dataclasses.replace(KINDS[2], severity="page")
    rules = rules_document(settings(each))["groups"][0]["rules"]
    alerts = [rule for rule in rules if rule.get("alert", "").startswith("MlobsSlo")]
    burn, absent = alerts
    assert '"severity", "ticket"' in burn["expr"]
    assert '"severity", "page"' not in burn["expr"]
    assert absent["labels"]["severity"] == "ticket"


def test_sloths_recorded_names_are_kept() -> None:
    rules = rules_document(settings(objective("up", "availability")))["groups"][0]["rules"]
    recorded = {rule.get("record") for rule in rules}
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    assert recorded >= {f"slo:sli_error:ratio_rate{window}" for window in windows}
    assert recorded >= {
        "slo:objective:ratio", "slo:error_budget:ratio", "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio",
    }  # fmt: skip


def test_a_good_prediction_says_what_spoiled_the_others() -> None:
    world = Extra(settings(KINDS[6]))
    text = 'mlobs_good_predictions_total{{model="fraud",result="{}"}} {}\n'
    run_minutes(world, [text.format("ok", 0) + text.format("slow", 0) + text.format("stale", 0)])
    world.extra = text.format("ok", 90) + text.format("slow", 8) + text.format("stale", 2)
    world.tick(START + 120)
    assert world.status("good_prediction").spent_by == (("result=slow", 8.0), ("result=stale", 2.0))


def test_native_histograms_are_read_by_promtool(promtool, tmp_path) -> None:
    total = "histogram_count(sum(increase(latency[$window])))"
    native = of(
        "ratio", good=f"histogram_fraction(0, 0.1, sum(increase(latency[$window]))) * {total}", total=total
    )
    config = Settings(
        service="fraud-api", slo=dataclasses.replace(settings(native).slo, evaluator="prometheus")
    )
    path = tmp_path / "native.rules.yaml"
    path.write_text(to_yaml(rules_document(config)))
    done = promtool("check", "rules", str(path))
    assert "SUCCESS" in done.stdout, done.stdout + done.stderr
