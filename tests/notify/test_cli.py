"""The commands of paging, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mlobs.cli import incidents, notify
from mlobs.config import load_settings
from mlobs.errors import MlobsError
from mlobs.notify.tables import SCHEMA
from mlobs.store import open_store
from tests.notify.desks import T0, Told, an_alert, make_desk
from tests.notify.stubs import receiver, serving

app = typer.Typer()
app.add_typer(notify.app)
app.add_typer(incidents.app)
app.command()(incidents.event)


def run(*words: object) -> tuple[int, str]:
    """Exit status and what was printed, with errors as `main` shows them."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(result.exception, MlobsError):
        return result.exception.exit_code, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mlobs.yaml"
    path.write_text("service: fraud-api\nenvironment: prod\nnotify: {channels: {screen: {console: }}}\n")
    return path


def page_in(config: Path) -> str:
    """One open incident in the store of `config`; its id."""
    settings = load_settings(config)
    store = open_store(settings.store, [SCHEMA])
    channel = Told("screen")
    desk = make_desk(channel, store=store, settings=settings)
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    store.close()
    return incident.id


def test_list_shows_open_incidents_and_exits_1(config: Path):
    assert run("incidents", "list", "-c", config) == (0, "no incidents\n")
    which = page_in(config)
    status, shown = run("incidents", "list", "-c", config)
    assert status == 1
    assert which in shown
    status, shown = run("incidents", "list", "-c", config, "--json")
    assert (status, [one["id"] for one in json.loads(shown)]) == (1, [which])


def test_show_tells_the_page_the_messages_and_the_timeline(config: Path):
    which = page_in(config)
    status, shown = run("incidents", "show", which, "-c", config)
    assert status == 0
    for expected in ("PAGE fraud: latency", "firing to screen: sent", "opened: fraud-latency fires"):
        assert expected in shown
    assert json.loads(run("incidents", "show", which, "-c", config, "--json")[1])["row"]["id"] == which


def test_an_incident_is_acknowledged_once_and_resolved_once(config: Path):
    which = page_in(config)
    assert "is acknowledged by ada:" in run("incidents", "ack", which, "-c", config, "--by", "ada")[1]
    assert "is acknowledged by ada already" in run("incidents", "ack", which, "-c", config, "--by", "bob")[1]
    assert json.loads(run("incidents", "resolve", which, "-c", config, "--json")[1])["changed"] is True
    assert run("incidents", "list", "-c", config)[0] == 0


def test_an_unknown_incident_is_a_usage_error(config: Path):
    for word in ("show", "ack", "resolve"):
        status, shown = run("incidents", word, "nope", "-c", config)
        assert (status, "mlobs incidents list" in shown) == (2, True)


def test_a_deploy_stands_in_the_timeline_of_the_incident_that_follows(config: Path):
    at = "2013-03-20T04:58:00+00:00"
    status, shown = run("event", "deploy", "v2", "--model", "fraud", "--at", at, "-c", config)
    assert (status, shown) == (0, "deploy of fraud noted\n")
    which = page_in(config)
    assert (
        "2013-03-20 04:58 UTC deploy: v2 (2 min before)" in run("incidents", "show", which, "-c", config)[1]
    )


def test_a_time_without_a_zone_is_refused(config: Path):
    status, shown = run("event", "deploy", "v2", "--at", "2013-03-20T04:58:00", "-c", config)
    assert (status, "--at" in shown) == (2, True)


def test_a_test_page_goes_through_and_says_what_it_is(tmp_path: Path):
    path = tmp_path / "mlobs.yaml"
    with serving(receiver()) as hook:
        path.write_text(
            "service: fraud-api\nnotify: {channels: {hook: {webhook: "
            f"{{url: '{hook.url}', allow_http: true, allow_private: true}}}}}}}}\n"
        )
        assert run("notify", "test", "-c", path, "--by", "ada") == (0, "hook: sent\n")
    assert hook.requests[0].fields["title"] == "TEST: fraud-api can reach you, sent by ada"
    assert hook.requests[0].fields["lines"][0] == "TEST: fraud-api can reach you, sent by ada"
    status, shown = run("notify", "test", "hook", "-c", path)
    assert (status, "not sent: connection" in shown) == (3, True)
    assert run("notify", "test", "hok", "-c", path)[0] == 2


