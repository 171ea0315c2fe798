"""Paging: from the breach to Slack, beside Alertmanager on the same machine; what an incident costs.

Ours: `Desk.receive` with the commit at synchronous=FULL, to the request that reaches a stub of Slack, bare
and with an enricher that takes 200 ms; pumped twice a second, as `mlobs serve` does. Alertmanager: its API
to the same stub, with `group_wait: 0s`, nothing durable in between.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mlobs.notify.channels.slack import SlackChannel
from mlobs.notify.incident import Incident
from mlobs.notify.page import FeatureFinding, PageParts
from mlobs.secret import Secret
from tests import servers
from tests.benchmarks.figures import Row, show
from tests.notify.desks import Told, an_alert, make_desk, make_store
from tests.notify.stubs import Slack, Stub, serving

PAGES = 20
INCIDENTS = 500


def slow_enricher(incident: Incident) -> PageParts:
    time.sleep(0.2)
    return PageParts(features=(FeatureFinding("temp"),))


def ours(folder: Path, enrich: bool) -> tuple[list[float], list[float]]:
    """Seconds to the first message, and to the one that names the feature."""
    slack = Slack()
    first: list[float] = []
    named: list[float] = []
    with serving(slack.stub):
        (folder / "token").write_text("xoxb-right")
        channel = SlackChannel(
            "oncall", "#oncall", Secret("token", file=str(folder / "token")), base_url=slack.stub.url
        )
        store = make_store(folder / f"state-{enrich}.db")
        desk = make_desk(
            channel,  # type: ignore[arg-type]
            store=store,
            enrichers=[slow_enricher] if enrich else [],
            inline=False,
        )
        channel.rate = None  # one page a second is the pace; here the way is measured
        for number in range(PAGES):
            seen = len(slack.stub.requests)
            began = time.monotonic()
            desk.receive([an_alert(model=f"m{number}")], time.time(), complete=False)
            while time.monotonic() - began < 10:
                desk.pump(time.time())
                new = slack.stub.requests[seen:]
                if new and (not enrich or any(b"temp" in one.body for one in new)):
                    break
                time.sleep(0.5)
            new = slack.stub.requests[seen:]
            first.append(new[0].at - began)
            named.append(next((one.at for one in new if b"temp" in one.body), new[0].at) - began)
        desk.close()
        store.close()
    return sorted(first), sorted(named)


def alertmanager(folder: Path) -> list[float]:
    stub = Stub(lambda request: (200, {"ok": True}))
    found: list[float] = []
    with serving(stub):
        config = (
            "route: {receiver: it, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: it, webhook_configs: [{{url: '{stub.url}/x'}}]}}]\n"
        )
        with servers.alertmanager(folder / "am", config) as server:
            for number in range(PAGES):
                seen = len(stub.requests)
                alert = [{"labels": {"alertname": "a", "model": f"m{number}", "severity": "page"}}]
                began = time.monotonic()
                servers.http(
                    f"{server.url}/api/v2/alerts", "POST", json.dumps(alert).encode(),
                    **{"Content-Type": "application/json"},
                )  # fmt: skip
                wait_for(lambda seen=seen: len(stub.requests) > seen)
                found.append(stub.requests[seen].at - began)
    return sorted(found)


def wait_for(check: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(10_000):
        if check():
            return
        tick.wait(0.001)


def cost(folder: Path) -> tuple[float, float]:
    """CPU milliseconds of an incident from alert to delivered, and of one that goes on firing, an
    evaluation.
    """
    store = make_store(folder / "cost.db")
    desk = make_desk(Told(), store=store)
    alerts = [an_alert(model=f"m{number}") for number in range(INCIDENTS)]
    now = time.time()
    began = time.process_time()
    desk.receive(alerts, now)
    desk.pump(now)
    opened = time.process_time() - began
    began = time.process_time()
    desk.receive(alerts, now + 30)
    desk.pump(now + 30)
    again = time.process_time() - began
    store.close()
    return opened / INCIDENTS * 1000, again / INCIDENTS * 1000


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare, _ = ours(folder, enrich=False)
        held, named = ours(folder, enrich=True)
        theirs = alertmanager(folder) if servers.find("alertmanager") else []
        opened, again = cost(folder)
    print(f"{'seconds from the breach to the request at Slack':48}  median   worst    goal")
    for what, found, goal in (
        ("bare", bare, 1.0),
        ("first message, with an enricher of 200 ms", held, 1.0),
        ("the message that names the feature", named, 3.0),
    ):
        print(f"{what:48}  {middle(found):6.3f}  {found[-1]:6.3f}  {goal:6.1f}")
    print(f"CPU of an incident from alert to delivery: {opened:.2f} ms")
    print(f"CPU of an incident that goes on, an evaluation: {again:.3f} ms")
    if not theirs:
        print("no Alertmanager here: tools/fetch-servers brings it")
        return 0
    rows = [Row("breach to Slack / Alertmanager to its webhook, median", middle(bare), middle(theirs), 10.0)]
    return show("seconds", rows)


def middle(found: list[float]) -> float:
    return found[len(found) // 2]


if __name__ == "__main__":
    sys.exit(main())
