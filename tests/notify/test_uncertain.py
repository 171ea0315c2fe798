"""Accepted, and the answer lost: what every channel does then. At most one repetition, under the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlobs.config import parse_settings
from mlobs.notify import read
from mlobs.notify.channels import build_channels
from mlobs.notify.channels.base import Channel
from mlobs.notify.desk import Desk
from tests.notify.desks import T0, an_alert, make_store
from tests.notify.stubs import Fault, PagerDuty, Slack, Stub, receiver, serving
from tests.notify.test_mail import Mailbox, OnKernelPort

HERE = "allow_http: true, allow_private: true, timeout: 1"


@dataclass
class World:
    """A channel's part of the file; the next attempt's answer is lost; what people and the wire have."""

    yaml: str
    lose: Callable[[Fault], None]
    keys: Callable[[], list[str]]
    """Of each message that was accepted, what makes a repetition known as one."""
    shown: Callable[[], int]
    """How often people are told."""


def slack(stack: ExitStack, folder: Path) -> World:
    stub = Slack()
    stack.enter_context(serving(stub.stub))
    (folder / "secret").write_text("xoxb-right")
    return World(
        f"slack: {{channel: '#oncall', token_file: secret, base_url: '{stub.stub.url}'}}",
        stub.stub.fail,
        lambda: [one["metadata"]["event_payload"]["dedup_key"] for one in stub.shown],
        lambda: len(stub.told),
    )


def pagerduty(stack: ExitStack, folder: Path) -> World:
    stub = PagerDuty()
    stack.enter_context(serving(stub.stub))
    (folder / "secret").write_text("r" * 32)
    return World(
        f"pagerduty: {{routing_key_file: secret, base_url: '{stub.stub.url}', {HERE}}}",
        stub.stub.fail,
        lambda: [one.fields["dedup_key"] for one in stub.stub.requests],
        lambda: stub.triggered,
    )


def webhook(stack: ExitStack, folder: Path) -> World:
    hook: Stub = stack.enter_context(serving(receiver()))
    return World(
        f"webhook: {{url: '{hook.url}', {HERE}}}",
        hook.fail,
        lambda: [one.headers["idempotency-key"] for one in hook.requests],
        lambda: len({one.headers["idempotency-key"] for one in hook.requests}),
    )


class Forgetful(Mailbox):
    """Keeps the letter and loses its answer."""

    lose: Fault | None = None

    async def handle_DATA(self, server, session, envelope):
        answer = await super().handle_DATA(server, session, envelope)
        fault, self.lose = self.lose, None
        if fault is not None and fault.reset:
            server.transport.abort()
        elif fault is not None:
            await asyncio.sleep(fault.hang)
        return answer


def email(stack: ExitStack, folder: Path) -> World:
    box = Forgetful()
    controller = OnKernelPort(box, hostname="127.0.0.1", port=0)
    controller.start()
    stack.callback(controller.stop)
    return World(
        f"email: {{to: a@b.example, host: 127.0.0.1, tls: none, port: {controller.port}}}",
        lambda fault: setattr(box, "lose", fault),
        lambda: [str(one["Message-ID"]) for one in box.letters],
        lambda: len({str(one["Message-ID"]) for one in box.letters}),  # a mailbox shows an id once
    )


def impatient(channel: Channel) -> Channel:
    channel._timeout = 1  # type: ignore[attr-defined]  # Slack and e-mail have no option for it
    return channel


@pytest.mark.parametrize("fault", [Fault(accept=True, hang=2.5), Fault(accept=True, reset=True)])
@pytest.mark.parametrize("make", [slack, pagerduty, webhook, email])
def test_what_was_accepted_before_its_answer_was_lost_is_told_to_people_once(
    make: Callable[[ExitStack, Path], World], fault: Fault, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        world = make(stack, tmp_path)
        settings = parse_settings(f"service: s\nnotify: {{channels: {{it: {{{world.yaml}}}}}}}\n", tmp_path)
        channels = {name: impatient(one) for name, one in build_channels(settings.notify).items()}
        store = make_store()
        desk = Desk(settings, store, channels, inline=True)
        world.lose(fault)
        desk.receive([an_alert()], T0)
        (lost,) = desk.pump(T0)
        assert (lost.ok, lost.reason) == (False, "connection" if fault.reset else "timeout")
        assert len(world.keys()) == 1, "it was accepted all the same"
        (told,) = [one for second in range(2, 20) for one in desk.pump(T0 + second)]
        (page,) = read.pages(store)
        store.close()
        assert (told.ok, told.attempt, page.kind, page.attempts) == (True, 2, "firing", 2)
        assert len(world.keys()) <= 2, "at most one repetition"
        assert len(set(world.keys())) == 1, "under the same key"
        assert world.shown() == 1
