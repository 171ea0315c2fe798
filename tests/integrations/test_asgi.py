"""The ASGI middleware inside real FastAPI and Starlette applications."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import mlobs
from mlobs.integrations.asgi import MlobsMiddleware
from mlobs.sdk.trace import INCOMING
from mlobs.testing import Seen, capture

COUNT = "http_server_request_duration_seconds_count"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


def fastapi_app() -> FastAPI:
    @mlobs.observe(model="m")
    def predict(item: int) -> int:
        return item

    router = APIRouter(prefix="/items")

    @router.get("/{item}")
    def sync_endpoint(item: int) -> int:
        return predict(item)

    @router.get("/async/{item}")
    async def async_endpoint(item: int) -> int:
        return predict(item)

    @router.get("/boom/{item}")
    async def boom(item: int) -> int:
        raise RuntimeError("no")

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.add_middleware(MlobsMiddleware)
    return app


def test_requests_are_counted_by_template_status_and_method_never_by_path(seen: Seen) -> None:
    client = TestClient(fastapi_app(), raise_server_exceptions=False)
    for item in (1, 2, 3):
        assert client.get(f"/v1/items/{item}").status_code == 200
    client.get("/v1/items/none")
    client.get("/v1/items/boom/7")
    client.get("/elsewhere/4711")
    client.request("BREW", "/v1/items/1")
    route = "/v1/items/{item}"
    assert seen.value(COUNT, http_route=route, http_response_status_code="200") == 3
    assert seen.value(COUNT, http_route=route, http_response_status_code="422") == 1
    assert seen.value(COUNT, http_route="/v1/items/boom/{item}", http_response_status_code="500") == 1
    assert seen.value(COUNT, http_route="", http_response_status_code="404") == 1
    assert seen.value(COUNT, http_request_method="_OTHER", http_response_status_code="405") == 1


@pytest.mark.parametrize("path", ["/v1/items/1", "/v1/items/async/1"])
def test_the_incoming_context_is_the_parent_of_observed_calls(seen: Seen, path: str) -> None:
    client = TestClient(fastapi_app())
    client.get(path, headers={"traceparent": PARENT})
    client.get(path)
    client.get(path, headers={"traceparent": "00-garbage"})
    traces = [record.trace_id for record in seen.records]
    assert traces[0] == "0af7651916cd43dd8448eb211c80319c"
    assert traces[0] not in traces[1:]


def test_mounted_templates_keep_their_prefix_as_a_template(seen: Seen) -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    inner = Starlette(routes=[Route("/a/{id}", endpoint)])
    app = Starlette(
        routes=[
            Mount("/tenant/{tenant}", routes=[Route("/b/{id}", endpoint)]),
            Mount("/in", app=inner),
            Mount("/metrics", app=mlobs.metrics_app()),
        ]
    )
    app.add_middleware(MlobsMiddleware)
    client = TestClient(app)
    client.get("/tenant/9/b/2")
    client.get("/in/a/3")
    client.get("/metrics/")
    assert seen.value(COUNT, http_route="/tenant/{tenant}/b/{id}") == 1
    assert seen.value(COUNT, http_route="/in/a/{id}") == 1
    assert seen.value(COUNT, http_route="/metrics") == 1


def test_a_stream_is_timed_to_its_last_byte_and_its_failure_is_an_error(seen: Seen) -> None:
    counted: list[float | None] = []

    async def body(fail: bool) -> object:
        counted.append(seen.value(COUNT))
        yield b"a"
        counted.append(seen.value(COUNT))
        if fail:
            raise RuntimeError("broke off")
        yield b"b"

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(body(request.url.path == "/fail"))  # type: ignore[arg-type]

    app = Starlette(routes=[Route("/ok", endpoint), Route("/fail", endpoint)])
    app.add_middleware(MlobsMiddleware)
    client = TestClient(app, raise_server_exceptions=False)
    client.get("/ok")
    assert counted == [None, None]
    assert seen.value(COUNT, http_route="/ok", http_response_status_code="200") == 1
    client.get("/fail")
    assert seen.value(COUNT, http_route="/fail", http_response_status_code="500") == 1


def test_a_failure_of_ours_reaches_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("mlobs.integrations.passage.observe_value", broken)
    monkeypatch.setattr("mlobs.integrations.passage.parse_traceparent", broken)
    with capture(strict=False) as seen:
        answer = TestClient(fastapi_app()).get("/v1/items/1", headers={"traceparent": PARENT})
        assert (answer.status_code, answer.json()) == (200, 1)
        assert seen.internal_errors == {"incoming": 1, "request": 1}


def test_lifespan_and_websockets_pass_through(seen: Seen) -> None:
    async def talk(socket: WebSocket) -> None:
        incoming = INCOMING.get()
        await socket.accept()
        await socket.send_text("" if incoming is None else incoming.trace_id)
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/ws", talk)])
    app.add_middleware(MlobsMiddleware)
    with (
        TestClient(app) as client,
        client.websocket_connect("/ws", headers={"traceparent": PARENT}) as socket,
    ):
        assert socket.receive_text() == PARENT[3:35]
    assert seen.value(COUNT) is None
