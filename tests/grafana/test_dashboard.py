"""The generated dashboard: the schema, the queries, the same bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mlobs import names
from mlobs.grafana.dashboard import dashboard, encoded, uid_of
from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from tests.grafana.service import EVIL, FRAUD, HOSTILE

ROOT = Path(__file__).resolve().parents[2]
RECORDED = dataclasses.replace(FRAUD, slo=dataclasses.replace(FRAUD.slo, evaluator="prometheus"))
NONE = Settings("quiet")
ALL = pytest.mark.parametrize(
    "settings",
    [FRAUD, RECORDED, HOSTILE, NONE],
    ids=["embedded", "recorded", "hostile names", "no objectives"],
)


def expressions(made: dict[str, Any]) -> Iterator[str]:
    for panel in made["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (mark["expr"] for mark in made["annotations"]["list"] if "expr" in mark)


def as_prometheus_sees_it(expr: str) -> str:
    """With Grafana's variables filled in."""
    return expr.replace("$__rate_interval", "5m").replace('"$model"', '"fraud|other"')


@ALL
def test_promtool_parses_every_query(settings: Settings, promtool: Any, tmp_path: Path) -> None:
    rules = [
        {"record": f"check:{number}", "expr": as_prometheus_sees_it(expr)}
        for number, expr in enumerate(expressions(dashboard(settings)))
    ]
    assert len(rules) >= 20
    assert not [rule for rule in rules if "$" in rule["expr"].replace("[$]", "")], "a variable is left"
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@ALL
def test_metric_names_come_from_the_vocabulary(settings: Settings) -> None:
    known = {value for value in vars(names).values() if isinstance(value, str)}
    known |= {f"{known_name}{suffix}" for known_name in known for suffix in ("_bucket", "_count", "_sum")}
    pattern = names.RULE_SLI_ERROR.replace("{window}", "")
    for expr in expressions(dashboard(settings)):
        bare = re.sub(r'"(\\.|[^"\\])*"', '""', expr)
        used = set(re.findall(r"\b(?:mlobs_\w+|slo:[\w:]+)", bare))
        assert used, expr
        assert {name for name in used if not name.startswith(pattern)} <= known, expr


@ALL
def test_names_of_users_stay_within_their_strings(settings: Settings) -> None:
    made = dashboard(settings)
    for expr in expressions(made):
        bare = re.sub(r'"(\\.|[^"\\])*"', '""', expr)
        assert "vector(1)" not in bare
        assert EVIL not in expr
    titles = [panel["title"] for panel in made["panels"]] + [made["title"]]
    assert not [title for title in titles if "$" in title], "Grafana would fill it in"


def schema(name: str) -> dict[str, Any]:
    folder = os.environ.get("MLOBS_GRAFANA_SCHEMA")
    if not folder:
        pytest.skip("MLOBS_GRAFANA_SCHEMA names no folder with Grafana's published JSON Schemas")
    loaded: dict[str, Any] = json.loads((Path(folder) / f"{name}.jsonschema.json").read_text())
    return loaded


def check(value: Any, of: str, definition: str) -> None:
    whole = schema(of)
    jsonschema.validate(value, {**whole, "$ref": f"#/definitions/{definition}"})


@ALL
def test_it_follows_the_published_schema(settings: Settings) -> None:
    made = dashboard(settings)
    check(made, "dashboard", "Dashboard")
    for panel in made["panels"]:
        if panel["type"] == "row":
            check(panel, "dashboard", "RowPanel")
            continue
        check(panel, "dashboard", "Panel")
        plugin = panel["type"].replace("-", "")
        check(panel["options"], plugin, "Options")
        if "FieldConfig" in schema(plugin)["definitions"]:
            check(panel["fieldConfig"]["defaults"].get("custom", {}), plugin, "FieldConfig")
        for target in panel["targets"]:
            check(target, "prometheus", "Dataquery")


def test_units_are_ones_that_grafana_knows() -> None:
    used = {
        panel["fieldConfig"]["defaults"].get("unit", "none")
        for panel in dashboard(FRAUD)["panels"]
        if panel["type"] != "row"
    }
    known = json.dumps(schema("units"))
    assert {unit for unit in used if f'"{unit}"' not in known} == set()


@ALL
def test_panels_lie_side_by_side_and_do_not_overlap(settings: Settings) -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard(settings)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_burn_panels_draw_the_factors_of_their_tiers() -> None:
    burn = [panel for panel in dashboard(FRAUD)["panels"] if panel["title"].startswith("Burn rate")]
    assert [panel["title"].removeprefix("Burn rate: ") for panel in burn] == [
        "up",
        "fast",
        "p99",
        "rows",
        "drift",
    ]
    steps = burn[0]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps[1:]] == [
        (1.0, "orange"), (3.0, "orange"), (6.0, "red"), (14.4, "red"),
    ]  # fmt: skip
    drift = burn[-1]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert {step["color"] for step in drift[1:]} == {"orange"}, "a drift objective opens tickets"


def test_absent_data_is_not_drawn_as_zero() -> None:
    for panel in dashboard(FRAUD)["panels"]:
        if panel["type"] == "row":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["noValue"] == "no data"
        assert not defaults.get("custom", {}).get("spanNulls", False)


@pytest.mark.parametrize(
    ("service", "environment", "uid"),
    [("fraud-api", "", "mlobs-fraud-api"), ("fraud-api", "prod", "mlobs-prod-fraud-api")],
)
def test_the_uid_says_the_service(service: str, environment: str, uid: str) -> None:
    assert uid_of(Settings(service, environment=environment)) == uid


def test_uids_are_allowed_ones_and_differ_where_services_do() -> None:
    odd = ["a b", "a/b", "a.b", "a" * 60, "a" * 61, "ä", "", "\ud800"]
    found = [uid_of(Settings(service)) for service in odd]
    assert len(set(found)) == len(odd)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", uid) for uid in found)


def test_the_same_settings_give_the_same_bytes() -> None:
    assert encoded(dashboard(FRAUD)) == encoded(dashboard(dataclasses.replace(FRAUD)))


def test_an_objective_without_a_model_and_with_own_windows_is_drawn() -> None:
    calendar = ObjectiveSettings("all", SliSettings("availability"), Decimal("0.9"), calendar="month")
    made = dashboard(Settings("x", slo=SloSettings(objectives=(calendar,))))
    (burn,) = [panel for panel in made["panels"] if panel["title"].startswith("Burn rate")]
    assert burn["description"].startswith("90% over 30 d.")


def test_the_committed_dashboard_is_what_the_code_writes(golden: Any) -> None:
    golden(ROOT / "dashboards" / "example.json", encoded(dashboard(FRAUD)))
