"""What may be POSTed, by whom, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlobs.notify import read
from mlobs.notify.api import OnCall
from mlobs.notify.receiver import Answer
from mlobs.secret import Secret
from mlobs.settings import AlertmanagerSettings, Settings
from tests.notify.desks import T0, Told, an_alert, make_desk, make_settings, make_store
from tests.notify.test_alertmanager import one, posted

JSON = {"content-type": "application/json; charset=utf-8"}
Post = Callable[..., Answer]


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    (tmp_path / "token").write_text("right")
    return Secret("notify.token_file", file=str(tmp_path / "token"))


def api(settings: Settings | None = None) -> tuple[Post, Any, Any]:
    store, settings = make_store(), settings or make_settings()
    desk = make_desk(Told(), store=store, settings=settings)
    oncall = OnCall(settings, store, desk)

    def post(path: str, body: object = None, headers: dict[str, str] = JSON, *, local: bool = True) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return oncall.answer(path, headers, raw, T0, local=local, wall=T0)

    return post, desk, store


def test_an_incident_is_acknowledged_and_resolved_over_http():
    post, desk, _ = api()
    (incident,) = desk.receive([an_alert()], T0)
    assert post(f"/api/incidents/{incident.id}/ack", {"by": "ada"}).text == f"{incident.id} is acknowledged"
    assert post(f"/api/incidents/{incident.id}/ack", {"by": "bob"}).status == 409
    assert post(f"/api/incidents/{incident.id}/resolve").text == f"{incident.id} is resolved"
    assert post("/api/incidents/none/resolve").status == 409


def test_ci_tells_of_a_deploy_and_the_next_page_suspects_it():
    post, desk, store = api()
    event = {"kind": "deploy", "text": "v2", "model": "fraud", "at": T0 - 60, "source": "ci"}
    assert post("/api/events", event).status == 200
    (incident,) = desk.receive([an_alert()], T0)
    story = read.incident(store, make_settings(), incident.id)
    assert story is not None
    assert story.page.change is not None
    assert story.page.change.text == "v2"


def test_a_silence_mutes():
    post, desk, _ = api()
    assert post("/api/silences", {"match": {"model": "fraud"}, "seconds": 60, "by": "ada"}).status == 200
    (incident,) = desk.receive([an_alert()], T0)
    assert incident.muted.startswith("silenced by ada")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/events", {"kind": "deplox", "text": "x"}, 400),
        ("/api/events", {"kind": "deploy"}, 400),
        ("/api/events", {"kind": "deploy", "text": "x", "extra": 1}, 400),
        ("/api/events", b"{", 400),
        ("/api/events", b"\xff", 400),
        ("/api/events", b'{"kind": "deploy", "text": "x", "at": NaN}', 400),
        ("/api/silences", {"match": {}, "seconds": 60, "by": "a"}, 400),
        ("/api/silences", {"match": {"modell": "x"}, "seconds": 60, "by": "a"}, 400),
        ("/api/silences", {"match": {"model": "x"}, "seconds": 1e9, "by": "a"}, 400),
        ("/api/incidents/x/delete", {}, 404),
        ("/api/alertmanager", {}, 404),
        ("/api/slack", {}, 404),
        ("/api/events", b" " * 70_000, 413),
    ],
)
def test_what_cannot_be_meant_is_refused(path, body, status):
    assert api()[0](path, body).status == status


def test_only_this_machine_or_a_bearer_of_the_token_may_act(secret: Secret):
    event = {"kind": "note", "text": "x"}
    post, _, _ = api()
    assert post("/api/events", event, local=False).status == 401
    assert post("/api/events", event, {"content-type": "text/plain"}).status == 415
    settings = make_settings()
    post, _, _ = api(replace(settings, notify=replace(settings.notify, token=secret)))
    assert post("/api/events", event).status == 401, "once there is a token everybody needs it"
    assert post("/api/events", event, {**JSON, "authorization": "Bearer wrong"}).status == 401
    assert post("/api/events", event, {**JSON, "authorization": "Bearer right"}, local=False).status == 200


def test_alertmanager_is_heard_only_where_prometheus_evaluates(secret: Secret):
    settings = make_settings(alertmanager=AlertmanagerSettings(token=secret))
    bearer = {**JSON, "authorization": "Bearer right"}
    assert api(settings)[0]("/api/alertmanager", posted(one()), bearer).status == 404
    settings = replace(settings, slo=replace(settings.slo, evaluator="prometheus"))
    assert api(settings)[0]("/api/alertmanager", posted(one()), bearer, local=False).status == 200
