"""The pages over a store that the real stages filled: drift breaks, the engine alerts, the desk pages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.drift.tables import SCHEMA as DRIFT
from mlobs.notify.desk import Desk
from mlobs.notify.tables import SCHEMA as NOTIFY
from mlobs.records import FeatureRecord
from mlobs.service.enrichers import features
from mlobs.settings import (
    ChannelSettings,
    DriftSettings,
    ModelSettings,
    NotifySettings,
    ObjectiveSettings,
    Settings,
    SliSettings,
    SloSettings,
)
from mlobs.slo.engine import SloEngine
from mlobs.slo.schema import SCHEMA as SLO
from mlobs.store import Store, open_store
from mlobs.web.app import create_app
from mlobs.web.views import StoreViews, slice_name, zone_of
from tests.drift.traffic import DAY, ScriptedLog, day_table, records, reference_table
from tests.notify.desks import Told
from tests.slo.world import Service
from tests.web.figures import CALL

UP = ObjectiveSettings("up", SliSettings("availability"), Decimal("0.999"), model="m")
P99 = ObjectiveSettings("p99", SliSettings("p99", Decimal("0.1")), Decimal("0.99"), model="m")
DRIFTING = ObjectiveSettings("drift", SliSettings("drift"), Decimal("0.9"), model="m")
BAD_DAYS = range(4, 8)


class Bench:
    """All stages over one store, a day a tick."""

    def __init__(self, folder: Path) -> None:
        reference = build_reference(reference_table(), "ref", slicing=Slicing(day="day"))
        save_reference(reference, folder / "m.mlref")
        self.settings = Settings(
            "fraud-api",
            base=str(folder),
            models=(ModelSettings("m", "m.mlref", runbook="https://runbooks.example/m"),),
            targets=("http://fraud:8000/metrics",),
            drift=DriftSettings(window=DAY, min_rows=100),
            slo=SloSettings(objectives=(UP, P99, DRIFTING), slice=DAY),
            notify=NotifySettings(channels={"oncall": ChannelSettings("oncall", "webhook")}),
            clock="driven",
        )
        self.log, self.service, self.registry = ScriptedLog(), Service("m", 0.0), CollectorRegistry()
        self.store = open_store(f"sqlite:///{folder}/state.db", [DRIFT, SLO, NOTIFY])
        self.drift = DriftStage(self.settings, self.store, self.registry, self.log)
        self.slo = SloEngine(self.settings, self.store, self.registry, lambda url: self.service.text())
        told = {"oncall": Told()}
        self.desk = Desk(
            self.settings, self.store, told, [features(self.store)], rng=random.Random(7), inline=True
        )

    def tick(self, now: float) -> dict[str, Any]:
        day = round(now / DAY) - 1
        table = day_table(day)
        if day in BAD_DAYS:
            place = table.schema.names.index("temp")
            table = table.set_column(place, "temp", pc.multiply(pc.subtract(table["temp"], 32.0), 5 / 9))
        self.log.add("m", records(table, day * DAY))
        self.service.run(ok=1000, error=3 if day == 1 else 0)
        self.drift.tick(now)
        alerts = self.slo.tick(now)
        self.desk.receive(alerts, now)
        self.desk.pump(now)
        return {"now": now, "alerts": len(alerts)}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def ask(bench: Bench) -> Iterator[TestClient]:
    def find_call(key: str) -> FeatureRecord | None:
        return CALL if key == CALL.trace_id else None

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
    (pipeline,) = [p for p in ask.get("/api/pipelines").json()["pipelines"] if p["pipeline"] == "drift"]
    assert pipeline["balanced"]
    assert pipeline["offered"] == 800


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
