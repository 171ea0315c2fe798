"""`evaluator: prometheus`: a real Prometheus runs the written rules, and the same page is read from it."""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from mlobs.slo import read
from mlobs.slo.remote import RemoteSlo
from mlobs.slo.rules import rules_document
from mlobs.slo.schema import SCHEMA
from mlobs.slo.write import to_yaml
from mlobs.store import open_store
from tests.servers import eventually
from tests.servers import http as get
from tests.slo.world import START, Service, objective, settings


@pytest.fixture
def target() -> Iterator[tuple[str, Service]]:
    """A service that fails half of its requests, more of them at each scrape."""
    service = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.run(ok=50, error=50)
            body = service.text().replace("# EOF\n", "").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", service
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_status_of_a_prometheus_that_evaluates_is_read_back(prometheus, target) -> None:
    config = settings(objective("up", "availability"), objective("ghost", "data_quality", "0.99"))
    address, _ = target
    rules = to_yaml(rules_document(config)).replace("interval: 30s", "interval: 1s")
    scrape = (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"scrape_configs: [{{job_name: a, static_configs: [{{targets: ['{address}']}}]}}]\n"
    )
    server = prometheus(config=scrape, rules=rules)
    slo = dataclasses.replace(config.slo, evaluator="prometheus", prometheus=server.url)
    store = open_store("sqlite://", [SCHEMA])
    engine = RemoteSlo(dataclasses.replace(config, slo=slo), store, None, get)
    now = [START]

    def burning() -> bool:
        now[0] += 30
        assert engine.tick(now[0]) == []
        status = next(each for each in read.statuses(store) if each.name == "up")
        return (status.burn_rates.get("5m") or 0) > 400

    eventually(burning, "a burn rate of 500")
    status = next(each for each in read.statuses(store) if each.name == "up")
    assert status.burn_rates["5m"] == pytest.approx(500, rel=0.05)
    store.close()


def test_a_prometheus_that_does_not_answer_leaves_no_objective_ok() -> None:
    config = settings(objective("up", "availability"))

    def refused(url: str) -> str:
        raise ConnectionError("connection refused")

    store = open_store("sqlite://", [SCHEMA])
    engine = RemoteSlo(config, store, None, refused)
    engine.tick(START)
    [status] = read.statuses(store)
    assert status.state == "absent"
    assert "connection refused" in status.reason
    store.close()


def test_the_events_that_are_left_stretch_a_young_period_as_the_rules_did() -> None:
    """A thirtieth of the month has been, and spent a tenth of the budget by 300 of 100,000 requests."""
    config = settings(objective("up", "availability"))
    recorded = [
        ("mlobs:slo_events:sum", 300.0, {"events": "bad", "sloth_window": "30d"}),
        ("mlobs:slo_events:sum", 100_000.0, {"events": "total", "sloth_window": "30d"}),
        ("slo:period_error_budget_remaining:ratio", 0.9, {}),
    ]

    def answer(url: str) -> str:
        rows = [
            {"metric": {"__name__": name, "sloth_slo": "up", **labels}, "value": [START, str(value)]}
            for name, value, labels in recorded
        ]
        return json.dumps({"status": "success", "data": {"result": rows}})

    store = open_store("sqlite://", [SCHEMA])
    RemoteSlo(config, store, None, answer).tick(START)
    [status] = read.statuses(store)
    assert status.remaining_events == pytest.approx(2700)
    assert status.state == "ok"
    store.close()
