"""A planted card number goes through the whole of mlobs and comes out nowhere: every output is scanned.

One story: an observed service has the number wherever data can stand, fails and is paged. Scanned are, in
raw, base64, hex, URL, JSON and UTF-16 form: its spool and lake (as bytes and read back), Kafka messages, dead
letters, spans, /metrics with exemplars, log lines and exception texts, the state, web pages and JSON, what
four channels were sent. Then each guard is turned off, and the scan must find the number there.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from starlette.testclient import TestClient
from typer.testing import CliRunner

import mlobs
from mlobs.cli import app as commands
from mlobs.config import parse_settings
from mlobs.featurelog.compact import compact
from mlobs.featurelog.kafka import Address
from mlobs.featurelog.masking import Masker
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.ship import Shipper
from mlobs.featurelog.storage import DiskStorage
from mlobs.sdk import logs, meter, otelspans
from mlobs.sdk.api import default_runtime
from mlobs.sdk.collector import make_registry
from mlobs.service.keptcalls import call_finder
from mlobs.service.serve import SCHEMAS, wire
from mlobs.store import open_store
from mlobs.web.app import create_app
from tests.featurelog.bytescan import betrayals
from tests.featurelog.mockkafka import MSG_SIZE_TOO_LARGE, Cluster, mock_cluster
from tests.notify.stubs import PagerDuty, Slack, receiver, serving
from tests.sdk.receiver import Receiver, by_http
from tests.servers import eventually

CARD = "4539578763621486"
SPACED = " ".join(CARD[start : start + 4] for start in range(0, 16, 4))
KEY = "0123456789abcdef0123456789abcdef"
START = 1_700_000_000.0
CALLS = 30

SETTINGS = """
service: fraud-api
clock: driven
feature_log: {log}
targets: ["http://127.0.0.1:1/metrics"]
drift: {{window: 1m, min_rows: 5, persistence: 1 of 1}}
models:
  - {{name: fraud}}
slo:
  objectives: [{{name: fraud-available, model: fraud, sli: availability, objective: 99.9%}}]
notify:
  channels:
    print: {{console: }}
    hook: {{webhook: {{url: "{hook}/in", allow_http: true, allow_private: true}}}}
    slack: {{slack: {{channel: "#oncall", base_url: "{slack}", token_file: {secret}}}}}
    duty:
      pagerduty: {{base_url: "{duty}", routing_key_file: {secret}2, allow_http: true, allow_private: true}}
  routes: [{{to: [print, hook, slack, duty]}}]
"""

EXPOSITION = """# TYPE mlobs_request_duration_seconds histogram
mlobs_process_start_time_seconds 1700000000
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="ok"}} {ok}
mlobs_request_duration_seconds_count{{model="fraud",model_version="1",outcome="error"}} {bad}
"""

Outputs = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with mock_cluster() as one:
        yield one


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with by_http() as one:
        yield one


def request_of(number: int) -> dict[str, Any]:
    return {
        "id": CARD if number % 2 else f"order {number} {SPACED}",
        "who": CARD,
        "country": CARD,
        "card": int(CARD),
        "float": float(CARD),
        CARD: "as a name",
        "note": f"paid by {SPACED}",
        "bytes": CARD.encode(),
        "nested": {"card": CARD},
        "bad": number % 3 == 0,
    }


@contextmanager
def host_logs() -> Iterator[io.StringIO]:
    """What the host's own loggers write through our formatter, and ours write anywhere."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(mlobs.JsonFormatter(service="fraud-api"))
    handler.addFilter(mlobs.LogFilter())
    plain = logging.StreamHandler(stream)
    plain.addFilter(mlobs.LogFilter())
    plain.setFormatter(logging.Formatter("%(name)s %(prediction_id)s %(message)s"))
    ours, host = logging.getLogger("mlobs"), logging.getLogger("host")
    levels = ours.level, host.level
    try:
        for logger, one in ((ours, handler), (ours, plain), (host, handler)):
            logger.addHandler(one)
            logger.setLevel(logging.DEBUG)
        yield stream
    finally:
        for logger, one in ((ours, handler), (ours, plain), (host, handler)):
            logger.removeHandler(one)
        ours.setLevel(levels[0])
        host.setLevel(levels[1])


