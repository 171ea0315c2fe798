"""Capacity: the worked example exactly, queueing against a simulation, objects that Prometheus accepts."""

import heapq
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.cli.capacity import measured
from mlobs.errors import NothingJudgedError, UnreadableError, UsageError
from mlobs.slo.capacity import Demand, erlang_c, own_slow, plan, slower_than, waiting
from mlobs.slo.capacity_objects import guard_query

EXAMPLE = Demand(rate=5000, service=0.04, cores=8, headroom=0.3)


def test_the_worked_example_is_exact() -> None:
    """40 ms, 5,000 requests a second, 8 cores, 30 % warm headroom."""
    found = plan(EXAMPLE)
    assert (found.busy_cores, found.bare, found.warm) == (200, 25, 33)


def test_what_is_full_needs_one_more_before_any_queue_is_stable() -> None:
    assert plan(EXAMPLE).queueing == 26
    assert plan(EXAMPLE).replicas == 34


def test_a_tighter_threshold_takes_more_replicas_and_keeps_the_objective() -> None:
    counts = []
    for threshold in (0.5, 0.2, 0.15, 0.12):
        demand = replace(EXAMPLE, threshold=threshold)
        found = plan(demand)
        assert slower_than(demand, found.queueing) <= 0.01
        assert found.queueing == 26 or slower_than(demand, found.queueing - 1) > 0.01
        counts.append(found.queueing)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_a_threshold_that_no_number_of_replicas_keeps_is_refused() -> None:
    with pytest.raises(UsageError, match="work longer than that"):
        plan(replace(EXAMPLE, threshold=0.09))


