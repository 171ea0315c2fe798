"""`evaluator: prometheus`: a real Prometheus runs the written rules, and the same page is read from it."""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlobs.slo import promql, read
from mlobs.slo.remote import RemoteSlo
from mlobs.slo.rules import rules_document
from mlobs.slo.schema import SCHEMA
from mlobs.slo.status import SloStatus
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
    config = settings(
        objective("up", "availability"),
        objective("ghost", "data_quality", "0.99"),
        objective("fast", "latency"),
    )
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

    def young() -> bool:
        engine.tick(START + now[0])
        now[0] += 30
        fast = next(each for each in read.statuses(store) if each.name == "fast")
        return fast.state == "young" and fast.reason.startswith("observed for ")

    eventually(young, "an objective of a few seconds that is young")
    store.close()


def test_a_prometheus_that_does_not_answer_leaves_no_objective_ok() -> None:
    config = settings(objective("up", "availability"))
    server = replace(config.slo, prometheus="http://me:PLANTED@prometheus:9090")

    def refused(url: str) -> str:
        raise ConnectionError("connection refused")

    store = open_store("sqlite://", [SCHEMA])
    engine = RemoteSlo(replace(config, slo=server), store, None, refused)
    engine.tick(START)
    [status] = read.statuses(store)
    assert status.state == "absent"
    assert "http://prometheus:9090/api/v1/query: " in status.reason
    assert "connection refused" in status.reason
    assert "PLANTED" not in status.reason, "it stands on a page"
    store.close()


def test_the_events_that_are_left_stretch_a_young_period_as_the_rules_did() -> None:
    """A thirtieth of the month has been, and spent a tenth of the budget by 300 of 100,000 requests."""
    recorded = Recorded(age=86_400.0)
    status = recorded.tick()
    assert status.remaining_events == pytest.approx(2700)
    assert status.state == "ok"
    recorded.store.close()


class Recorded:
    """A Prometheus that recorded a day of one objective, and how long ago that began."""

    def __init__(self, age: float | None) -> None:
        self.age = age
        self.asked = 0
        self.now = START
        self.store = open_store("sqlite://", [SCHEMA])
        self.engine = RemoteSlo(settings(objective("up", "availability")), self.store, None, self.answer)

    def answer(self, url: str) -> str:
        if "min_over_time" in url and self.age == -1:
            return json.dumps({"status": "error", "error": "query timed out"})
        series = [
            ("mlobs:slo_events:sum", 300.0, {"events": "bad", "sloth_window": "30d"}),
            ("mlobs:slo_events:sum", 100_000.0, {"events": "total", "sloth_window": "30d"}),
            ("slo:period_error_budget_remaining:ratio", 0.9, {}),
        ]
        rows = [
            {"metric": {"__name__": name, "sloth_slo": "up", **labels}, "value": [self.now, str(value)]}
            for name, value, labels in series
        ]
        if "min_over_time" in url:
            self.asked += 1
            known = [{"metric": {"sloth_slo": "up"}, "value": [self.now, str(self.age)]}]
            rows = known if self.age is not None else []
        return json.dumps({"status": "success", "data": {"result": rows}})

    def tick(self) -> SloStatus:
        self.now += 30
        self.engine.tick(self.now)
        [status] = read.statuses(self.store)
        return status


def test_an_objective_is_young_until_its_longest_window_that_pages_was_recorded() -> None:
    recorded = Recorded(age=None)
    states = []
    for age in (None, 3600.0, 6 * 3600.0 - 1, 6 * 3600.0, 60.0):
        recorded.age = age
        status = recorded.tick()
        states.append(status.state)
        if age == 3600.0:
            assert status.reason.startswith("observed for 1 h so far: 300 of 100,000 requests bad")
    assert states == ["young", "young", "young", "ok", "ok"]  # once grown nobody asks any more
    assert recorded.asked == 4
    recorded.store.close()


def test_an_age_that_cannot_be_asked_makes_young_and_never_absent() -> None:
    recorded = Recorded(age=-1)
    status = recorded.tick()
    assert (status.state, status.remaining) == ("young", pytest.approx(0.9))
    assert "no age known" in status.reason
    assert "query timed out" in status.reason
    recorded.age = 6 * 3600.0
    assert recorded.tick().state == "ok"
    recorded.age = -1
    assert recorded.tick().state == "ok", "once grown it is not asked"
    recorded.store.close()


def test_the_age_of_the_recorded_counts_is_what_the_real_promtool_finds(promtool, tmp_path) -> None:
    """Counts since an hour, with a gap; and for ever."""
    (tmp_path / "none.yaml").write_text("groups: []\n")
    name = 'mlobs:slo_events:increase{{sloth_service="s",sloth_slo="{}",events="total",sloth_window="5m"}}'
    asked = {"expr": promql.age(2 * 6 * 3600.0, 'sloth_service="s"'), "eval_time": "20h"}
    ages = [("new", 3600.0), ("old", 12 * 3600.0)]
    case = {
        "interval": "5m",
        "input_series": [
            {"series": name.format("new"), "values": "_x228 5x3 _ _ 5x8"},
            {"series": name.format("old"), "values": "5x240"},
        ],
        "promql_expr_test": [
            {
                **asked,
                "expr": f"abs(({asked['expr']}) - {age}) < bool 301 and on (sloth_slo) " + name.format(one),
                "exp_samples": [
                    {
                        "labels": f'{{sloth_service="s",sloth_slo="{one}",events="total",sloth_window="5m"}}',
                        "value": 1,
                    }
                ],
            }
            for one, age in ages
        ],
    }
    (tmp_path / "age.test.yaml").write_text(to_yaml({"rule_files": ["none.yaml"], "tests": [case]}))
    done = promtool("test", "rules", str(tmp_path / "age.test.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
