"""`mlobs serve` with the one engine or the other, never both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlobs.config import parse_settings
from mlobs.errors import UsageError
from mlobs.notify import read
from mlobs.notify.api import OnCall
from mlobs.service.serve import SCHEMAS, check_evaluator, wire
from mlobs.store import open_store
from tests.notify.test_alertmanager import one, posted

PROMETHEUS = """
service: fraud-api
environment: prod
slo: {evaluator: prometheus, prometheus: "http://prometheus"}
notify:
  channels: {screen: {console: }}
  alertmanager: {url: "http://alertmanager", token_file: token}
"""


def test_alertmanager_s_alerts_become_pages_and_our_engine_rests(tmp_path: Path, capsys):
    (tmp_path / "token").write_text("right")
    settings = parse_settings(PROMETHEUS, tmp_path)
    check_evaluator(settings, "mlobs.yaml")
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return b"[]" if "alertmanager" in url else b'{"data": {"alerts": []}}'

    store = open_store(settings.store, SCHEMAS)
    service = wire(settings, store, fetch)  # type: ignore[arg-type]
    oncall = OnCall(settings, store, service.desk)
    headers = {"authorization": "Bearer right", "content-type": "application/json"}
    now = 1_700_000_000.0
    told = oncall.answer("/api/alertmanager", headers, posted(one()), now, local=False, wall=now)
    service.tick(now)
    service.desk.close()
    (row,) = read.incidents(store, settings)
    service.close()
    assert (told.status, row.key) == (200, "prod/fraud-api/fraud/latency")
    assert {url.partition("?")[0] for url in asked} == {
        "http://prometheus/api/v1/query",  # what the rules recorded, for the web page
        "http://prometheus/api/v1/alerts",
        "http://alertmanager/api/v2/alerts",
    }
    assert "PAGE fraud: latency" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (', prometheus: "http://prometheus"', "", "slo.prometheus"),
        ('url: "http://alertmanager", ', "", "notify.alertmanager.url"),
        (", token_file: token", "", "token_file"),
        (
            'evaluator: prometheus, prometheus: "http://prometheus"',
            "evaluator: embedded",
            "exactly one engine",
        ),
    ],
)
def test_half_a_setting_and_both_engines_are_refused(old: str, new: str, told: str):
    with pytest.raises(UsageError, match=told):
        check_evaluator(parse_settings(PROMETHEUS.replace(old, new)), "mlobs.yaml")


def test_paging_s_own_metrics_stand_on_the_service_s_page(tmp_path: Path):
    settings = parse_settings("service: s\nnotify: {channels: {screen: {console: }}}\n", tmp_path)
    store = open_store(settings.store, SCHEMAS)
    service = wire(settings, store, lambda url: b"")  # type: ignore[arg-type]
    assert service.registry.get_sample_value("mlobs_notify_sent_total", {"channel": "screen"}) == 0
    assert json.dumps(service.now)
    service.close()
