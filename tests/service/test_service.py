"""The wired stages: one tick through all of them, and a stage that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlobs.config import parse_settings
from mlobs.notify import read as notify_read
from mlobs.service import FAILURES_BEFORE_PAGE, Service, with_own_address
from mlobs.service.serve import SCHEMAS, wire
from mlobs.settings import Settings
from mlobs.store import Store, open_store

SETTINGS = """
service: fraud-api
clock: driven
feature_log: ./featurelog
targets: ["http://127.0.0.1:1/metrics"]
models: [{name: fraud}]
slo:
  objectives: [{name: fraud-available, model: fraud, sli: availability, objective: 99.9%}]
notify:
  channels: {print: {console: }}
  routes: [{to: [print]}]
"""

EXPOSITION = """# TYPE mlobs_request_duration_seconds histogram
mlobs_process_start_time_seconds 1700000000
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="ok"}} {ok}
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="error"}} {bad}
"""

START = 1_700_000_000.0


def make(tmp_path: Path, fetch: Callable[[str], Any]) -> tuple[Settings, Store, Service]:
    settings = parse_settings(SETTINGS, tmp_path)
    store = open_store(settings.store, SCHEMAS)
    return settings, store, wire(settings, store, fetch)


class Traffic:
    """A target with 100 requests a minute, all of which fail from `breaks` on."""

    def __init__(self, breaks: float) -> None:
        self.now = START
        self._breaks = breaks

    def __call__(self, _url: str) -> str:
        bad = max(0.0, self.now - self._breaks) / 60 * 100
        return EXPOSITION.format(ok=(self.now - START) / 60 * 100 - bad, bad=bad)


def test_a_total_outage_becomes_one_incident_and_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = Traffic(breaks=START + 7200)
    settings, store, service = make(tmp_path, traffic)
    while traffic.now < START + 7200 + 1800:
        traffic.now += 60
        answer = service.tick(traffic.now)
    assert answer["failed"] == {}
    assert answer["slos"]["fraud-available"]["remaining"] < 1
    (incident,) = notify_read.incidents(store, settings)
    assert (incident.model, incident.cause, incident.severity) == ("fraud", "availability", "page")
    firing = notify_read.pages(store, kind="firing")
    assert [page.channel for page in firing] == ["print"]
    assert "fraud-available" in capsys.readouterr().out
    service.close()


def test_a_stage_that_keeps_failing_is_told_counted_and_paged_while_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(breaks=START + 1e9)
    settings, store, service = make(tmp_path, traffic)

    def broken(_now: float) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(service.drift, "tick", broken)
    for _ in range(FAILURES_BEFORE_PAGE):
        traffic.now += 60
        answer = service.tick(traffic.now)
    assert answer["failed"] == {"drift": "OSError: disk on fire"}
    assert answer["slos"]["fraud-available"]["state"] != "absent"
    reasons = {"reason": "drift"}
    assert service.registry.get_sample_value("mlobs_internal_errors_total", reasons) == FAILURES_BEFORE_PAGE
    (incident,) = notify_read.incidents(store, settings)
    assert (incident.cause, incident.severity) == ("mlobs", "page")
    monkeypatch.undo()
    for _ in range(10):
        traffic.now += 60
        service.tick(traffic.now)
    assert notify_read.incidents(store, settings)[0].state == "resolved"
    service.close()


def test_a_compaction_that_keeps_failing_is_a_ticket_in_words_until_it_goes_well(tmp_path: Path) -> None:
    traffic = Traffic(breaks=START + 1e9)
    settings, store, service = make(tmp_path, traffic)
    service.tick(traffic.now)
    for _ in range(FAILURES_BEFORE_PAGE):
        assert not notify_read.incidents(store, settings)
        service.beside("compaction", "another run holds the log")
        traffic.now += 60
        answer = service.tick(traffic.now)
    assert answer["failed"] == {"compaction": "another run holds the log"}
    reasons = {"reason": "compaction"}
    assert service.registry.get_sample_value("mlobs_internal_errors_total", reasons) == FAILURES_BEFORE_PAGE
    (incident,) = notify_read.incidents(store, settings)
    assert (incident.cause, incident.severity) == ("mlobs", "ticket")
    service.beside("compaction", "")
    for _ in range(10):
        traffic.now += 60
        answer = service.tick(traffic.now)
    assert answer["failed"] == {}
    assert notify_read.incidents(store, settings)[0].state == "resolved"
    service.close()


def test_links_lead_to_where_we_listen_unless_an_address_is_given() -> None:
    assert with_own_address(Settings("s"), "127.0.0.1", 9464).public_url == "http://127.0.0.1:9464"
    given = Settings("s", public_url="https://mlobs.example")
    assert with_own_address(given, "127.0.0.1", 9464).public_url == "https://mlobs.example"
