"""Who may ask: host names, and ticks from loopback alone."""

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from prometheus_client import CollectorRegistry

from mlobs.errors import Problem, UnavailableError
from mlobs.settings import Settings
from mlobs.store import Store
from mlobs.web.app import create_app
from mlobs.web.guard import host_allowed
from tests.web.figures import Figures

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9464",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:9464",
        "127.8.8.8",
        "[::1]:9464",
        "localhost.",
    ],
)
def test_loopback_names_are_ours(host: str) -> None:
    assert host_allowed(host, "127.0.0.1:9464", None)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:9464",
        "10.0.0.5",
        "[::1",
        "evil.example@localhost:x]",
        "0.0.0.0",
        "127.1.evil",
        "xn--localhost",
    ],
)
def test_other_names_are_refused_on_loopback(host: str) -> None:
    assert not host_allowed(host, "127.0.0.1:9464", None)


@pytest.mark.parametrize(
    "host", ["mlobs", "mlobs:9464", "mlobs.prod.svc", "mlobs.prod.svc.cluster.local", "box.internal"]
)
def test_names_that_nobody_can_register_are_ours_where_we_listen_beyond_loopback(host: str) -> None:
    assert host_allowed(host, "0.0.0.0:9464", None)
    assert not host_allowed(host, "127.0.0.1:9464", None)


def test_the_configured_hosts_are_ours_and_beyond_loopback_any_literal_address() -> None:
    assert host_allowed("mlobs.corp.example", "0.0.0.0:9464", "https://mlobs.corp.example/")
    assert host_allowed("box.corp.example:9464", "box.corp.example:9464", None)
    assert host_allowed("10.0.0.5:9464", "0.0.0.0:9464", None)
    assert host_allowed("[fd00::5]:9464", "[::]:9464", None)
    assert not host_allowed("evil.example", "0.0.0.0:9464", "https://mlobs.corp.example/")


def ask(
    tick: Any,
    method: str,
    path: str,
    *,
    settings: Settings,
    peer: str = "127.0.0.1",
    content: bytes = b"",
    headers: Mapping[str, str] = JSON,
    host: str = "127.0.0.1:9464",
    times: int = 1,
) -> list[Response]:
    """`times` requests at once, from address `peer`."""

    async def go() -> list[Response]:
        store: Store = None  # type: ignore[assignment] # the views here are plain values
        app = create_app(settings, store, CollectorRegistry(), tick, views=Figures())
        transport = ASGITransport(app=app, client=(peer, 1234))
        async with AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            calls = [
                client.request(method, path, content=content, headers=dict(headers)) for _ in range(times)
            ]
            return list(await asyncio.gather(*calls))

    return asyncio.run(go())


DRIVEN = Settings("flights-api", clock="driven")


@pytest.mark.parametrize("path", ["/", "/api/status", "/metrics", "/static/x", "/healthz"])
def test_a_foreign_host_header_is_refused_everywhere(path: str) -> None:
    (answer,) = ask(None, "GET", path, settings=DRIVEN, host="rebound.example")
    assert answer.status_code == 421
    assert "public_url" in answer.text
    assert "content-security-policy" in answer.headers


def test_a_tick_runs_off_the_event_loop_and_answers_with_what_it_did() -> None:
    threads = []

    def tick(now: float) -> Mapping[str, Any]:
        threads.append(threading.current_thread())
        return {"now": now, "alerts": [], "late": float("nan")}

    (answer,) = ask(tick, "POST", "/api/tick", settings=DRIVEN, content=b'{"now": 1362114000}')
    assert answer.json() == {"now": 1362114000.0, "alerts": [], "late": None}
    assert threads[0] is not threading.main_thread()


def test_one_tick_runs_at_a_time() -> None:
    inside, most, gate = 0, 0, threading.Lock()

    def tick(now: float) -> Mapping[str, Any]:
        nonlocal inside, most
        with gate:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.01)  # long enough for another to slip in if it could
        with gate:
            inside -= 1
        return {}

    answers = ask(tick, "POST", "/api/tick", settings=DRIVEN, content=b'{"now": 1}', times=6)
    assert {answer.status_code for answer in answers} == {200}
    assert most == 1


@pytest.mark.parametrize("peer", ["10.0.0.5", "192.168.1.9", "2001:db8::1", "testclient"])
def test_a_tick_from_another_machine_is_refused(peer: str) -> None:
    (answer,) = ask(_never, "POST", "/api/tick", settings=DRIVEN, peer=peer, content=b'{"now": 1}')
    assert answer.status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_tick_through_a_proxy_on_this_machine_is_refused(header: str) -> None:
    headers = {**JSON, header: "10.0.0.5"}
    (answer,) = ask(_never, "POST", "/api/tick", settings=DRIVEN, headers=headers, content=b'{"now": 1}')
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_tick_that_a_foreign_page_could_send_is_refused(kind: str) -> None:
    (answer,) = ask(
        _never, "POST", "/api/tick", settings=DRIVEN, headers={"Content-Type": kind}, content=b'{"now": 1}'
    )
    assert answer.status_code == 415


def test_the_wall_clock_takes_no_tick() -> None:
    (answer,) = ask(_never, "POST", "/api/tick", settings=Settings("flights-api"), content=b'{"now": 1}')
    assert answer.status_code == 409
    (answer,) = ask(_never, "GET", "/api/tick", settings=DRIVEN)
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b"{}",
        b'{"now": "1"}',
        b'{"now": null}',
        b'{"now": true}',
        b'{"now": NaN}',
        b'{"now": Infinity}',
        b'{"now": -1}',
        b'{"now": 1e300}',
        b'{"now": 1, "then": 2}',
        b"\xff\xfe",
        b"[" * 4000,
        json.dumps({"now": 10**400}).encode(),
    ],
)
def test_a_body_that_names_no_time_is_refused_with_what_is_expected(body: bytes) -> None:
    (answer,) = ask(_never, "POST", "/api/tick", settings=DRIVEN, content=body)
    assert answer.status_code == 400
    assert '{"now": seconds' in answer.json()["error"]


def test_a_body_that_is_too_long_is_refused_before_it_is_read_whole() -> None:
    (answer,) = ask(_never, "POST", "/api/tick", settings=DRIVEN, content=b" " * 5000 + b'{"now": 1}')
    assert answer.status_code == 413


def test_a_stage_that_is_not_available_is_an_answer_and_not_a_traceback() -> None:
    def tick(now: float) -> Mapping[str, Any]:
        raise UnavailableError(Problem("target", "an answer", "a timeout", "start it"))

    (answer,) = ask(tick, "POST", "/api/tick", settings=DRIVEN, content=b'{"now": 1}')
    assert answer.status_code == 503
    assert answer.json() == {"error": "target: expected an answer, got a timeout; start it"}


def _never(now: float) -> Mapping[str, Any]:
    raise AssertionError("no tick may run")
