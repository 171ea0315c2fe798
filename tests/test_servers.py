"""Each fixture once, so that a test that needs a server can trust it."""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests import servers

Tool = Callable[..., CompletedProcess[str]]
RULES = """
groups:
- name: smoke
  rules:
  - {record: one, expr: vector(1)}
"""


def test_prometheus_evaluates_a_rule(prometheus: Callable[..., servers.Prometheus]) -> None:
    server = prometheus(rules=RULES)
    assert servers.eventually(lambda: server.query("one"), "the rule is evaluated")[0]["value"][1] == "1"


def test_alertmanager_takes_an_alert(alertmanager: Callable[..., servers.Alertmanager]) -> None:
    server = alertmanager()
    alert = b'[{"labels": {"alertname": "smoke"}}]'
    servers.http(f"{server.url}/api/v2/alerts", "POST", alert, **{"Content-Type": "application/json"})
    alerts = servers.eventually(server.alerts, "the alert is there")
    assert [alert["labels"]["alertname"] for alert in alerts] == ["smoke"]


def test_promtool_judges_rules(promtool: Tool, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    assert promtool("check", "rules", tmp_path / "rules.yml").returncode == 0
    (tmp_path / "rules.yml").write_text(RULES.replace("vector(1)", "vector("))
    assert promtool("check", "rules", tmp_path / "rules.yml").returncode != 0


def test_amtool_judges_a_configuration(amtool: Tool, tmp_path: Path) -> None:
    (tmp_path / "am.yml").write_text("route: {receiver: a}\nreceivers: [{name: a}]\n")
    assert amtool("check-config", tmp_path / "am.yml").returncode == 0
    (tmp_path / "am.yml").write_text("route: {receiver: b}\nreceivers: [{name: a}]\n")
    assert amtool("check-config", tmp_path / "am.yml").returncode != 0


def test_redis_answers(redis: str) -> None:
    host, _, port = redis.removeprefix("redis://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"


def test_kafka_delivers_what_was_produced(kafka: str) -> None:
    from confluent_kafka import Consumer, Producer

    producer = Producer({"bootstrap.servers": kafka})
    producer.produce("smoke", b"hello")
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "smoke", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe(["smoke"])
        message = servers.eventually(lambda: consumer.poll(0.2), "the message arrives")
        assert message is not None
        assert (message.error(), message.value()) == (None, b"hello")
    finally:
        consumer.close()


def test_postgres_gives_each_test_a_database(postgres_url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (x int)"))
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM t")).scalar() == 0
    engine.dispose()


def test_s3_keeps_what_pyarrow_writes(moto_s3: servers.S3) -> None:
    from pyarrow import fs

    store = fs.S3FileSystem(
        access_key=moto_s3.access_key,
        secret_key=moto_s3.secret_key,
        region=moto_s3.region,
        endpoint_override=moto_s3.endpoint,
    )
    with store.open_output_stream(f"{moto_s3.bucket}/a.txt") as out:
        out.write(b"hello")
    assert store.open_input_stream(f"{moto_s3.bucket}/a.txt").read() == b"hello"


def test_chromium_draws_a_page_after_its_scripts_ran(chromium: servers.Chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<body><script>document.body.append('drawn' + 1)</script>")
    assert "drawn1" in chromium.dom(page.as_uri())
    png = chromium.screenshot(page.as_uri(), tmp_path / "page.png", 320, 200).read_bytes()
    assert struct.unpack(">II", png[16:24]) == (320, 200)


def test_a_server_that_is_missing_fails_in_ci_and_skips_at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.KNOWN, "nothing", ([], ["no-such-program"], "it cannot be had"))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs nothing: it cannot be had"):
        servers.need("nothing")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="needs nothing"):
        servers.need("nothing")


def test_a_stopped_server_leaves_no_process(tmp_path: Path) -> None:
    process = servers.Process(["/bin/sh", "-c", "sleep 300 & echo started; wait"], tmp_path)
    process.logged("(started)")
    process.stop()

    def gone() -> bool:
        try:
            os.killpg(process.popen.pid, 0)
        except ProcessLookupError:
            return True
        return False

    servers.eventually(gone, "the process group is gone")


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1], servers.free_port()]
        monkeypatch.setattr(servers, "free_port", lambda: ports.pop(0))
        with servers.redis(tmp_path):
            assert ports == []
