"""Silences, maintenance and inhibition in a `mlobs serve` that runs: no page leaves, it is said and counted,
and what still fires at the end is told once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.notify.stubs import Stub, receiver, serving
from tests.servers import eventually, free_port, http
from tests.service.test_serve_killed import BREACH, Target
from tests.service.test_two_serves import start

START = 1_700_006_400.0
TICK = 30.0
YAML = """
service: fraud-api
listen: 127.0.0.1:{port}
store: sqlite:///{folder}/state.db
targets: ["{target}"]
models: [{{name: fraud}}, {{name: batch}}, {{name: brief}}]
notify:
  channels: {{hook: {{webhook: {{url: "{hook}", allow_http: true, allow_private: true}}}}}}
"""
DRIVEN = """  hold: 1m
  together: 1s
  maintenance:
    - {{match: {{model: batch}}, from: "{begins}", to: "{ends}", comment: planned}}
    - {{match: {{model: brief}}, from: "{begins}", to: "{ends}"}}
clock: driven
slo: {{objectives: [{{name: up, model: fraud, sli: availability, objective: 99.9%}}]}}
"""
COUNTS = """mlobs_process_start_time_seconds 1700000000
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="ok"}} {}
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="error"}} {}
"""
WALL = "slo: {scrape_interval: 1s, evaluation_interval: 1s}\n"


class Running:
    """A `mlobs serve` in a process of its own, what it scrapes and whom it tells."""

    def __init__(self, folder: Path, target: Target, hook: Stub, more: str) -> None:
        self.target, self.hook, self.now = target, hook, START
        self.config = folder / "mlobs.yaml"
        for _ in range(3):  # somebody else may take the port in between
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            text = YAML.format(port=port, folder=folder, target=target.url, hook=hook.url)
            self.config.write_text(text + more)
            self.process = start(self.config)
            eventually(lambda: not self.process.is_alive() or self.get("/api/status"), "a start", timeout=60)
            if self.process.is_alive():
                return
        raise AssertionError("no free port")

    def get(self, path: str) -> Any:
        return json.loads(http(self.url + path))

    def post(self, path: str, body: dict[str, Any]) -> None:
        http(self.url + path, "POST", json.dumps(body).encode(), **{"Content-Type": "application/json"})

    def run(self, seconds: float) -> None:
        """Ticks of the driven clock."""
        until = self.now + seconds
        while self.now < until:
            self.now += TICK
            self.post("/api/tick", {"now": self.now})

    def told(self, model: str) -> list[tuple[str, str]]:
        """(kind, cause) of what the hook was told of it, updates aside."""
        told = [one.fields for one in list(self.hook.requests) if one.fields["kind"] != "update"]
        return [(one["kind"], one["page"]["cause"]) for one in told if one["page"]["model"] == model]

    def incident(self, model: str, cause: str = "drift") -> dict[str, Any]:
        known: list[dict[str, Any]] = self.get("/api/incidents")["incidents"]
        [found] = [each for each in known if (each["model"], each["cause"]) == (model, cause)]
        return found

    def suppressed(self, reason: str) -> float:
        text = http(f"{self.url}/metrics").decode()
        found = re.search(rf'mlobs_notify_suppressed_total{{reason="{reason}"}} (\S+)', text)
        return float(found[1]) if found else 0.0

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mlobs", *words, "-c", str(self.config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running(folder: Path, more: str) -> Iterator[Running]:
    target, hook = Target(), receiver()
    with serving(hook):
        one = Running(folder, target, hook, more)
        try:
            yield one
        finally:
            one.process.terminate()
            one.process.join(30)
    target.server.shutdown()
    target.server.server_close()
    assert one.process.exitcode == 0


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def counts(seconds: float, bad: float) -> str:
    return COUNTS.format(seconds * 10 - bad, bad)


def test_under_maintenance_no_page_leaves_and_what_still_fires_afterwards_is_told_once(
    tmp_path: Path,
) -> None:
    more = DRIVEN.format(begins=moment(START), ends=moment(START + 3600))
    with running(tmp_path, more) as one:
        one.target.models = ["batch", "brief"]
        one.run(1800)
        one.target.models = ["batch"]
        one.run(1770)
        assert one.told("batch") == one.told("brief") == []
        assert one.suppressed("maintenance") == 2
        batch, brief = one.incident("batch"), one.incident("brief")
        assert (batch["state"], brief["state"]) == ("open", "resolved")
        shown = one.command("incidents", "show", batch["id"])
        assert "maintenance: planned" in shown
        one.run(3600)
        assert one.told("batch") == [("firing", "drift")]
        assert one.told("brief") == []
        assert one.suppressed("maintenance") == 2


def test_a_ticket_under_a_page_waits_until_the_page_is_over(tmp_path: Path) -> None:
    with running(tmp_path, DRIVEN.format(begins=moment(START), ends=moment(START + 1))) as one:
        bad = 0.0

        def go_on(seconds: float, share: float, breach: str = "") -> None:
            nonlocal bad
            for _ in range(int(seconds / TICK)):
                bad += share * 10 * TICK
                one.target.more = counts(one.now + TICK - START, bad) + breach
                one.run(TICK)

        ticket = BREACH.format("fraud").replace('severity="page"', 'severity="ticket"')
        go_on(1800, 0)
        go_on(300, 1)
        assert one.told("fraud") == [("firing", "availability")]
        go_on(300, 1, ticket)
        assert one.told("fraud") == [("firing", "availability")]
        assert one.suppressed("inhibited") == 1
        page = one.incident("fraud", "availability")
        one.post(f"/api/incidents/{page['id']}/resolve", {"by": "ada"})
        go_on(120, 0, ticket)
        first, *rest = one.told("fraud")
        assert first == ("firing", "availability")
        assert sorted(rest) == [("firing", "drift"), ("resolved", "availability")]


def test_a_silence_keeps_a_running_serve_quiet_until_it_is_ended(tmp_path: Path) -> None:
    with running(tmp_path, WALL) as one:
        one.command("notify", "silence", "add", "model=fraud", "--for", "2h", "--comment", "known")
        one.target.models = ["fraud", "other"]
        eventually(lambda: one.told("other"), "the other model is told", timeout=60)
        eventually(lambda: one.suppressed("silenced") == 1, "it is counted", timeout=60)
        assert "until" in one.command("notify", "silence", "list")
        found = one.incident("fraud")
        assert ": known" in one.command("incidents", "show", found["id"])
        assert one.told("fraud") == []
        one.command("notify", "silence", "end", "1")
        eventually(lambda: one.told("fraud"), "what still fires is told", timeout=90)
        one.target.models = ["fraud", "other", "third"]
        eventually(lambda: one.told("third"), "a later one is told", timeout=60)
        assert [len(one.told(model)) for model in ("fraud", "other")] == [1, 1], "each once"
