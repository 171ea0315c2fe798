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
    status, shown = run("notify", "test", "hook", "-c", path)
    assert (status, "not sent: connection" in shown) == (3, True)
    assert run("notify", "test", "hok", "-c", path)[0] == 2
