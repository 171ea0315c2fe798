"""`mlobs slo` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlobs.cli import slo_common
from mlobs.cli.slo import app
from mlobs.errors import ConfigError, UnavailableError
from tests.slo.test_engine import outage, steady
from tests.slo.world import START, World, file_store, objective, settings

FILE = """\
service: fraud-api
store: sqlite:///mlobs.db
slo:
  objectives:
    - {name: fraud-p99, model: fraud, sli: {p99: {threshold: 100ms}}, objective: 99%, period: 30d}
    - {name: up, model: fraud, sli: availability, objective: 99.9%, period: 30d}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mlobs.yaml"
    path.write_text(FILE)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_rules_writes_files_that_promtool_accepts(config: Path, promtool) -> None:
    done = run("rules", config, "-o", config.parent / "out")
    assert done.exit_code == 0, done.output
    written = config.parent / "out" / "fraud-api.rules.yaml"
    checked = promtool("check", "rules", str(written))
    assert "SUCCESS" in checked.stdout, checked.stdout + checked.stderr


def test_validate_prints_when_each_tier_speaks(config: Path) -> None:
    done = run("validate", config, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)
    fast = next(row for row in rows if row["slo"] == "up" and row["long"] == "1h")
    assert fast["factor"] == 14.4
    assert fast["detect_total"] == pytest.approx(51.84)
    assert "14.4" in run("validate", config).output


def test_a_tier_that_can_never_fire_is_refused_with_the_fix(config: Path) -> None:
    config.write_text(FILE.replace("99.9%", "90%"))
    done = run("validate", config)
    assert isinstance(done.exception, ConfigError)
    assert "spend less than 1.39% of the budget in 1h" in str(done.exception)


def test_status_without_an_evaluation_says_what_to_start(config: Path) -> None:
    done = run("status", "-c", config)
    assert isinstance(done.exception, UnavailableError)
    assert "mlobs serve" in str(done.exception)


def test_status_exits_0_while_all_is_well_and_1_once_it_burns(config: Path, monkeypatch) -> None:
    monkeypatch.setattr(slo_common.time, "time", lambda: START + 8 * 3600)
    world = World(settings(objective("up", "availability")), file_store(config.parent / "mlobs.db"))
    world.run(START, START + 8 * 3600, 300, steady)
    done = run("status", "-c", config, "--json")
    assert done.exit_code == 0, done.output
    [status] = json.loads(done.output)
    assert (status["name"], status["state"], status["remaining"]) == ("up", "ok", 1.0)
    world.run(START + 8 * 3600, START + 8 * 3600 + 600, 60, outage)
    done = run("status", "-c", config)
    assert done.exit_code == 1
    assert "burning" in done.output
    world.store.close()
