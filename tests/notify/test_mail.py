"""E-mail against a real SMTP server in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from mlobs.errors import ConfigError
from mlobs.notify.channels.mail import EmailChannel
from mlobs.notify.page import FeatureFinding, PageParts
from mlobs.notify.retry import Reason
from tests.notify.desks import T0, an_alert, make_desk
from tests.notify.test_slack import a_message


class Mailbox:
    """Keeps letters; `answer` in place of 250 when it is set."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.answer = ""
        self.refuses = ""

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.answer:
            return self.answer
        self.letters.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


class OnKernelPort(Controller):
    """On a port that the kernel chose: the base class wants to connect to the port it was given."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def server() -> Iterator[OnKernelPort]:
    controller = OnKernelPort(Mailbox(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


def channel_to(server: OnKernelPort, to: str = "ada@ops.example, bob@ops.example") -> EmailChannel:
    return EmailChannel(
        "mail", to, "127.0.0.1", port=server.port, tls="none", sender="mlobs@ops.example", timeout=5
    )


def test_a_page_is_a_letter_whose_repetition_has_the_same_id(server):
    channel = channel_to(server)
    assert channel.send(a_message(feature="temp")).sent
    assert channel.send(a_message(feature="temp")).sent
    first, second = server.handler.letters
    assert first["Subject"].strip().startswith("PAGE fraud: latency")
    assert first["To"] == "ada@ops.example, bob@ops.example"
    assert first["Message-ID"] == second["Message-ID"] == "<mlobs-abc.1@ops.example>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert "What burns" in first.get_content()


def test_names_cannot_write_headers(server):
    evil = "x\r\nBcc: eve@evil.example\r\n\r\nhello"
    assert channel_to(server).send(a_message(feature=evil, model=evil, cause=evil)).sent
    (letter,) = server.handler.letters
    assert letter["Bcc"] is None
    assert "\n" not in letter["Subject"]


@pytest.mark.parametrize(
    ("answer", "reason", "retry"),
    [
        ("451 later", Reason.RATE_LIMITED, True),
        ("454 ill", Reason.SERVER_ERROR, True),
        ("552 too big", Reason.TOO_LARGE, False),
        ("554 no", Reason.REJECTED, False),
    ],
)
def test_the_server_s_answer_decides_on_the_retry(server, answer, reason, retry):
    server.handler.answer = answer
    outcome = channel_to(server).send(a_message())
    assert (outcome.sent, outcome.reason, outcome.retry) == (False, reason, retry)


def test_one_refused_address_of_two_is_delivered_and_said(server):
    server.handler.refuses = "bob@ops.example"
    outcome = channel_to(server).send(a_message())
    assert (outcome.sent, outcome.detail) == (True, "1 of 2 addresses were refused")
    outcome = channel_to(server, "bob@ops.example").send(a_message())
    assert (outcome.sent, outcome.reason, outcome.retry) == (False, Reason.REJECTED, False)


def test_a_server_that_is_not_there_is_tried_again():
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        channel = EmailChannel(
            "mail", "ada@ops.example", "127.0.0.1", port=taken.getsockname()[1], tls="none"
        )
        outcome = channel.send(a_message())
    assert (outcome.reason, outcome.retry, outcome.uncertain) == (Reason.CONNECTION, True, False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tls": "none", "host": "mail.example"}, "do not travel in clear"),
        ({"tls": "ssl"}, "starttls, tls or none"),
        ({"to": "ada"}, "addresses like"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, told):
    given = {"to": "ada@ops.example", "host": "127.0.0.1"} | options
    with pytest.raises(ConfigError, match=told):
        EmailChannel("mail", given.pop("to"), given.pop("host"), **given)


def test_what_is_found_later_follows_in_the_same_thread_and_says_what_is_new(server):
    held = threading.Event()

    def slow(incident):
        held.wait(10)
        return PageParts(features=(FeatureFinding("temp", cause="values below the training minimum"),))

    desk = make_desk(channel_to(server), enrichers=[slow])
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    held.set()
    desk.pump(T0 + 1)
    for second in (2, 3, 4):  # alerts that join one by one are one letter, and not before its time
        desk.receive([an_alert(), *(an_alert(f"x{n}") for n in range(second))], T0 + second)
        desk.pump(T0 + second)
    desk.pump(T0 + 100)
    assert len(server.handler.letters) == 2
    desk.pump(T0 + 125)
    first, found, joined = server.handler.letters
    assert "temp" not in first["Subject"]
    assert first["In-Reply-To"] is None
    assert found["Subject"] == "UPDATE fraud: temp: values below the training minimum"
    assert found.get_content().splitlines()[0] == "New: temp: values below the training minimum"
    for later in (found, joined):
        assert later["In-Reply-To"] == first["Message-ID"]
        assert later["References"].split() == [f"<mlobs-{incident.id}@ops.example>", first["Message-ID"]]
    assert joined["Subject"].startswith("UPDATE fraud: fraud-x0 fires: x0; fraud-x1 fires: x1; ")
    desk.acknowledge(incident.id, "ada", T0 + 130)
    desk.resolve(incident.id, "ada", T0 + 131)  # takes the update away that waits
    desk.pump(T0 + 131)
    assert server.handler.letters[3]["Subject"].startswith("RESOLVED fraud")
    assert len(server.handler.letters) == 4


class Dripping(Mailbox):
    """Greets, and then answers a letter a byte at a time."""

    async def handle_MAIL(self, server, session, envelope, address, options):
        for _ in range(40):
            server.transport.write(b"2")
            await asyncio.sleep(0.1)
        return "250 OK"


def test_a_server_that_drips_holds_the_channel_no_longer_than_its_turns():
    controller = OnKernelPort(Dripping(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        channel = EmailChannel(
            "mail", "ada@ops.example", "127.0.0.1", port=controller.port, tls="none", timeout=0.5
        )
        began = time.monotonic()
        outcome = channel.send(a_message())
    finally:
        controller.stop()
    assert time.monotonic() - began < 3.5  # the whole drip takes four seconds
    assert (outcome.sent, outcome.reason, outcome.retry) == (False, Reason.TIMEOUT, True)


class Rude(Mailbox):
    async def handle_QUIT(self, server, session, envelope):
        return "421 out of here"


def test_a_letter_that_was_taken_is_not_repeated_for_a_goodbye_that_went_wrong():
    controller = OnKernelPort(Rude(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        assert channel_to(controller).send(a_message()).sent
    finally:
        controller.stop()


def test_an_answer_that_is_none_is_no_refusal(server):
    server.handler.answer = "299 what"
    outcome = channel_to(server).send(a_message())
    assert (outcome.reason, outcome.retry, outcome.uncertain) == (Reason.MALFORMED_ANSWER, True, True)
