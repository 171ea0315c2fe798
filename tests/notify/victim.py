"""A paging process that is killed at any moment: it pages what the truth file names, again and again."""

from __future__ import annotations

import random
import time
from pathlib import Path

from mlobs.notify import outbox
from mlobs.notify.channels.pagerduty import PagerDutyChannel
from mlobs.notify.channels.slack import SlackChannel
from mlobs.notify.channels.webhook import WebhookChannel
from mlobs.notify.desk import Desk
from mlobs.notify.http import Addresses
from mlobs.notify.tables import SCHEMA
from mlobs.secret import Secret
from mlobs.store import open_store
from tests.notify.desks import an_alert, make_settings

SINCE = 1_700_000_000.0


def truth(folder: Path) -> list[str]:
    """Models that are in trouble; the parent adds to them."""
    return (folder / "truth").read_text().split()


def page(folder: str, slack: str, hook: str, pager: str, seed: int, to_the_end: bool) -> None:
    """Evaluate, commit, send, record, until killed, or until nothing waits (at most five minutes)."""
    place = Path(folder)
    store = open_store(f"sqlite:///{place / 'state.db'}", [SCHEMA])
    store.hold()
    token = Secret("token", file=str(place / "token"))
    here = Addresses(allow_http=True, allow_private=True)
    key = Secret("key", file=str(place / "key"))
    channels = [
        SlackChannel("slack", "#oncall", token, base_url=slack, timeout=5),
        WebhookChannel("hook", hook, allowed=here, timeout=5),
        PagerDutyChannel("phone", key, base_url=pager, allowed=here, timeout=5),
    ]
    for one in channels:
        one.rate = None  # the pace is tested elsewhere
    settings = make_settings("slack", "hook", "phone")
    desk = Desk(
        settings, store, {one.name: one for one in channels}, rng=random.Random(seed), inline=bool(seed % 2)
    )
    deadline = time.monotonic() + (300 if to_the_end else 60)
    while time.monotonic() < deadline:
        now = time.time()
        alerts = [an_alert(model=model, at=SINCE) for model in truth(place)]
        desk.receive(alerts, now)
        desk.pump(now)
        with store.read() as connection:
            if to_the_end and not outbox.waiting(connection):
                break
        time.sleep(0.01)  # as an evaluation's interval: the parent needs the processor too
    desk.close()
    store.close()
