"""The WSGI middleware around a real Flask, in the process and under gunicorn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from flask import Flask, Response

import mlobs
from mlobs.integrations.wsgi import MlobsMiddleware
from mlobs.sdk.trace import INCOMING
from mlobs.testing import Seen, capture
from tests.servers import ROOT, Process, eventually, free_port, http

COUNT = "http_server_request_duration_seconds_count"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


def flask_app() -> Flask:
    app = Flask(__name__)
    app.wsgi_app = MlobsMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    predict = mlobs.observe(model="m")(lambda item: item)

    @app.get("/items/<int:item>")
    def item(item: int) -> str:
        return str(predict(item))

    @app.get("/stream/<name>")
    def stream(name: str) -> Response:
        def body() -> Iterator[str]:
            yield "a"
            predict(1)
            if name == "fail":
                raise RuntimeError("broke off")

        return Response(body())

    @app.get("/boom")
    def boom() -> str:
        raise RuntimeError("no")

    return app


def test_requests_are_counted_by_rule_status_and_method(seen: Seen) -> None:
    client = flask_app().test_client()
    for item in (1, 2, 3):
        client.get(f"/items/{item}", buffered=True)
    client.get("/items/none", buffered=True)
    client.get("/boom", buffered=True)
    assert seen.value(COUNT, http_route="/items/<int:item>", http_response_status_code="200") == 3
    assert seen.value(COUNT, http_route="", http_response_status_code="404") == 1
    assert seen.value(COUNT, http_route="/boom", http_response_status_code="500") == 1


def test_the_incoming_context_is_the_parent_even_inside_a_streamed_body(seen: Seen) -> None:
    client = flask_app().test_client()
    client.get("/items/1", headers={"traceparent": PARENT}, buffered=True)
    client.get("/stream/x", headers={"traceparent": PARENT}, buffered=True)
    assert INCOMING.get() is None  # the next work of this thread is no part of that trace
    client.get("/items/1", buffered=True)
    traces = [record.trace_id for record in seen.records]
    assert traces[:2] == [PARENT[3:35]] * 2
    assert traces[2] != PARENT[3:35]


def test_a_stream_ends_with_its_body_and_its_failure_is_an_error(seen: Seen) -> None:
    client = flask_app().test_client()
    answer = client.get("/stream/ok", buffered=False)
    assert seen.value(COUNT) is None
    assert answer.data == b"a"
    answer.close()
    assert seen.value(COUNT, http_response_status_code="200") == 1
    with pytest.raises(RuntimeError, match="broke off"):
        client.get("/stream/fail", buffered=True)
    assert seen.value(COUNT, http_route="/stream/<name>", http_response_status_code="500") == 1


def test_an_app_that_raises_still_raises_and_any_framework_may_name_its_route(seen: Seen) -> None:
    def app(environ: dict[str, object], start: object) -> list[bytes]:
        raise KeyError("theirs")

    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    with pytest.raises(KeyError, match="theirs"):
        MlobsMiddleware(app, route=lambda environ: "/template")(environ, lambda *_: None)  # type: ignore[arg-type]
    assert seen.value(COUNT, http_route="/template", http_response_status_code="500") == 1


def test_a_route_that_fails_costs_the_count_and_not_the_request() -> None:
    app = flask_app()
    app.wsgi_app = MlobsMiddleware(app.wsgi_app, route=lambda environ: environ["nowhere"])  # type: ignore[method-assign]
    with capture(strict=False) as seen:
        assert app.test_client().get("/items/1", buffered=True).data == b"1"
        assert seen.internal_errors == {"route": 2}


def test_under_gunicorn(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", ROOT,
        "--worker-tmp-dir", tmp_path, "--no-control-socket", "tests.integrations.flask_service:app",
    ]  # fmt: skip
    server = Process(command, tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: http(f"{url}/items/0"), "gunicorn answers")
        assert http(f"{url}/items/1", traceparent=PARENT).decode() in (PARENT[3:35], "None")
        assert http(f"{url}/stream/x")[:1] == b"a"
        text = http(f"{url}/metrics").decode()
    finally:
        server.stop()
    assert 'http_route="/items/<int:item>"' in text
    assert 'http_server_request_duration_seconds_count{http_request_method="GET"' in text
    assert 'mlobs_request_duration_seconds_count{model="m"' in text


def test_metrics_over_wsgi_are_what_the_scraper_accepts() -> None:
    app = mlobs.metrics_wsgi_app()
    with capture():
        for method in ("GET", "HEAD"):
            environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": "application/openmetrics-text"}
            started: list[Any] = []
            body = b"".join(app(environ, lambda *given, into=started: into.extend(given)))
            status, headers = started
            assert status == "200 OK"
            assert dict(headers)["Content-Type"].startswith("application/openmetrics-text")
            assert body.endswith(b"# EOF\n") if method == "GET" else body == b""
