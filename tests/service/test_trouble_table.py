"""What can fall silent or break around us, case by case: each is paged, or falls back, within two evaluations
and its hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event as sqlalchemy_event

from mlobs.config import parse_settings
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.notify import read
from mlobs.service import Service
from mlobs.service.serve import SCHEMAS, wire
from mlobs.settings import Settings
from mlobs.store import Store, open_store
from tests.drift.traffic import ScriptedLog, day_table, records, reference_table
from tests.notify.stubs import Fault, Slack, Stub, receiver, serving

START = 1_700_006_400.0 // 3600 * 3600
EVALUATION = 30.0

COMMON = """
service: fraud-api
clock: driven
feature_log: ./featurelog
drift: {window: 5m, min_rows: 10}
models: [{name: fraud}]
"""
TARGET = """
mlobs_process_start_time_seconds 1700000000
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="ok"}} {}
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="error"}} {}
"""


class Stand:
    """A wired service whose world is `fetch`, advanced one evaluation at a time."""

    def __init__(self, folder: Path, yaml: str, fetch: Callable[[str, float], str]) -> None:
        self.settings: Settings = parse_settings(yaml, folder)
        self.store: Store = open_store(self.settings.store, SCHEMAS)
        self.now = START
        self.service: Service = wire(self.settings, self.store, lambda url: fetch(url, self.now).encode())

    def run(self, seconds: float, step: float = EVALUATION) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += step
            self.service.tick(self.now)

    def told(self, kind: str = "firing") -> list[tuple[str, float, str]]:
        """(channel, when it was delivered, cause) of every message."""
        return [
            (one.channel, one.sent_at, one.page.cause)
            for one in read.pages(self.store, kind=kind)
            if one.sent_at is not None
        ]


def healthy(_: str, now: float) -> str:
    return TARGET.format((now - START) * 10, 0)


CONSOLE = "notify: {channels: {screen: {console: }}}\n"


def test_prometheus_down_is_paged(tmp_path: Path):
    (tmp_path / "token").write_text("right")
    yaml = f"""
service: fraud-api
clock: driven
slo: {{evaluator: prometheus, prometheus: "http://prometheus"}}
notify:
  channels: {{screen: {{console: }}}}
  alertmanager: {{url: "http://alertmanager", token_file: {tmp_path / "token"}}}
"""
    down = START + 300

    def fetch(url: str, now: float) -> str:
        if "alertmanager" in url:
            return "[]"
        if now >= down:
            raise ConnectionError("refused")
        return '{"status": "success", "data": {"alerts": [], "resultType": "vector", "result": []}}'

    stand = Stand(tmp_path, yaml, fetch)
    stand.run(285, step=60)
    assert not stand.told()
    stand.run(240, step=60)
    [(channel, at, _)] = [one for one in stand.told() if one[2] == "prometheus-down"]
    assert channel == "screen"
    assert at <= down + 2 * 60  # reconciliation is its evaluation, once a minute
    stand.service.close()


def test_slack_down_falls_back_within_its_hold(tmp_path: Path):
    (tmp_path / "token").write_text("xoxb-right")
    slack, hook = Slack(), receiver()
    with serving(slack.stub), serving(hook):
        slack.stub.fail(*[Fault(500)] * 1000)
        yaml = (
            COMMON
            + f"""
targets: ["http://fraud/metrics"]
slo: {{objectives: [{{name: up, model: fraud, sli: availability, objective: 99.9%}}]}}
notify:
  channels:
    oncall: {{slack: {{channel: "#oncall", token_file: {tmp_path / "token"}, base_url: "{slack.stub.url}"}}}}
    hook: {{webhook: {{url: "{hook.url}", allow_http: true, allow_private: true}}}}
  routes: [{{to: [oncall]}}]
  fallback: hook
  fallback_after: 5m