@pytest.mark.parametrize(("servers", "load", "chance"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (1, 0.0, 0.0)])
def test_erlangs_formula_at_known_places(servers: int, load: float, chance: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(chance)


def test_work_is_log_normal_with_the_mean_and_deviation_given() -> None:
    rng = np.random.default_rng(0)
    spread = math.sqrt(math.log(1.25))
    work = rng.lognormal(math.log(0.04) - spread**2 / 2, spread, 200_000)
    assert own_slow(replace(EXAMPLE, threshold=0.1)) == pytest.approx((work > 0.1).mean(), rel=0.05)


@pytest.mark.parametrize(("cv", "used"), [(0.5, 0.8), (0.5, 0.9), (1.0, 0.8)])
def test_waiting_agrees_with_a_simulated_queue(cv: float, used: float) -> None:
    """Eight cores, 150,000 requests. The approximation of the mean wait is good to a fifth."""
    rng = np.random.default_rng(1)
    count, cores, service = 150_000, 8, 0.04
    rate = used * cores / service
    spread = math.sqrt(math.log1p(cv**2))
    arrivals = np.cumsum(rng.exponential(1 / rate, count)).tolist()
    work = rng.lognormal(math.log(service) - spread**2 / 2, spread, count).tolist()
    free = [0.0] * cores
    waits = []
    for at, need in zip(arrivals, work, strict=True):
        begin = max(at, heapq.heappop(free))
        heapq.heappush(free, begin + need)
        waits.append(begin - at)
    chance, mean = waiting(Demand(rate, service, cv, cores=cores), 1)
    assert mean == pytest.approx(float(np.mean(waits)), rel=0.2)
    assert chance == pytest.approx(float(np.mean(np.array(waits) > 0)), abs=0.06)


@pytest.mark.parametrize(
    "changed",
    [
        {"rate": 0.0}, {"rate": math.nan}, {"rate": math.inf}, {"service": -1.0}, {"cv": -0.1}, {"cores": 0},
        {"headroom": -0.1}, {"objective": 1.0}, {"objective": 99.0}, {"threshold": 0.0},
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        plan(replace(EXAMPLE, **changed))


# --- measured, and written -------------------------------------------------------------------------------


def exposed(model: str = "fraud") -> str:
    name, labels = "mlobs_request_duration_seconds", f'model="{model}",outcome="ok"'
    return (
        f"{name}_sum{{{labels}}} 4.0\n{name}_count{{{labels}}} 100\n"
        f'{name}_bucket{{{labels},le="0.02"}} 10\n{name}_bucket{{{labels},le="0.06"}} 90\n'
        f'{name}_bucket{{{labels},le="+Inf"}} 100\n'
    )


def test_service_times_are_measured_from_metrics() -> None:
    mean, spread = measured(exposed(), "fraud", "test")
    assert mean == pytest.approx(0.04)
    assert 0.1 < spread < 1.0


def test_metrics_without_requests_or_of_several_models_are_refused() -> None:
    with pytest.raises(NothingJudgedError):
        measured(exposed(), "other", "test")
    with pytest.raises(UsageError, match="name one"):
        measured(exposed("a") + exposed("b"), "", "test")
    with pytest.raises(UnreadableError):
        measured("<html>\n", "", "test")


COMMAND = ["slo", "capacity", "--rate", "5000", "--service", "40ms"]


def test_the_command_says_it_in_words_and_as_json() -> None:
    said = CliRunner().invoke(app, COMMAND).stdout
    assert "200 cores busy" in said
    assert "25 replicas of 8 cores hold that; 33 with 30% headroom, before queueing" in said
    found = json.loads(CliRunner().invoke(app, [*COMMAND, "--json"]).stdout)
    assert (found["plan"]["bare"], found["plan"]["warm"]) == (25, 33)


def test_the_objective_of_a_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text(
        "service: fraud-api\nmodels: [{name: fraud}]\nslo:\n  objectives:\n"
        "    - {name: fast, model: fraud, sli: {p99: {threshold: 250ms}}, objective: 99%, period: 30d}\n"
    )
    done = CliRunner().invoke(app, [*COMMAND, str(tmp_path / "mlobs.yaml"), "--kubernetes"])
    documents = list(yaml.safe_load_all(done.stdout))
    assert [one["kind"] for one in documents] == [
        "HorizontalPodAutoscaler",
        "ScaledObject",
        "PrometheusRule",
    ]
    assert documents[0]["metadata"]["name"] == "fraud-api"
    assert documents[0]["spec"]["metrics"][0]["pods"]["metric"]["name"] == "mlobs_requests_in_flight"
    assert len(documents[1]["spec"]["triggers"]) == 2


def test_without_a_threshold_there_is_no_guard() -> None:
    documents = list(
        yaml.safe_load_all(CliRunner().invoke(app, [*COMMAND, "--model", "m", "--kubernetes"]).stdout)
    )
    assert [one["kind"] for one in documents] == ["HorizontalPodAutoscaler", "ScaledObject"]
    assert len(documents[0]["spec"]["metrics"]) == 1


@pytest.mark.parametrize("text", ["--rate=-1", "--service=40", "--objective=99.9", "--kubernetes"])
def test_wrong_use_ends_with_2(text: str) -> None:
    done = CliRunner().invoke(app, ["slo", "capacity", "--rate", "1", "--service", "1ms", text])
    assert isinstance(done.exception, UsageError)


def test_the_guard_asks_for_more_than_is_ignored_and_in_peace_for_nothing(promtool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rule = {"record": "wanted", "expr": guard_query('a"b\\c', 1.0, 0.01)}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    labels = 'model="a\\"b\\\\c"'

    def case(fast: float, wanted: float, replicas: int = 2) -> dict[str, object]:
        series = {
            **{f'mlobs_requests_in_flight{{{labels},instance="{each}"}}': "3x20" for each in range(replicas)},
            f"mlobs_request_duration_seconds_count{{{labels}}}": "0+100x20",
            f'mlobs_request_duration_seconds_bucket{{{labels},le="1.0"}}': f"0+{fast}x20",
        }
        return {
            "interval": "1m",
            "input_series": [{"series": key, "values": value} for key, value in series.items()],
            "promql_expr_test": [
                {"expr": "wanted", "eval_time": "10m", "exp_samples": [{"labels": "wanted", "value": wanted}]}
            ],
        }

    cases = [case(100, 0.0), case(99.3, 2.0), case(90, 3.0), case(90, 22.0 + 3.0, replicas=22)]
    tests = {"rule_files": ["rules.yaml"], "tests": cases}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = promtool("test", "rules", tmp_path / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
