"""Canaries in `mlobs serve`: the verdict for Argo Rollouts and Flagger, as metrics, and to a webhook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mlobs.config import parse_settings
from mlobs.errors import ConfigError
from mlobs.service.canaries import Canaries, mount
from mlobs.slo import canary_keep
from mlobs.store import open_store
from tests.slo.test_canary_feed import exposed

START = 1_700_000_000.0
SETTINGS = """
service: fraud-api
targets: ["http://a/metrics"]
slo:
  canaries:
    - {name: good, model: fraud, baseline: v1, candidate: v2, webhook: "https://hooks.example/canary"}
    - {name: bad, model: fraud, baseline: v1, candidate: v3, targets: ["http://b/metrics"]}
"""


class World:
    """Two services behind /metrics; of the second the candidate fails."""

    def __init__(self, tmp_path: Path) -> None:
        self.now = START
        self.posted: list[tuple[str, str]] = []
        self.deaf = False
        self.store = open_store(f"sqlite:///{tmp_path}/mlobs.db", [canary_keep.SCHEMA])
        self.folder = tmp_path
        self.begin(SETTINGS)

    def begin(self, settings: str) -> None:
        """As a server that is started (anew) with these settings."""
        self.registry = CollectorRegistry()
        self.canaries = Canaries(
            parse_settings(settings, self.folder), self.store, self.fetch, self.registry, self.post
        )
        app = Starlette()
        mount(app, self.canaries)
        self.client = TestClient(app)

    def fetch(self, url: str) -> bytes:
        count = int(self.now - START) * 100
        candidate, errors = ("v2", 0) if url == "http://a/metrics" else ("v3", count // 50)
        return exposed({"v1": (count, 0), candidate: (count, errors)}).encode()

    def post(self, url: str, body: dict[str, Any]) -> None:
        if self.deaf:
            raise ConnectionError("refused")
        json.dumps(body, allow_nan=False)
        self.posted.append((url, body["verdict"]))

    def run(self, blocks: int) -> None:
        for _ in range(blocks):
            self.now += 10
            self.canaries.tick(self.now)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.canaries.stop()
    made.store.close()


def test_each_canarys_verdict_is_served_as_json_that_a_json_path_can_read(world: World) -> None:
    world.run(41)
    answer = world.client.get("/api/canary/good")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["verdict"], found["candidate"], found["problems"]) == ("promote", "v2", {})
    assert world.client.get("/api/canary/bad").json()["verdict"] == "rollback"
    listed = world.client.get("/api/canary").json()["canaries"]
    assert [one["name"] for one in listed] == ["good", "bad"]
    missing = world.client.get("/api/canary/god")
    assert (missing.status_code, "did you mean 'good'" in missing.json()["error"]) == (404, True)


def test_flaggers_gates_open_for_their_verdict_alone(world: World) -> None:
    world.run(41)
    for name, opened in (("good", "promote"), ("bad", "rollback")):
        for gate in ("promote", "rollback"):
            answer = world.client.post(f"/api/canary/{name}/gate/{gate}", json={"name": "x"})
            assert answer.status_code == (200 if gate == opened else 403)
    assert world.client.get("/api/canary/good/gate/open").status_code == 404


def test_the_verdicts_are_metrics_told_apart_by_canary(world: World) -> None:
    world.run(41)
    labels = {"canary": "bad", "model": "fraud", "result": "rollback"}
    assert world.registry.get_sample_value("mlobs_canary_verdict", labels) == 1
    assert world.registry.get_sample_value("mlobs_canary_verdict", labels | {"canary": "good"}) == 0
    shown = generate_latest(world.registry).decode()
    assert 'mlobs_canary_e_value{canary="bad",metric="errors",model="fraud"}' in shown


def test_the_webhook_hears_each_change_once_and_one_that_was_deaf_hears_it_later(world: World) -> None:
    world.run(2)
    world.deaf = True
    world.run(45)
    world.deaf = False
    world.run(3)
    assert world.posted == [("https://hooks.example/canary", one) for one in ("hold", "promote")]


def test_a_target_that_is_gone_holds_and_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(41)

    def refused(_self: object, _url: str) -> bytes:
        raise ConnectionError("connection refused")

    for trial in world.canaries._trials.values():
        monkeypatch.setattr(trial.scraper, "_fetch", lambda url: refused(None, url))
    world.run(6)
    found = world.client.get("/api/canary/good").json()
    assert found["verdict"] == "hold"
    assert "connection refused" in found["problems"]["http://a/metrics"]
    assert world.client.get("/api/canary/bad").json()["verdict"] == "rollback"  # once found it stays


def test_a_server_that_is_started_anew_goes_on_with_what_was_seen(world: World) -> None:
    world.run(41)
    evidence = {name: world.client.get(f"/api/canary/{name}").json()["evidence"] for name in ("good", "bad")}
    world.now += 300
    world.begin(SETTINGS)
    rolled, good = (world.client.get(f"/api/canary/{name}").json() for name in ("bad", "good"))
    assert (rolled["verdict"], rolled["evidence"]) == ("rollback", evidence["bad"])
    assert (good["verdict"], good["evidence"]) == ("hold", evidence["good"])  # its data are old
    world.run(2)
    assert world.client.get("/api/canary/good").json()["verdict"] == "promote"
    assert world.client.get("/api/canary/good").json()["blocks"] == 41


@pytest.mark.parametrize(
    "between",
    ["service: a\n", SETTINGS.replace("v3", "v4"), SETTINGS.replace("name: bad", "name: other")],
    ids=["taken out of the file", "another candidate", "another name"],
)
def test_a_canary_that_was_another_begins_anew(world: World, between: str) -> None:
    world.run(12)
    assert world.client.get("/api/canary/bad").json()["verdict"] == "rollback"
    world.begin(between)
    world.run(2)
    world.begin(SETTINGS)
    assert world.client.get("/api/canary/bad").json()["verdict"] == "hold"


def test_a_store_that_takes_nothing_keeps_no_verdict_back(world: World) -> None:
    world.run(1)
    with world.store.write() as connection:
        connection.execute(text("DROP TABLE canary_state"))
    world.run(40)
    assert world.client.get("/api/canary/bad").json()["verdict"] == "rollback"


def test_ticks_that_come_too_early_are_no_blocks(world: World) -> None:
    for _ in range(10):
        world.now += 1
        world.canaries.tick(world.now)
    assert world.client.get("/api/canary/good").json()["blocks"] <= 1


@pytest.mark.parametrize(
    ("canary", "advice"),
    [
        ("{name: a, model: m, baseline: v1, candidate: v1}", "two versions"),
        ("{name: a, model: m, baseline: v1}", "slo.canaries[0].candidate"),
        ("{name: a/b, model: m, baseline: v1, candidate: v2}", "slo.canaries[0].name"),
        ("{name: a, model: m, baseline: v1, candidate: v2, webhook: ftp://x}", "slo.canaries[0].webhook"),
        ("{name: a, model: m, baseline: v1, candidate: v2, webhook: 'https://me:pw@x/'}", "webhook"),
    ],
)
def test_a_canary_that_makes_no_sense_is_refused(canary: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(f"service: a\nslo: {{canaries: [{canary}]}}\n")
    assert advice in str(caught.value)
