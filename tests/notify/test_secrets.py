"""One contract for every channel: planted secrets appear nowhere but on the wire."""

from __future__ import annotations

import base64
import binascii
import http.client
import logging
import re
import smtplib
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import AbstractHTTPHandler

import pytest
from aiosmtpd.smtp import AuthResult
from prometheus_client import CollectorRegistry, generate_latest

from mlobs.config import parse_settings
from mlobs.errors import MlobsError
from mlobs.notify import read
from mlobs.notify.channels import build_channels
from mlobs.notify.desk import Desk
from mlobs.notify.page import encode
from mlobs.notify.tables import SCHEMA
from mlobs.settings import Settings
from mlobs.store import open_store
from tests.notify.desks import T0, an_alert, ceased
from tests.notify.stubs import Fault, PagerDuty, Slack, receiver, serving, too_many
from tests.notify.test_mail import Mailbox, OnKernelPort

FAULTS = [
    too_many("1"),
    Fault(500),
    Fault(reset=True),
    Fault(302, (("Location", "http://127.0.0.1:9/elsewhere"),)),
    Fault(401),
    Fault(answer={"ok": False, "error": "invalid_auth"}),
    Fault(answer={"ok": False, "error": "no_text"}),
    Fault(accept=True, hang=1.5),
]


@dataclass
class Planted:
    """One channel's part of the file, the secrets in it, and what counts on the wire."""

    yaml: str
    secrets: dict[str, str]
    arrived: Callable[[], bytes]
    fail: Callable[[Fault], None]


def slack(stack: ExitStack) -> Planted:
    stub = Slack()
    stack.enter_context(serving(stub.stub))
    return Planted(
        "slack: {channel: '#oncall', token_file: one, signing_secret_file: two,"
        f" base_url: '{stub.stub.url}'}}",
        {"one": "xoxb-right", "two": "PLANTED-signing"},
        lambda: b"".join(one.headers["authorization"].encode() for one in stub.stub.requests),
        stub.stub.fail,
    )


def pagerduty(stack: ExitStack) -> Planted:
    stub = PagerDuty()
    stack.enter_context(serving(stub.stub))
    return Planted(
        "pagerduty: {routing_key_file: one, allow_http: true, allow_private: true, timeout: 1,"
        f" base_url: '{stub.stub.url}'}}",
        {"one": "r" * 32},
        lambda: b"".join(one.body for one in stub.stub.requests),
        stub.stub.fail,
    )


def webhook(stack: ExitStack) -> Planted:
    stub = stack.enter_context(serving(receiver()))
    return Planted(
        "webhook: {url_file: one, signing_key_file: two, allow_http: true, allow_private: true, timeout: 1}",
        {"one": f"{stub.url}/PLANTED-path", "two": "PLANTED-key"},
        lambda: b"".join(one.path.encode() for one in stub.requests),
        stub.fail,
    )


def email(stack: ExitStack) -> Planted:
    seen: list[bytes] = []

    def check(server, session, envelope, mechanism, data):
        seen.append(data.password)
        return AuthResult(success=True)

    controller = OnKernelPort(
        Mailbox(), hostname="127.0.0.1", port=0, authenticator=check, auth_require_tls=False
    )
    controller.start()
    stack.callback(controller.stop)
    answers = iter(["451 later", "550 no", ""])

    def fail(fault: Fault) -> None:
        controller.handler.answer = next(answers, "")

    return Planted(
        "email: {to: a@b.example, host: 127.0.0.1, tls: none, user: u, password_file: one,"
        f" port: {controller.port}}}",
        {"one": "PLANTED-password"},
        lambda: b"".join(seen),
        fail,
    )


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every logger there is at DEBUG, those of other libraries too."""
    names = [name for name in logging.root.manager.loggerDict if not name.startswith("asyncio")]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def print_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator may turn on for a whole process: the standard library prints headers and logins."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    monkeypatch.setattr(AbstractHTTPHandler.__init__, "__defaults__", (1,))  # as from Python 3.12 on
    monkeypatch.setattr(smtplib.SMTP, "debuglevel", 2)


@pytest.mark.parametrize("plant", [slack, pagerduty, webhook, email])
def test_planted_secrets_show_nowhere(plant, tmp_path, everything_logged, capfd, monkeypatch):
    print_everything(monkeypatch)
    with ExitStack() as stack:
        planted = plant(stack)
        for name, value in planted.secrets.items():
            (tmp_path / name).write_text(value)
        text = f"service: s\nnotify: {{hold: 1s, channels: {{it: {{{planted.yaml}}}}}}}\n"
        settings = parse_settings(text, tmp_path)
        shown = use(settings, planted, tmp_path)
        (tmp_path / "one").unlink()  # and when it is missing
        shown += use(settings, planted, tmp_path)
        wire = planted.arrived()
    shown.append(everything_logged.text)
    shown += capfd.readouterr()
    shown += [path.read_bytes().decode("latin-1") for path in tmp_path.glob("state.db*")]
    shown += [decoded(one) for one in shown]
    for name, secret in planted.secrets.items():
        needle = "PLANTED" if "PLANTED" in secret else secret
        for number, one in enumerate(shown):
            assert needle not in one, f"{name} shows in place {number}"
    assert any(secret.rpartition("/")[2].encode() in wire for secret in planted.secrets.values()), (
        "it was used"
    )


def decoded(text: str) -> str:
    """What stands in base64 in the text: logins are written so."""
    found = []
    for word in re.findall(r"[A-Za-z0-9+/]{8,}={0,2}", text):
        try:
            found.append(base64.b64decode(word + "=" * (-len(word) % 4)).decode("latin-1"))
        except binascii.Error:
            continue
    return " ".join(found)


def use(settings: Settings, planted: Planted, folder: Path) -> list[str]:
    """Pages through every fault; everything that can be seen from outside."""
    shown = [repr(settings), str(settings), encode(settings.notify)]
    store = open_store(f"sqlite:///{folder / 'state.db'}", [SCHEMA])
    channels = build_channels(settings.notify)
    registry = CollectorRegistry()
    desk = Desk(settings, store, channels, inline=True, registry=registry)
    now = T0
    for number, fault in enumerate([*FAULTS, None]):
        if fault is not None:
            planted.fail(fault)
        alert = an_alert(model=f"m{number}")
        desk.receive([alert], now, complete=False)
        shown.append(repr(desk.pump(now)))
        desk.receive([ceased(alert, now)], now, complete=False)
        now += 400
        shown.append(repr(desk.pump(now)))
    for channel in channels.values():
        shown += [repr(channel), repr(vars(channel))]
        try:
            channel.send(None)  # type: ignore[arg-type]
        except (MlobsError, Exception) as problem:
            shown.append("".join(traceback.format_exception(problem)))
    shown.append(generate_latest(registry).decode())
    shown.append(repr([read.pages(store, sent_only=False), read.incidents(store, settings)]))
    store.close()
    return shown


def test_a_secret_that_stands_in_the_file_is_refused_without_being_shown():
    text = "service: s\nnotify: {channels: {it: {slack: {channel: '#x', token: xoxb-PLANTED}}}}\n"
    with pytest.raises(MlobsError) as caught:
        parse_settings(text)
    assert "PLANTED" not in str(caught.value)
    assert "token_file" in str(caught.value)
