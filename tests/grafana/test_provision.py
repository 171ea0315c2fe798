"""Dashboards in a running Grafana, against a stub that answers as its HTTP API does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlobs.cli.grafana import app
from mlobs.errors import MissingExtraError, MlobsError, UnavailableError, UsageError
from mlobs.grafana.changes import change
from mlobs.grafana.dashboard import dashboard
from mlobs.secret import Secret
from tests.grafana.service import FRAUD, HOSTILE
from tests.grafana.stub import State, stub

WANTED = dashboard(FRAUD)


@pytest.fixture
def server() -> Iterator[State]:
    with stub() as state:
        yield state


@pytest.fixture
def token(tmp_path: Path) -> Secret:
    path = tmp_path / "token"
    path.write_text("glsa_secret\n")
    return Secret("--token-file", file=str(path))


def grafana(server: State, token: Secret | None) -> Any:
    from mlobs.grafana.remote import Grafana

    return Grafana(server.url, token)


def test_provisioning_creates_once_and_then_changes_nothing(server: State, token: Secret) -> None:
    assert grafana(server, token).provision(WANTED).kind == "create"
    assert server.folders == {"mlobs": "mlobs"}
    assert server.folder_of["mlobs-fraud-api"] == "mlobs"
    server.calls.clear()
    assert grafana(server, token).provision(WANTED).kind == "unchanged"
    assert server.calls == ["GET /dashboards/uid/mlobs-fraud-api"]


def test_a_newer_server_that_migrates_what_it_stores_is_in_step_too(server: State, token: Secret) -> None:
    server.migrates = True
    grafana(server, token).provision(WANTED)
    assert grafana(server, token).provision(WANTED).kind == "unchanged"


def test_a_change_is_shown_and_then_brought_in_step(server: State, token: Secret) -> None:
    grafana(server, token).provision(WANTED)
    server.dashboards["mlobs-fraud-api"]["panels"][1]["title"] = "renamed by hand"
    planned = grafana(server, token).plan(WANTED)
    assert [str(one) for one in planned.differences] == [
        '~ panels[1].title: "renamed by hand" -> "Budget left"'
    ]
    assert grafana(server, token).provision(WANTED).kind == "update"
    stored = server.dashboards["mlobs-fraud-api"]
    assert (stored["panels"][1]["title"], stored["version"]) == ("Budget left", 2)


def test_hostile_names_arrive_as_they_are(server: State, token: Secret) -> None:
    wanted = dashboard(HOSTILE)
    grafana(server, token).provision(wanted)
    assert server.dashboards[wanted["uid"]]["panels"] == wanted["panels"]


def test_who_saved_in_between_is_not_overwritten(server: State, token: Secret) -> None:
    ours = grafana(server, token)
    ours.provision(WANTED)
    server.dashboards["mlobs-fraud-api"]["title"] = "x"
    read = ours.dashboard

    def read_then_saved(uid: str) -> Any:
        found = copy.deepcopy(read(uid))
        server.dashboards[uid]["version"] += 1
        return found

    ours.dashboard = read_then_saved
    with pytest.raises(UnavailableError, match=r"412.*changed by someone else.*grafana diff"):
        ours.provision(WANTED)
    assert server.dashboards["mlobs-fraud-api"]["title"] == "x"


def test_a_dashboard_of_somebody_else_is_left_alone(server: State, token: Secret) -> None:
    server.dashboards["mlobs-fraud-api"] = {
        "uid": "mlobs-fraud-api",
        "title": "mine",
        "tags": ["own"],
        "version": 3,
    }
    with pytest.raises(UsageError, match="not ours to replace"):
        grafana(server, token).provision(WANTED)
    assert server.dashboards["mlobs-fraud-api"]["title"] == "mine"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ((500, "application/json", '{"message": "down"}'), "500"),
        ((403, "application/json", '{"message": "no"}'), "role Editor"),
        ((200, "text/html", "<html>log in</html>"), "JSON object"),
        ((200, "application/json", "[]"), "JSON object"),
        ((200, "application/json", "{"), "something else"),
        ((200, "application/json", "{}"), "a dashboard"),
        ((302, "text/html", ""), "a redirect"),
    ],
)
def test_an_odd_answer_is_a_clear_error(server: State, token: Secret, broken: Any, said: str) -> None:
    server.broken = broken
    with pytest.raises(UnavailableError, match=said) as caught:
        grafana(server, token).provision(WANTED)
    assert "glsa_secret" not in str(caught.value)


def test_without_a_token_the_remedy_is_said(server: State) -> None:
    with pytest.raises(UnavailableError, match=r"401.*--token-file"):
        grafana(server, None).provision(WANTED)


def test_nobody_listening_is_a_clear_error(token: Secret) -> None:
    from mlobs.grafana.remote import Grafana

    with pytest.raises(UnavailableError, match="an answer, got ConnectionError"):
        Grafana("http://127.0.0.1:9", token).plan(WANTED)


@pytest.mark.parametrize(
    "url",
    [
        "", "grafana.example.com", "ftp://x", "http://", "https://x/?verify=false", "https://me:pw@x", "http://[::1",
        "https://x:port", "http://grafana.example.com",
    ],
)  # fmt: skip
def test_an_address_that_is_none_or_unsafe_is_refused(url: str, token: Secret) -> None:
    from mlobs.grafana.remote import Grafana

    with pytest.raises(UsageError, match="--url") as caught:
        Grafana(url, token)
    assert "pw" not in str(caught.value)


def test_a_missing_extra_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlobs.grafana.remote import Grafana

    monkeypatch.setitem(__import__("sys").modules, "grafana_client", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[grafana\]"):
        Grafana("http://127.0.0.1:3000", None)


def test_what_only_the_server_has_is_no_difference_and_what_it_lacks_is() -> None:
    assert (
        change({"uid": "u", "title": "t", "a": [1.0]}, {"uid": "u", "title": "t", "a": [1], "b": 2}).kind
        == "unchanged"
    )
    found = change(
        {"uid": "u", "title": "t", "a": [1, 2], "c": {"d": True}},
        {"uid": "u", "title": "t", "a": [1], "c": {"d": 1}},
    )
    assert [str(one) for one in found.differences] == ["+ a[1]: 2", "~ c.d: 1 -> true"]
    assert [
        str(one)
        for one in change(
            {"uid": "u", "title": "t", "a": []}, {"uid": "u", "title": "t", "a": [7]}
        ).differences
    ] == ["- a[0]: 7"]


# --- the commands -------------------------------------------------------------------------------------------

CONFIG = """
service: fraud-api
models: [{name: fraud}]
slo:
  objectives:
    - {name: up, model: fraud, sli: availability, objective: 99.9%, period: 30d}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mlobs.yaml"
    path.write_text(CONFIG)
    return path


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_write_leaves_one_file_and_says_where(config: Path, tmp_path: Path) -> None:
    done = run("write", "-c", config, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").iterdir()
    assert done.output.strip() == str(path)
    assert json.loads(path.read_text())["uid"] == "mlobs-fraud-api"


def test_write_into_a_file_is_a_clear_error(config: Path) -> None:
    done = run("write", "-c", config, "-o", config)
    assert isinstance(done.exception, MlobsError)
    assert done.exception.exit_code == 2


def test_diff_exits_1_until_provision_has_run(server: State, token: Secret, config: Path) -> None:
    common = ["--url", server.url, "-c", config, "--token-file", str(token.file)]
    first = run("diff", *common)
    assert (first.exit_code, first.output.splitlines()[0]) == (
        1,
        "create: fraud-api by mlobs (mlobs-fraud-api)",
    )
    assert run("provision", *common).output.startswith("created: ")
    assert run("diff", *common).exit_code == 0
    again = json.loads(run("provision", *common, "--json").output)
    assert (again["kind"], again["differences"]) == ("unchanged", [])


def test_the_token_may_come_from_the_environment(
    server: State, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOBS_GRAFANA_TOKEN", "glsa_secret")
    assert run("provision", "--url", server.url, "-c", config).exit_code == 0
