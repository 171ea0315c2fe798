"""From a breach in the target's metrics to the request that reaches Slack, through all of `mlobs serve`.

The stages wired as `serve` wires them, its ticker on the wall clock, a stub that speaks Slack's protocol,
evaluations of 2 s. A breach appears in the target's exposition at a random moment; measured is when the page
arrives, with nothing failing: bare, and with an enricher that takes a second.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlobs.config import parse_settings
from mlobs.notify.incident import Incident
from mlobs.notify.page import FeatureFinding, PageParts
from mlobs.service.listening import Ticker
from mlobs.service.serve import SCHEMAS, wire
from mlobs.store import open_store
from tests.notify.stubs import Slack, serving

ROUNDS = 8
INTERVAL = 2.0
YAML = """
service: fraud-api
targets: ["http://target/metrics"]
slo: {{scrape_interval: 2s, evaluation_interval: 2s}}
notify:
  channels: {{oncall: {{slack: {{channel: "#oncall", token_file: token, base_url: "{url}"}}}}}}
  routes: [{{to: [oncall]}}]
"""
BREACH = 'mlobs_drift_breach{{model="{model}",feature="temp",segment="",severity="page"}} {value}\n'


def slow(_incident: Incident) -> PageParts:
    time.sleep(1.0)
    return PageParts(features=(FeatureFinding("named-by-the-enricher"),))


def until(check: Callable[[], bool], seconds: float) -> float:
    """When `check` first held; infinity when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return time.monotonic()
        time.sleep(0.005)
    return float("inf")


def one_round(folder: Path, number: int, enriched: bool) -> float:
    """Seconds from the breach to the page, or to the page that has what the enricher found."""
    (folder / "token").write_text("xoxb-right")
    slack = Slack()
    word = "named-by-the-enricher" if enriched else "temp"
    with serving(slack.stub):
        text = YAML.format(url=slack.stub.url) + f"store: sqlite:///{number}-{enriched}.db\n"
        settings = parse_settings(text, folder)
        store = open_store(settings.store, SCHEMAS)
        breach = [0]
        service = wire(settings, store, lambda _url: BREACH.format(model="fraud", value=breach[0]).encode())
        if enriched:
            service.desk._enrichers = (slow,)
        ticker = Ticker(service.tick, service.pump, INTERVAL)
        ticker.start()
        time.sleep(INTERVAL * (1 + random.Random(number).random()))
        broke = time.monotonic()
        breach[0] = 1
        came = until(lambda: any(word.encode() in one.body for one in slack.stub.requests), 30)
        ticker.stop()
        service.close()
    return came - broke


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        print(f"breach to Slack request, evaluations of {INTERVAL:g} s, {ROUNDS} rounds each")
        for enriched, allowed in ((False, 2 * INTERVAL + 1), (True, 2 * INTERVAL + 3)):
            took = [one_round(Path(folder), number, enriched) for number in range(ROUNDS)]
            what = "enriched" if enriched else "bare"
            median, worst = statistics.median(took), max(took)
            print(f"{what:9} median {median:.2f} s, worst {worst:.2f} s; goal {allowed:g} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