def served(folder: Path, collector: Receiver) -> Outputs:
    """A service that has the number everywhere: what its process lets out."""

    @mlobs.observe(model="fraud", version="1", prediction_id="id", entity="who", segment="country",
                   decision=lambda result: f"deny {CARD}")  # fmt: skip
    def score(request: dict[str, Any]) -> str:
        with mlobs.stage(CARD):
            logging.getLogger("mlobs.host").info("scored")
            logging.getLogger("host").info(
                "card %s", SPACED, extra={"card": int(CARD), "row": {CARD: [CARD]}}
            )
        if request["bad"]:
            raise ValueError(f"no such card: {CARD}")
        return CARD

    def broken(request: dict[str, Any]) -> Any:
        raise LookupError(f"{request['card']}")

    @mlobs.observe(model="broken", features=broken, entity=broken, segment=broken, prediction_id=broken)
    def fails_in_us(request: dict[str, Any]) -> int:
        return 1

    @mlobs.observe(model="rows", batch="rows", prediction_id="id", entity="who", segment="country")
    def score_rows(rows: list[dict[str, Any]]) -> list[str]:
        return [CARD] * len(rows)

    times = iter(START + 7200.0 + number for number in range(10_000))
    collector.requests.clear()
    with host_logs() as stream:
        mlobs.init(
            service="fraud-api",
            feature_log=str(folder),
            sample=1.0,
            otlp=collector.url,
            clock=lambda: next(times),
        )
        try:
            for number in range(CALLS):
                try:
                    score(request_of(number))
                except ValueError:
                    logging.getLogger("host").exception("failed")
            fails_in_us(request_of(0))
            score_rows([request_of(number) for number in range(4)])
            mlobs.log_label(CARD, CARD)
            assert mlobs.flush(10)
            registry = make_registry(default_runtime())
            exposed = [generate_latest(registry), openmetrics(registry)]
            ledger = repr(
                [default_runtime().ledgers(), default_runtime().guard.counts, vars(default_runtime())]
            )
        finally:
            assert mlobs.close(10)
    lines = stream.getvalue()
    assert "trace_id" in exposed[1].decode()  # exemplars are there to be scanned
    assert "no such card" in lines
    assert collector.spans
    return {
        "spans": [each.SerializeToString() for each in collector.requests],
        "metrics": exposed,
        "logs": [lines.encode(), ledger.encode()],
    }


