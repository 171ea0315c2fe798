"""The cases of `test_trouble_table` with the real parts: servers that are killed, a disk that is full, a
monitor that is dead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlobs.config import parse_settings
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.ship import Shipper
from mlobs.notify import amconfig
from mlobs.service.listening import Fetcher
from tests.featurelog.test_faults import as_root, fill, mounted
from tests.notify.stubs import Stub, receiver, serving
from tests.notify.test_alertmanager import RESEND, quick, sending_to
from tests.servers import eventually, free_port, http
from tests.service.test_examples import logged
from tests.service.test_serve_killed import Target
from tests.service.test_trouble_table import (
    COMMON,
    CONSOLE,
    EVALUATION,
    START,
    Stand,
    check_it_is_told,
    healthy,
    kept_in,
    with_a_reference,
)
from tests.service.test_two_serves import start


def test_a_prometheus_and_an_alertmanager_that_are_killed_are_paged(
    tmp_path: Path, prometheus: Callable, alertmanager: Callable
):
    (tmp_path / "token").write_text("right")
    server, am = prometheus(), alertmanager()
    yaml = f"""
service: fraud-api
clock: driven
slo: {{evaluator: prometheus, prometheus: "{server.url}"}}
notify:
  channels: {{screen: {{console: }}}}
  alertmanager: {{url: "{am.url}", token_file: {tmp_path / "token"}}}
"""
    fetcher = Fetcher()
    stand = Stand(tmp_path, yaml, lambda url, _: fetcher(url).decode())
    stand.run(120, step=60)
    assert not stand.told()
    for process, cause in ((server.process, "prometheus-down"), (am.process, "alertmanager-down")):
        process.kill()
        process.popen.wait()
        down = stand.now
        stand.run(120, step=60)
        [at] = [at for _, at, told in stand.told() if told == cause]
        assert at <= down + 2 * 60  # reconciliation is its evaluation, once a minute
    fetcher.close()
    stand.service.close()


def test_a_disk_that_is_really_full_is_paged(tmp_path: Path):
    as_root()
    hook = receiver()
    small = tmp_path / "small"
    with serving(hook), mounted(["-t", "tmpfs", "-o", "size=4m", "tmpfs"], small):
        stand = Stand(tmp_path, kept_in(small, hook), healthy)
        stand.run(600)
        with (small / "ballast").open("wb") as handle:
            fill(handle.fileno())
        check_it_is_told(stand, hook)
        (small / "ballast").unlink()
        stand.run(600)
        assert stand.service.tick(stand.now + EVALUATION)["failed"] == {}, "and it goes on when there is room"
        stand.service.close()


def dead_of(phone: Stub) -> list[dict[str, Any]]:
    """Alerts that the scraped mlobs is down; before its first scrape there is none that could be."""
    alerts = [one for request in phone.requests for one in json.loads(request.body)["alerts"]]
    named = [one for one in alerts if one["labels"]["alertname"] == "MlobsDown" and one["status"] == "firing"]
    return [one for one in named if "instance" in one["labels"]]


def test_a_monitor_that_is_killed_is_told_past_it_by_prometheus_and_by_its_heartbeat(
    tmp_path: Path, prometheus: Callable, alertmanager: Callable
):
    """mlobs serve, scraped by a real Prometheus; its rules and a real Alertmanager reach the fallback."""
    phone, beats, target, port = receiver(), receiver(), Target(), free_port()
    (tmp_path / "token").write_text("right")
    here = "allow_http: true, allow_private: true"
    with serving(phone), serving(beats):
        config = tmp_path / "mlobs.yaml"
        config.write_text(f"""
service: fraud-api
listen: 127.0.0.1:{port}
store: sqlite:///{tmp_path}/state.db
targets: ["{target.url}"]
slo: {{scrape_interval: 1s, evaluation_interval: 1s}}
notify:
  channels: {{phone: {{webhook: {{url: "{phone.url}", {here}}}}}}}
  fallback: phone
  heartbeat: {{url: "{beats.url}", every: 1s, {here}}}
""")
        written = parse_settings(
            config.read_text() + f"  alertmanager: {{token_file: {tmp_path / 'token'}}}\n", tmp_path
        )
        am = alertmanager(quick(amconfig.config_text(written, "http://127.0.0.1:9/api/alertmanager")))
        scrape = (
            f"scrape_configs: [{{job_name: mlobs, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        )
        rules = amconfig.rules_text(written).replace("for: 1m", "for: 5s")
        process = start(config)
        eventually(lambda: len(beats.requests) > 2, "the heart beats", timeout=60)
        server = prometheus(sending_to(am.url) + scrape, rules, RESEND)
        eventually(lambda: server.query('up{job="mlobs"} == 1'), "mlobs is scraped", timeout=60)
        metrics = http(f"http://127.0.0.1:{port}/metrics").decode()
        assert "mlobs_serve_last_tick_timestamp_seconds" in metrics
        assert not dead_of(phone), "while it lives nobody is told that it is dead"
        process.kill()
        process.join(20)
        heard = len(beats.requests)
        eventually(lambda: dead_of(phone), "the fallback is told", timeout=60)
        assert len(beats.requests) <= heard + 1  # one may have been on its way
    target.server.shutdown()
    target.server.server_close()


def test_a_kafka_that_falls_silent_is_paged(tmp_path: Path, kafka: str):
    """Calls go through a real broker, window by window, and then none comes."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic("calls", 1)])["calls"].result(10)
    model, objective = with_a_reference(tmp_path)
    yaml = COMMON.replace("./featurelog", f"kafka://{kafka}/calls").replace("[{name: fraud}]", model)
    stand = Stand(tmp_path, f"{yaml}slo: {{objectives: [{objective}]}}\n{CONSOLE}", healthy)
    arrived = 0

    def read_until(rows: int) -> bool:
        nonlocal arrived
        stand.now += 0.01
        arrived += stand.service.tick(stand.now)["records"] or 0
        return arrived >= rows

    for window in range(6):
        logged(tmp_path, window, celsius=False)
        with Shipper(tmp_path / "featurelog", Address(kafka, "calls", "mlobs"), {}) as ship:
            assert ship.ship() == 40
        stand.now = START + 300 * window + 301
        eventually(lambda rows=40 * (window + 1): read_until(rows), "the calls come through", timeout=60)
    silent = START + 1800
    stand.run(300)
    assert not [one for one in stand.told() if one[2] == "absent"]
    stand.run(1200)
    [(_, at, _)] = [one for one in stand.told() if one[2] == "absent"]
    assert at <= silent + 2 * 300 + 2 * EVALUATION + 1  # its hold: two of three windows
    stand.service.close()
