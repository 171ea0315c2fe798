"""Paging's POSTs on the real app, as a client sends them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from mlobs.drift.tables import SCHEMA as DRIFT
from mlobs.notify.api import OnCall
from mlobs.notify.tables import SCHEMA as NOTIFY
from mlobs.service.paging import mount
from mlobs.slo.schema import SCHEMA as SLO
from mlobs.store import open_store
from mlobs.web.app import create_app
from tests.notify.desks import T0, Told, an_alert, make_desk, make_settings


@pytest.fixture
def client(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path / 'state.db'}", [DRIFT, SLO, NOTIFY])
    settings = make_settings()
    desk = make_desk(Told(), store=store, settings=settings)
    app = create_app(settings, store, CollectorRegistry(), lambda now: {})
    mount(app, OnCall(settings, store, desk), lambda: T0)
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5)) as client:
        client.desk = desk
        yield client
    store.close()


def test_an_incident_is_acknowledged_over_http_and_shown_so(client):
    (incident,) = client.desk.receive([an_alert()], T0)
    answer = client.post(f"/api/incidents/{incident.id}/ack", json={"by": "ada"})
    assert (answer.status_code, answer.json()) == (200, {"done": f"{incident.id} is acknowledged"})
    assert client.get(f"/api/incidents/{incident.id}").json()["acknowledged_by"] == "ada"
    assert client.post(f"/api/incidents/{incident.id}/ack", json={"by": "bob"}).status_code == 409


def test_a_request_through_a_proxy_is_not_local(client):
    event = {"kind": "deploy", "text": "v2"}
    assert client.post("/api/events", json=event).status_code == 200
    assert client.post("/api/events", json=event, headers={"X-Forwarded-For": "9.9.9.9"}).status_code == 401


def test_a_form_of_a_foreign_page_is_refused(client):
    assert client.post("/api/events", data={"kind": "deploy"}).status_code == 415
    assert client.get("/api/events").status_code == 405
