"""Backtest, backfill, explain and `validate --live`: objectives and what has been."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from mlobs.cli import slo_common
from mlobs.cli.slo import app
from mlobs.errors import ConfigError, NothingJudgedError, UnavailableError
from mlobs.slo.backtest import backtest, trouble
from mlobs.slo.burn import Count
from mlobs.slo.burn import firing as firing_now
from mlobs.slo.evaluate import plan
from mlobs.slo.explain import explain
from mlobs.slo.prometheus import Prometheus, step_of
from mlobs.slo.replay import Past, firing, slices_of
from mlobs.slo.status import SloStatus
from tests import servers
from tests.slo.test_engine import outage, steady
from tests.slo.world import START, World, file_store, objective, settings

HOUR, DAY = 3600.0, 86400.0
UP = plan(objective("up", "availability"), settings(objective("up", "availability")))

FILE = """\
service: fraud-api
store: sqlite:///mlobs.db
slo:
  objectives:
    - {name: up, model: fraud, sli: availability, objective: 99.9%}
"""


def even(days: float, bad: list[tuple[float, float, float]], pace: float = 100.0) -> Past:
    """A past at a point a minute; `bad` lists (start, end, share) in seconds."""
    times = np.arange(0.0, days * DAY + 1, 60.0)
    share = np.zeros(len(times))
    for start, end, part in bad:
        share[(times > start) & (times <= end)] = part
    step = np.full(len(times), pace * 60.0)
    step[0] = 0
    return Past(times, np.cumsum(step * share), np.cumsum(step))


@hypothesis_settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=40), st.booleans())
def test_the_replay_decides_as_the_evaluator_does(steps: list[tuple[int, int]], sliced: bool) -> None:
    each = objective("x", "drift" if sliced else "availability", "0.95", severity="page")
    planned = plan(each, settings(each))
    times = np.arange(len(steps), dtype=float) * 600.0
    bad = np.cumsum([float(min(b, t)) for b, t in steps])
    total = np.cumsum([float(t) for _, t in steps])
    found = firing(planned, Past(times, bad, total))
    for now in range(len(times)):

        def count(length: float, now: int = now) -> Count:
            before = int(np.searchsorted(times, times[now] - length, side="right")) - 1
            b0, t0 = (bad[before], total[before]) if before >= 0 else (0.0, 0.0)
            return Count(bad[now] - b0, total[now] - t0, min(1.0, (times[now] - times[0]) / length))

        counts = {length: count(length) for length in planned.windows}
        expected = firing_now(
            planned.tiers, counts, planned.gates, planned.sliced, planned.share, planned.cap
        )
        for severity in ("page", "ticket"):
            assert bool(found.get(severity, np.zeros(len(times)))[now]) == (severity in expected)


def test_a_backtest_finds_the_outage_and_its_delay_and_nothing_else() -> None:
    found = backtest(UP, even(14, [(5 * DAY, 5 * DAY + 1800, 1.0), (9 * DAY, 9 * DAY + 60, 0.05)]))
    [incident] = found.incidents
    assert (incident.start, incident.end) == (5 * DAY, 5 * DAY + 1800)
    assert incident.delay == 60
    assert len(found.pages) == 1
    assert found.pages_per_week == 0.5
    assert found.false_pages == found.missed == 0
    assert found.spent == pytest.approx((1800 + 3) / (14 * DAY * 0.001))


def test_bad_slices_with_nothing_counted_between_them_are_one_incident() -> None:
    """Slices of a day among points of an hour: five bad days in a row are not five incidents."""
    each = objective("p99", "p99", "0.9")
    planned = plan(each, settings(each))
    times = np.arange(0.0, 22 * DAY + 1, HOUR)
    day = np.where(times % DAY == 0, 1.0, 0.0) * (times > 0)
    bad = day * ((times > 10 * DAY) & (times <= 15 * DAY) | (times == 19 * DAY))
    found = trouble(planned, Past(times, np.cumsum(bad), np.cumsum(day)))
    assert found == [(11 * DAY - HOUR, 15 * DAY), (19 * DAY - HOUR, 19 * DAY)]


def test_an_incident_that_no_tier_sees_is_missed() -> None:
    found = backtest(UP, even(14, []), incidents=[(DAY, DAY + HOUR)])
    assert found.missed == 1
    assert found.false_pages == 0


def test_pages_outside_of_known_incidents_are_false() -> None:
    found = backtest(UP, even(14, [(5 * DAY, 5 * DAY + 1800, 1.0)]), incidents=[(DAY, DAY + HOUR)])
    assert found.false_pages == 1


def test_the_dearest_period_is_told() -> None:
    found = backtest(UP, even(40, [(5 * DAY, 5 * DAY + 600, 1.0)]))
    assert found.worst_spent == pytest.approx(600 / (30 * DAY * 0.001))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A mlobs.yaml whose store has seen half a day with an outage of ten minutes."""
    path = tmp_path / "mlobs.yaml"
    path.write_text(FILE)
    world = World(settings(objective("up", "availability")), file_store(tmp_path / "mlobs.db"))
    world.run(START, START + 8 * HOUR, 300, steady)
    world.run(START + 8 * HOUR, START + 8 * HOUR + 600, 60, outage)
    world.store.close()
    return path