def on_kafka(folder: Path, cluster: Cluster, topic: str) -> Outputs:
    """Ships the spool; one message is refused and becomes a dead letter."""
    cluster.topic(topic, 1)
    cluster.fail([MSG_SIZE_TOO_LARGE])
    with Shipper(folder, Address(cluster.brokers, topic, "scan"), {}, batch_rows=5, remove=False) as ship:
        ship.ship()
    consumer = Consumer(
        {"bootstrap.servers": cluster.brokers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    found: list[bytes] = []

    def enough() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value() + (message.key() or b"") + repr(message.headers()).encode())
        return len(found) >= 5

    try:
        consumer.subscribe([topic])
        eventually(enough, "messages of the topic")
        while (message := consumer.poll(0.3)) is not None:
            found.append((message.value() or b"") + (message.key() or b"") + repr(message.headers()).encode())
    finally:
        consumer.close()
    return {"kafka": found}


def read_back(folder: Path) -> list[bytes]:
    chunk = LogReader(folder).poll()
    rows = [row for table in chunk.records.values() for row in table.to_pylist()] + chunk.labels.to_pylist()
    assert len(rows) >= CALLS + 5
    told = CliRunner().invoke(commands, ["log", "tail", str(folder), "-n", "1000"]).output
    stat = CliRunner().invoke(commands, ["log", "stat", str(folder), "--json"]).output
    return [json.dumps(rows, default=str).encode(), told.encode(), stat.encode()]


def files_of(folder: Path) -> list[bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [path.read_bytes() for path in paths] + [str(path.relative_to(folder)).encode() for path in paths]


def paged(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Outputs:
    """`mlobs serve` over that log while the service is down: state, pages of the web, pages to people."""
    with ExitStack() as stack:
        hook, slack, duty = receiver(), Slack(), PagerDuty()
        for stub in (hook, slack.stub, duty.stub):
            stack.enter_context(serving(stub))
        (tmp_path / "secret").write_text("xoxb-right\n")
        (tmp_path / "secret2").write_text("r" * 32 + "\n")
        text = SETTINGS.format(
            log=folder, hook=hook.url, slack=slack.stub.url, duty=duty.stub.url, secret=tmp_path / "secret"
        )
        settings = parse_settings(text, tmp_path)
        store = open_store(settings.store, SCHEMAS)
        now = START

        def fetch(_url: str) -> str:
            bad = max(0.0, now - START - 7200) / 60 * 100
            return EXPOSITION.format(ok=(now - START) / 60 * 100 - bad, bad=bad)

        service = wire(settings, store, fetch)
        stack.callback(service.close)
        while now < START + 7200 + 480:
            now += 600 if now < START + 7200 else 60
            answer = service.tick(now)
        assert answer["failed"] == {}
        assert answer["records"] is not None
        reader = LogReader(folder)

        client = TestClient(
            create_app(settings, store, service.registry, service.tick, find_call=call_finder(reader)),
            base_url="http://127.0.0.1:9464",
        )
        listed = client.get("/api/incidents").text
        (incident,) = [each for each in json.loads(listed)["incidents"] if each["cause"] == "availability"]
        traces = [row["trace_id"] for row in reader.poll().records["fraud"].to_pylist()][:5]
        ident = incident["id"]
        asked = ["/", "/drift", "/incidents", f"/incidents/{ident}", f"/api/incidents/{ident}",
                 "/api/status", "/api/drift", "/api/pipelines", "/metrics", "/slos/fraud-available",
                 *(f"{place}/{trace}" for trace in traces for place in ("/calls", "/api/calls"))]  # fmt: skip
        answers = [client.get(path) for path in asked]
        assert [each.status_code for each in answers] == [200] * len(asked)
        sent = [each.body for each in (*hook.requests, *slack.stub.requests, *duty.stub.requests)]
        assert all(stub.requests for stub in (hook, slack.stub, duty.stub))
        assert any(traces[0].encode() in body or b"trace" in body for body in sent)
        console = capsys.readouterr()
    state = [path.read_bytes() for path in tmp_path.glob("mlobs.db*")]
    assert state
    return {
        "web": [listed.encode(), *(each.content for each in answers)],
        "notifications": [*sent, console.out.encode(), console.err.encode()],
        "state": state,
    }


@pytest.fixture
def run(
    tmp_path: Path,
    cluster: Cluster,
    collector: Receiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Outputs]:
    monkeypatch.setenv("MLOBS_HASH_KEY", KEY)

    def tell(serving_alone: bool = False) -> Outputs:
        folder = tmp_path / "featurelog"
        outputs = served(folder, collector)
        if serving_alone:
            return outputs
        outputs["spool"] = files_of(folder) + read_back(folder)
        outputs |= on_kafka(folder, cluster, tmp_path.name)
        outputs["dead letters"] = [path.read_bytes() for path in (folder / "spool" / "dead").iterdir()]
        compact(folder, DiskStorage(folder), START + 9000)
        outputs["lake"] = files_of(folder) + read_back(folder)
        outputs |= paged(folder, tmp_path, capsys)
        return outputs

    return tell


def found_in(outputs: Outputs) -> set[str]:
    return {kind for kind, blobs in outputs.items() if betrayals(CARD, blobs)}


def test_a_planted_card_number_comes_out_nowhere(run: Callable[..., Outputs]) -> None:
    outputs = run()
    assert set(outputs) == {"spans", "metrics", "logs", "spool", "kafka", "dead letters", "lake", "web",
                            "notifications", "state"}  # fmt: skip
    assert {kind: found for kind, blobs in outputs.items() if (found := betrayals(CARD, blobs))} == {}


def test_with_masking_turned_off_the_scan_finds_the_number_everywhere(
    run: Callable[..., Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("ids", "words", "entities"):
        monkeypatch.setattr(Masker, part, lambda self, values: self._clear(values))
    monkeypatch.setattr(Masker, "feature", lambda self, model, name: self._clear)
    assert found_in(run()) == {"spool", "lake", "kafka", "dead letters", "web", "notifications", "state"}


@pytest.mark.parametrize(
    ("holder", "guard", "place"),
    [
        (otelspans, "veiled", "spans"),
        (meter, "_veiled", "metrics"),
        (logs, "veiled", "logs"),
        (logs, "without_cards", "logs"),
    ],
)
def test_with_another_guard_turned_off_the_scan_finds_the_number_there(
    run: Callable[..., Outputs], monkeypatch: pytest.MonkeyPatch, holder: Any, guard: str, place: str
) -> None:
    monkeypatch.setattr(holder, guard, str)
    assert place in found_in(run(serving_alone=True))