ROUTED = """
service: fraud-api
notify:
  channels:
    desk: {slack: {channel: "#oncall", token_file: slack-token}}
    phone: {pagerduty: {routing_key_file: pager-key}}
  people: {ada: [phone]}
  times:
    office: {days: mon-fri, from: "09:00", to: "17:00", timezone: Europe/Berlin}
    night: {days: fri-sat, from: "22:00", to: "06:00"}
  routes:
    - {match: {severity: page}, to: [desk], times: office}
    - {match: {severity: page, model: fraud}, to: [ada], escalate: [{after: 15m, to: [desk]}]}
  maintenance: [{match: {model: batch}, times: night}]
  fallback: ada
  alertmanager: {token_file: token}
"""


@pytest.fixture
def routed(tmp_path: Path) -> Path:
    (tmp_path / "mlobs.yaml").write_text(ROUTED)
    return tmp_path / "mlobs.yaml"


def test_routes_test_says_who_gets_it_and_why(routed: Path):
    status, shown = run(
        "notify", "routes", "test", "-c", routed, "--model", "fraud", "--at", "2026-11-28T03:00:00+01:00"
    )
    assert (status, shown.splitlines()) == (
        0,
        [
            "passed over: routes[0]: 2026-11-28 02:00 UTC is outside of office",
            "routes[1] matches severity=page, model=fraud",
            "told: ada by phone (pagerduty)",
            "not acknowledged after 15 min: desk (slack #oncall)",
            "not delivered to anybody after 5 min: desk (slack #oncall)",
        ],
    )
    at_work = ("--at", "2026-11-27T10:00:00+01:00", "--json")
    assert json.loads(run("notify", "routes", "test", "-c", routed, *at_work)[1])["to"] == ["desk"]
    who = json.loads(run("notify", "routes", "test", "-c", routed, *at_work)[1])
    assert who["who"] == [{"channel": "desk", "kind": "slack", "where": "#oncall", "people": []}]
    assert who["then"] == ["not delivered after 5 min: ada by phone (pagerduty)"]
    assert run("notify", "routes", "test", "-c", routed, "--severity", "ticket")[0] == 1
    assert run("notify", "routes", "test", "-c", routed, "--severity", "pages")[0] == 2


def test_a_silence_is_added_listed_and_ended(config: Path):
    assert run("notify", "silence", "add", "model=fraud", "--for", "2h", "--by", "ada", "-c", config) == (
        0, "silence 1 for 2h: model=fraud\n",
    )  # fmt: skip
    assert "1: model=fraud until" in run("notify", "silence", "list", "-c", config)[1]
    assert run("notify", "silence", "end", "1", "-c", config)[0] == 0
    assert run("notify", "silence", "list", "-c", config)[1] == "no silences\n"
    assert run("notify", "silence", "end", "1", "-c", config)[0] == 2
    assert run("notify", "silence", "add", "modell=fraud", "-c", config)[0] == 2
    assert run("notify", "silence", "add", "model=fraud", "--for", "2", "-c", config)[0] == 2


def test_what_alertmanager_needs_is_written_and_accepted_by_its_own_tools(routed: Path, amtool, promtool):
    folder = routed.parent / "out"
    status, _ = run(
        "notify", "alertmanager", "-c", routed, "--url", "http://mlobs:9464/api/alertmanager", "-o", folder
    )
    assert status == 0
    checked = amtool("check-config", folder / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = promtool("check", "rules", folder / "mlobs-paging.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for labels, name in (
        (("alertname=MlobsSloBurn", "severity=page", "model=fraud"), "mlobs"),
        (("alertname=Watchdog",), "mlobs"),
        (("alertname=MlobsDown", "mlobs=dead"), "mlobs-fallback"),
        (("model=batch",), "mlobs"),
    ):
        told = amtool("config", "routes", "test", f"--config.file={folder / 'alertmanager.yml'}", *labels)
        assert (told.returncode, told.stdout.strip()) == (0, name)


def test_without_somebody_past_mlobs_no_alertmanager_file_is_written(routed: Path):
    routed.write_text(ROUTED.replace("  fallback: ada\n", ""))
    status, shown = run("notify", "alertmanager", "-c", routed)
    assert (status, "notify.fallback" in shown) == (2, True)