def test_backtest_replays_the_store_through_another_objective(watched: Path) -> None:
    done = run("backtest", watched, "--json")
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)
    assert len(found["pages"]) == 1
    watched.write_text(FILE.replace("99.9%", "99%"))  # the same counts, judged by another promise
    [looser] = json.loads(run("backtest", watched, "--json").stdout)
    assert looser["spent"] == pytest.approx(found["spent"] / 10)
    assert run("backtest", watched, "--max-pages", 0.5).exit_code == 1


def test_a_gate_does_not_pass_an_objective_that_has_no_past(watched: Path) -> None:
    """Without a gate that is a warning."""
    assert run("backtest", watched, "--max-pages", 1000).exit_code == 0
    more = "    - {name: new, model: other, sli: availability, objective: 99.9%}\n"
    watched.write_text(FILE.rstrip("\n") + "\n" + more)
    assert run("backtest", watched).exit_code == 0
    done = run("backtest", watched, "--max-pages", 1000)
    assert (done.exit_code, "new: nothing was counted" in done.stderr) == (3, True)


def test_backtest_without_a_past_says_so(tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text(FILE)
    done = run("backtest", tmp_path / "mlobs.yaml")
    assert isinstance(done.exception, NothingJudgedError)


def test_explain_of_slices_says_that_its_parts_are_slow_requests() -> None:
    each = objective("p99", "p99", "0.99")
    config = settings(each)
    status = SloStatus(
        "p99", "fraud", "p99", "99%", "ok", "fine", "slices", 30 * DAY, START, 5.0, 22.0, 3.0, 1.6, -0.6,
        -2.0, 432.0, -200.0, spent_by=(("model_version=2", 133.0),),
    )  # fmt: skip
    assert "Spent by (slow requests): model_version=2 133." in explain(
        config.slo.objectives[0], status, config
    )


@pytest.mark.parametrize("command", ["status", "explain"])
def test_what_was_evaluated_long_ago_is_not_fine(tmp_path: Path, command: str, monkeypatch) -> None:
    (tmp_path / "mlobs.yaml").write_text(FILE)
    world = World(settings(objective("up", "availability")), file_store(tmp_path / "mlobs.db"))
    world.run(START, START + 8 * HOUR, 300, steady)
    world.store.close()
    now = START + 8 * HOUR + 200
    monkeypatch.setattr(slo_common.time, "time", lambda: now)
    done = run(command, "-c", tmp_path / "mlobs.yaml")
    assert (done.exit_code, done.stderr) == (0, "")
    now += 4 * HOUR
    done = run(command, "-c", tmp_path / "mlobs.yaml")
    assert done.exit_code == 3
    assert (
        "warning: last evaluated 2023-11-14 08:00 UTC, 4 h 3 min ago: does `mlobs serve` run?" in done.stderr
    )
    (tmp_path / "mlobs.yaml").write_text("clock: driven\n" + FILE)  # a replay's time is its own
    assert run(command, "-c", tmp_path / "mlobs.yaml").exit_code == 0


def test_explain_says_it_in_words(watched: Path) -> None:
    done = run("explain", "up", "-c", watched)
    assert done.exit_code == 1
    assert "99.9% of requests succeed, over 30 d" in done.output
    assert "State: burning" in done.output
    assert "Firing: a page since 2023-11-14" in done.output
    assert "43 minutes of total outage" in done.output
    (told,) = json.loads(run("explain", "up", "-c", watched, "--json").stdout)
    assert (told["name"], told["state"], told["text"]) == ("up", "burning", done.stdout.rstrip("\n"))
    assert "did you mean 'up'" in str(run("explain", "upp", "-c", watched).exception)


def exposition(start: int, hours: float) -> str:
    """OpenMetrics of a service that fails for ten minutes after the third hour."""
    name, lines = "mlobs_request_duration_seconds_count", []
    ok = error = 0
    for n in range(int(hours * 240)):
        t = start + 15 * n
        bad = 3 * 3600 <= 15 * n < 3 * 3600 + 600
        ok, error = (ok, error + 150) if bad else (ok + 150, error)
        lines += [f'{name}{{model="fraud",outcome="{o}"}} {v} {t}' for o, v in (("ok", ok), ("error", error))]
    lines.sort(key=lambda line: line.split("}")[0])
    return "\n".join([f"# TYPE {name} gauge", *lines, "# EOF"]) + "\n"


@pytest.fixture
def history(prometheus, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A real Prometheus that holds six hours of the past."""
    (tmp_path / "in.om").write_text(exposition(int(START), 6))
    data = tmp_path / "prometheus0" / "data"
    data.mkdir(parents=True)
    command = [str(servers.need("promtool")), "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*command, str(tmp_path / "in.om"), str(data)], check=True, capture_output=True)
    return prometheus(flags=["--storage.tsdb.retention.time=100y"])


def test_backtest_asks_a_real_prometheus(history, tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text(FILE)
    end = START + 6 * HOUR
    arguments = ("--prometheus", history.url, "--days", 0.25, "--end", end, "--json")
    done = run("backtest", tmp_path / "mlobs.yaml", *arguments)
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)
    assert found["bad"] == pytest.approx(6000, rel=0.03)
    [page] = found["pages"]
    assert START + 3 * HOUR < page <= START + 3 * HOUR + 180


def test_backfill_writes_days_that_promtool_makes_blocks_of(history, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mlobs.yaml").write_text(FILE)
    monkeypatch.setenv("PATH", str(servers.need("promtool").parent), prepend=":")
    end = START + 6 * HOUR
    arguments = (
        "--prometheus",
        history.url,
        "--days",
        0.25,
        "--end",
        end,
        "-o",
        tmp_path / "out",
        "--blocks",
    )
    done = run("backfill", tmp_path / "mlobs.yaml", *arguments)
    assert done.exit_code == 0, done.output
    [piece] = (tmp_path / "out").glob("*.om")
    assert 'slo:sli_error:ratio_rate5m{sloth_id="fraud-api-up"' in piece.read_text()
    assert list((tmp_path / "out" / "blocks").glob("*/index"))


def test_validate_live_knows_missing_series_edges_and_a_short_retention(prometheus, tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text(FILE)
    server = prometheus(flags=["--storage.tsdb.retention.time=15d"])
    done = run("validate", tmp_path / "mlobs.yaml", "--live", server.url)
    assert isinstance(done.exception, ConfigError)
    said = str(done.exception)
    assert said.count("the metric mlobs_request_duration_seconds_count, got none of it") == 1
    assert "a retention of 30d or more, got 15d" in said


def test_slices_of_a_past_are_judged_as_the_engine_judges_them() -> None:
    times = np.arange(0.0, 3600.0 * 3 + 1, 60.0)
    total = np.arange(len(times)) * 300_000.0
    slow = np.cumsum(np.where((times > 3600) & (times <= 7200), 9000.0, 100.0))
    past = slices_of(times, slow, total, 60.0)
    assert past.bad[-1] == 60
    assert past.total[-1] == 180
    p99 = objective("p", "p99", "0.99")
    found = firing(plan(p99, settings(p99)), past)
    first = times[np.flatnonzero(found["page"])[0]]
    assert 8 * 60 <= first - 3600 <= 10 * 60
    assert dataclasses.is_dataclass(past)


def scraped_every(seconds: float) -> Prometheus:
    """A Prometheus that has so many samples in ten minutes of any series."""

    def get(url: str) -> bytes:
        assert "count_over_time" in url
        rows = [{"metric": {}, "values": [[START, "0"], [START + 600, f"{600 // seconds:g}"]]}]
        return json.dumps({"status": "success", "data": {"result": rows}}).encode()

    return Prometheus("http://p", get)


@pytest.mark.parametrize(("seconds", "step"), [(15, 60), (30, 60), (60, 300), (120, 300)])
def test_a_step_of_the_past_holds_two_samples_however_seldom_is_scraped(seconds: float, step: float) -> None:
    """Prometheus scrapes once a minute unless told otherwise: a minute has one sample, and no increase."""
    assert step_of(UP, scraped_every(seconds), START, START + DAY, 60.0) == step


def test_slices_shorter_than_two_scrapes_are_told_and_not_read_as_nothing() -> None:
    each = objective("p99", "p99", "0.99")
    planned = plan(each, settings(each))
    with pytest.raises(UnavailableError, match=r"a sample every 60 s; scrape every 30s, or set a longer"):
        step_of(planned, scraped_every(60), START, START + DAY, 60.0)
    assert step_of(planned, scraped_every(60), START, START + DAY, 300.0) == 300.0
