"""The dashboard's queries in a real Prometheus that scrapes a real service and the stages' registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

import mlobs
from mlobs.grafana.dashboard import dashboard
from mlobs.sdk.collector import make_registry
from mlobs.testing import capture
from tests.drift.traffic import DAY
from tests.grafana.test_dashboard import as_prometheus_sees_it
from tests.servers import eventually
from tests.web.bench import Bench


def scrape_config(*ports: int) -> str:
    targets = json.dumps([f"127.0.0.1:{port}" for port in ports])
    jobs = f"[{{job_name: mlobs, static_configs: [{{targets: {targets}}}]}}]"
    return f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nscrape_configs: {jobs}\n"


def serve(registry: CollectorRegistry) -> tuple[Any, Any]:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    return server, thread


def test_every_panel_finds_its_data(prometheus: Any, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with capture(bench.settings) as seen:

        @mlobs.observe(model="m", version="1")
        def score(row: dict[str, float]) -> float:
            with mlobs.stage("inference"):
                return row["x"]

        for number in range(50):
            score({"x": float(number)})
        for day in range(8):
            bench.tick((day + 1) * DAY)
        running = [serve(make_registry(seen.runtime)), serve(bench.registry)]
        try:
            server = prometheus(scrape_config(*(one.server_port for one, _ in running)))
            eventually(
                lambda: len(server.query("count_over_time(up[1m]) >= 3")) == 2, "three scrapes of both"
            )
            made = dashboard(bench.settings)
            empty = [
                f"{panel['title']}: {target['expr']}"
                for panel in made["panels"]
                for target in panel.get("targets", ())
                if not server.query(as_prometheus_sees_it(target["expr"]).replace("fraud|other", ".*"))
            ]
            gap = next(p for p in made["panels"] if p["title"] == "Missing in the account")["targets"][0][
                "expr"
            ]
            assert {sample["value"][1] for sample in server.query(gap)} == {"0"}
        finally:
            for one, thread in running:
                one.shutdown()
                one.server_close()
                thread.join()
            bench.store.close()
    assert empty == []
