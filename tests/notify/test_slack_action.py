"""Slack's button, and the dead man's handle."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from mlobs.notify.heartbeat import Heartbeat
from mlobs.notify.http import Addresses
from mlobs.notify.slack_action import act
from mlobs.secret import Secret
from mlobs.settings import HeartbeatSettings
from tests.notify.desks import T0, Told, an_alert, make_desk
from tests.notify.stubs import Fault, receiver, serving


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    (tmp_path / "secret").write_text("shh")
    return Secret("notify.channels.oncall.slack.signing_secret_file", file=str(tmp_path / "secret"))


def pressed(incident: str, action: str = "mlobs_acknowledge") -> bytes:
    payload = {
        "type": "block_actions",
        "user": {"id": "U1", "name": "ada"},
        "actions": [{"action_id": action, "value": incident}],
    }
    return urlencode({"payload": json.dumps(payload)}).encode()


def signed(body: bytes, at: float = T0, key: bytes = b"shh") -> dict[str, str]:
    stamp = str(int(at))
    mac = hmac.new(key, b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-slack-request-timestamp": stamp, "x-slack-signature": f"v0={mac}"}


def test_the_button_acknowledges_once_in_the_name_of_who_pressed_it(secret: Secret):
    channel = Told()
    desk = make_desk(channel)
    (incident,) = desk.receive([an_alert()], T0)
    body = pressed(incident.id)
    assert act(body, signed(body), secret, desk, T0, T0).text == f"{incident.id} is acknowledged"
    assert act(body, signed(body), secret, desk, T0, T0).text == f"{incident.id} is not open"
    desk.pump(T0)
    assert channel.got[-1].page.acknowledged_by == "ada (Slack)"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(pressed("x"), key=b"wrong"),
        signed(pressed("y")),
        signed(pressed("x"), at=T0 - 301),
        signed(pressed("x"), at=T0 + 301),
        {**signed(pressed("x")), "x-slack-signature": "v0=\udcff"},
        {**signed(pressed("x")), "x-slack-request-timestamp": "now"},
        {**signed(pressed("x")), "x-slack-request-timestamp": "١٢٣"},
    ],
)
def test_what_slack_did_not_sign_now_is_refused(headers, secret):
    assert act(pressed("x"), headers, secret, make_desk(Told()), T0, T0).status == 401


@pytest.mark.parametrize(
    "body", [b"", b"payload=", b"payload=[]", b"payload={}", b"\xff", pressed("x", "other")]
)
def test_other_interactions_do_nothing(body, secret):
    assert act(body, signed(body), secret, make_desk(Told()), T0, T0).status == 200


def test_the_heart_beats_while_evaluations_are_written_and_at_its_own_pace():
    with serving(receiver()) as outside:
        heart = Heartbeat(HeartbeatSettings(outside.url, every=60.0), Addresses(True, True))
        began = []
        for seconds in range(0, 180, 30):
            began.append(heart.beat(T0 + seconds))
            heart.wait(5)
    assert began == [True, False, True, False, True, False]
    assert len(outside.requests) == 3


def test_a_heart_that_is_not_heard_counts_and_raises_nothing(caplog: pytest.LogCaptureFixture):
    with serving(receiver()) as outside:
        outside.fail(Fault(500), Fault(reset=True))
        heart = Heartbeat(HeartbeatSettings(outside.url + "/token-in-here", every=1.0), Addresses(True, True))
        for seconds in range(2):
            heart.beat(T0 + seconds)
            heart.wait(5)
        assert heart.failures == 2
        heart.beat(T0 + 5)
        heart.wait(5)
    assert heart.failures == 0
    assert "token-in-here" not in caplog.text