"""
        )
        breaks = START + 7200

        def fetch(_: str, now: float) -> str:
            bad = max(0.0, now - breaks) * 10
            return TARGET.format((now - START) * 10 - bad, bad)

        stand = Stand(tmp_path, yaml, fetch)
        stand.run(7200)
        stand.run(600)
        [fired] = [one.wanted_at for one in read.pages(stand.store, kind="firing", sent_only=False)
                   if one.channel == "oncall" and one.page.cause == "availability"]  # fmt: skip
        [(_, at, _)] = [one for one in stand.told() if one[0] == "hook" and one[2] == "availability"]
        assert fired + 300 <= at <= fired + 300 + 2 * EVALUATION
        own = [one for one in read.incidents(stand.store, stand.settings) if one.cause == "paging"]
        assert ["has waited" in one.title for one in own] == [True], (
            "and a ticket says what is wrong with Slack"
        )
        stand.service.close()


def a_silent_log(tmp_path: Path, model: str, objective: str) -> tuple[Stand, float]:
    """Twelve windows of calls in the feature log and then nothing; when the silence began."""
    yaml = COMMON.replace("[{name: fraud}]", model) + f"slo: {{objectives: [{objective}]}}\n" + CONSOLE
    stand = Stand(tmp_path, yaml, healthy)
    log = stand.service.drift._source = ScriptedLog()
    for number in range(12):
        table = records(day_table(0), START + 300 * number)
        seconds = table.column("event_time").to_numpy()
        moved = START + 300 * number + (seconds - seconds[0]) / 86400 * 300
        log.add("fraud", table.set_column(0, "event_time", [moved]))
        stand.run(300)
    return stand, START + 3600


def with_a_reference(folder: Path) -> tuple[str, str]:
    """The model and its objective in a file whose folder this is."""
    reference = build_reference(reference_table(), "ref", slicing=Slicing(day="day"))
    save_reference(reference, folder / "m.mlref")
    drift = "{name: drift, model: fraud, sli: drift, objective: 95%, severity: page}"
    return "[{name: fraud, reference: m.mlref}]", drift


def test_a_silent_feature_log_is_told_though_its_series_are_there(tmp_path: Path):
    """Kafka, or whatever the log is on, brings no calls: the windows come and cannot be judged."""
    model, drift = with_a_reference(tmp_path)
    stand, silent = a_silent_log(tmp_path, model, drift)
    assert not [one for one in stand.told() if one[2] == "absent"]
    assert stand.service.slo.statuses[0].total == 12
    stand.run(3600)
    [(_, at, _)] = [one for one in stand.told() if one[2] == "absent"]
    assert at <= silent + 2 * 300 + 2 * EVALUATION  # its hold: two of three windows
    [incident] = [one for one in read.incidents(stand.store, stand.settings) if one.cause == "absent"]
    story = read.incident(stand.store, stand.settings, incident.id)
    assert story is not None
    assert ("verdict", "5 min window absent: no row in this window") in {
        (line.kind, line.text) for line in story.timeline
    }
    stand.service.close()


def test_silent_labels_are_a_ticket(tmp_path: Path):
    """Ground truth that stops coming takes the model's quality with it."""
    yaml = (
        COMMON
        + """
targets: ["http://fraud/metrics"]
slo:
  objectives: [{name: quality, model: fraud, objective: 95%,
    sli: {model_quality: {metric: auc, threshold: 0.8}}}]
"""
        + CONSOLE
    )
    silent = START + 3600

    def fetch(_: str, now: float) -> str:
        quality = 'mlobs_model_quality{model="fraud",metric="auc"} 0.9\n'
        return healthy("", now) + (quality if now < silent else "")

    stand = Stand(tmp_path, yaml, fetch)
    stand.run(3600 + 1200)
    [(_, at, _)] = [one for one in stand.told() if one[2] == "absent"]
    assert silent + 900 - EVALUATION <= at <= silent + 900 + 2 * EVALUATION
    [incident] = read.incidents(stand.store, stand.settings)
    assert incident.severity == "ticket"
    stand.service.close()


def test_a_dead_monitor_stops_its_heartbeat_at_once(tmp_path: Path):
    """Who watches from outside hears each evaluation's beat, and none of a process that cannot evaluate or
    write; what Prometheus says of a dead one is in test_alertmanager and test_metrics."""
    beats = receiver()
    with serving(beats):
        yaml = (
            COMMON
            + f"""
notify:
  channels: {{screen: {{console: }}}}
  heartbeat: {{url: "{beats.url}", every: 30s, allow_http: true, allow_private: true}}
"""
        )
        stand = Stand(tmp_path, yaml, healthy)
        for number in range(1, 4):
            stand.run(EVALUATION)
            heart = stand.service.desk._heartbeat
            assert heart is not None
            heart.wait(10)
            assert len(beats.requests) == number
        stand.service.slo.tick = _dead  # type: ignore[method-assign]
        stand.service.desk.receive = _dead  # type: ignore[method-assign]
        stand.run(300)
        heart.wait(10)
        assert len(beats.requests) == 3
        stand.service.close()


def _dead(*_: object, **__: object) -> list[object]:
    raise RuntimeError("dead")


def kept_in(folder: Path, hook: Stub) -> str:
    """A file whose state is in `folder` and whose pages go to the hook."""
    return (
        COMMON
        + f"""
store: sqlite:///{folder / "state.db"}
targets: ["http://fraud/metrics"]
slo: {{objectives: [{{name: up, model: fraud, sli: availability, objective: 99.9%}}]}}
notify:
  channels: {{hook: {{webhook: {{url: "{hook.url}", allow_http: true, allow_private: true}}}}}}
"""
    )


def check_it_is_told(stand: Stand, hook: Stub) -> None:
    """That the state cannot be written, within two evaluations of the first that could not."""
    refused = None  # free pages of the file may take some more ticks
    while not hook.requests and stand.now < START + 7200:
        stand.now += EVALUATION
        answer = stand.service.tick(stand.now)
        if refused is None and (answer["failed"] or "SLOStore" in answer["firing"]):
            refused = stand.now
        stand.service.desk._emergency.wait(10)
    assert refused is not None
    assert stand.now <= refused + 2 * EVALUATION
    body = hook.requests[0].body.decode()  # through the outbox's last free pages, or past it
    assert "mlobs cannot keep its state" in body or "mlobs cannot write its state" in body


def test_a_full_disk_is_paged(tmp_path: Path):
    hook = receiver()
    with serving(hook):
        stand = Stand(tmp_path, kept_in(tmp_path, hook), healthy)
        stand.run(3600)
        pages = sqlite3.connect(tmp_path / "state.db").execute("PRAGMA page_count").fetchone()[0]
        limit = f"PRAGMA max_page_count = {pages}"
        sqlalchemy_event.listen(stand.store.engine, "connect", lambda raw, _: raw.execute(limit).close())
        stand.store.engine.dispose()
        check_it_is_told(stand, hook)
        stand.service.close()
