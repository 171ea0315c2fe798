"""The pages over a store that the real stages filled: drift breaks, the engine alerts, the desk pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mlobs.records import FeatureRecord
from mlobs.secret import without_password
from mlobs.settings import DriftSettings, Settings, SloSettings
from mlobs.store import Store
from mlobs.web.app import create_app
from mlobs.web.views import StoreViews, slice_name, zone_of
from tests.drift.traffic import DAY
from tests.web.bench import Bench
from tests.web.figures import CALL


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def ask(bench: Bench) -> Iterator[TestClient]:
    def find_call(key: str, at: float | None) -> FeatureRecord | None:
        return CALL if key == CALL.trace_id and at in (None, 1.5) else None

    app = create_app(bench.settings, bench.store, bench.registry, bench.tick, find_call=find_call)
    with TestClient(app, base_url="http://127.0.0.1:9464", client=("127.0.0.1", 1)) as made:
        yield made


def drive(ask: TestClient, days: range) -> None:
    for day in days:
        answer = ask.post("/api/tick", json={"now": (day + 1) * DAY})
        assert answer.status_code == 200, answer.text


def test_before_the_first_tick_everything_is_absent_and_nothing_fails(ask: TestClient) -> None:
    assert ask.get("/api/status").json()["now"] is None
    slos = ask.get("/api/slos").json()["slos"]
    assert [(slo["name"], slo["state"], slo["remaining"]) for slo in slos] == [
        ("up", "absent", None), ("p99", "absent", None), ("drift", "absent", None),
    ]  # fmt: skip
    for path in ("/", "/drift", "/incidents", "/slos/up"):
        assert ask.get(path).status_code == 200, path


def test_drift_becomes_an_incident_that_the_page_tells_from_cause_to_page(ask: TestClient) -> None:
    drive(ask, range(7))
    status = ask.get("/api/status").json()
    assert (status["now"], status["incidents_open"]) == (7 * DAY, 1)
    (incident,) = ask.get("/api/incidents?state=open").json()["incidents"]
    assert "temp" in incident["title"]
    whole = ask.get(f"/api/incidents/{incident['id']}").json()
    assert whole["features"] == ["temp"]
    assert whole["runbook"] == "https://runbooks.example/m"
    assert {(page["channel"], page["state"]) for page in whole["pages"]} == {("oncall", "sent")}
    assert whole["pages"][0]["kind"] == "firing"
    assert "temp" in whole["pages"][-1]["text"]
    assert whole["timeline"]
    page = ask.get(f"/incidents/{incident['id']}").text
    assert "below the training minimum" in page
    overview = ask.get("/").text
    assert incident["title"] in overview.replace("&#39;", "'")
    assert "1 incident open" in overview


def test_the_heat_map_shows_the_broken_days_and_the_feature_first(ask: TestClient) -> None:
    drive(ask, range(7))
    (view,) = ask.get("/api/drift").json()["drift"]
    cells = {row["feature"]: row["cells"] for row in view["rows"]}
    assert [cell["verdict"] for cell in cells["temp"]] == ["ok"] * 4 + ["drifted"] * 3
    assert cells["temp"][4]["statistic"].startswith("check:")
    assert cells["temp"][4]["value"] > cells["temp"][4]["threshold"]
    assert {cell["verdict"] for cell in cells["amount"]} == {"ok"}
    assert (view["reference"], view["version"]) == ("ref", "v1")
    page = ask.get("/drift").text
    assert page.index(">whole window<") < page.index(">temp<") < page.index(">amount<")


def test_objectives_are_told_in_days_with_their_tiers_and_history(ask: TestClient) -> None:
    drive(ask, range(7))
    up, p99, drift = ask.get("/api/slos").json()["slos"]
    assert (up["bad"], up["unit"], p99["unit"], drift["unit"]) == (3.0, "requests", "days", "days")
    assert (drift["bad"], drift["total"]) == (3.0, 7.0)
    assert [tier["factor"] for tier in up["burn"]] == [14.4, 6.0, 3.0, 1.0]
    assert up["history"]
    assert "14×" in ask.get("/slos/up").text or "14.4" in ask.get("/slos/up").text


def test_a_healed_incident_is_past_and_keeps_its_story(ask: TestClient) -> None:
    drive(ask, range(14))
    assert ask.get("/api/incidents?state=open").json() == {"incidents": []}
    (incident,) = ask.get("/api/incidents?state=resolved").json()["incidents"]
    assert incident["ended"] > incident["since"]
    page = ask.get(f"/incidents/{incident['id']}").text
    assert "Healed" in page
    kinds = [page["kind"] for page in ask.get(f"/api/incidents/{incident['id']}").json()["pages"]]
    assert kinds[0] == "firing"
    assert kinds[-1] == "resolved"


def test_kept_calls_and_pipelines_are_found(ask: TestClient) -> None:
    drive(ask, range(2))
    assert ask.get(f"/calls/{CALL.trace_id}").status_code == 200
    assert ask.get("/calls/unknown").status_code == 404
    for path in (f"/calls/{CALL.trace_id}", f"/api/calls/{CALL.trace_id}"):
        for at, code in (("1.5", 200), ("2", 404), ("x", 200), ("nan", 200), ("-1e300", 200)):
            assert ask.get(path, params={"at": at}).status_code == code, (path, at)
    assert "within an hour of 2:" in ask.get(f"/calls/{CALL.trace_id}?at=2").text
    (pipeline,) = [p for p in ask.get("/api/pipelines").json()["pipelines"] if p["pipeline"] == "drift"]
    assert pipeline["balanced"]
    assert pipeline["offered"] == 800


def test_a_target_is_shown_with_its_state_and_without_its_password(bench: Bench, ask: TestClient) -> None:
    drive(ask, range(2))
    assert ask.get("/api/targets").json()["targets"] == [
        {"name": "http://fraud:8000/metrics", "up": True, "seen": 2 * DAY, "error": ""}
    ]
    assert without_password("https://me:secret@host:1/metrics") == "https://host:1/metrics"
    assert without_password("host:1") == "host:1"


def test_slices_and_zones_have_names() -> None:
    assert [slice_name(length) for length in (60.0, 3600.0, DAY, 900.0)] == [
        "minutes",
        "hours",
        "days",
        "slices of 15m",
    ]
    assert zone_of(Settings("x", drift=DriftSettings(zone="Asia/Tokyo"))) == "Asia/Tokyo"
    assert zone_of(Settings("x", slo=SloSettings(zone="Europe/Berlin"))) == "Europe/Berlin"


def test_a_later_tick_than_the_last_evaluation_is_told(bench: Bench) -> None:
    views = StoreViews(bench.settings, bench.store, bench.registry, now=lambda: 12345.0)
    assert views.status().now == 12345.0
    store: Store = bench.store
    assert StoreViews(bench.settings, store, bench.registry).status().now is None
