"""The interceptor in a real gRPC server, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import mlobs
from mlobs.integrations.grpc_server import MlobsInterceptor
from mlobs.testing import Seen, capture
from tests.servers import eventually

COUNT = "rpc_server_call_duration_seconds_count"
WAITING = threading.Event()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@mlobs.observe(model="m")
def predict(request: bytes) -> bytes:
    return request.upper()


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"boom":
        raise RuntimeError("no")
    if request == b"wait":
        gone = threading.Event()
        context.add_callback(gone.set)
        WAITING.set()
        gone.wait(60)
    return predict(request)


def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for letter in request:
        yield predict(bytes([letter]))


def collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b"".join(map(predict, requests))


def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from map(predict, requests)


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool, interceptors=[MlobsInterceptor()])
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("fraud.Scorer", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    server.stop(None).wait()
    pool.shutdown()


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


def counted(seen: Seen, method: str, code: str) -> bool:
    labels = {"rpc_method": f"fraud.Scorer/{method}", "rpc_response_status_code": code}
    return eventually(lambda: seen.value(COUNT, **labels) == 1, f"{method} with {code} is counted")


def test_all_four_kinds_are_counted_and_carry_their_context(seen: Seen, channel: grpc.Channel) -> None:
    with_parent = {"metadata": [("traceparent", PARENT)], "timeout": 10}
    assert channel.unary_unary("/fraud.Scorer/Unary")(b"a", **with_parent) == b"A"
    assert list(channel.unary_stream("/fraud.Scorer/Stream")(b"ab", **with_parent)) == [b"A", b"B"]
    assert channel.stream_unary("/fraud.Scorer/Collect")(iter([b"a", b"b"]), **with_parent) == b"AB"
    assert list(channel.stream_stream("/fraud.Scorer/Echo")(iter([b"a"]), **with_parent)) == [b"A"]
    for method in ("Unary", "Stream", "Collect", "Echo"):
        assert counted(seen, method, "OK")
    assert {record.trace_id for record in seen.records} == {PARENT[3:35]}
    channel.unary_unary("/fraud.Scorer/Unary")(b"a", timeout=10)
    assert seen.records[-1].trace_id != PARENT[3:35]


@pytest.mark.parametrize(
    ("request_", "code"), [(b"missing", grpc.StatusCode.NOT_FOUND), (b"boom", grpc.StatusCode.UNKNOWN)]
)
def test_failures_keep_their_code(
    seen: Seen, channel: grpc.Channel, request_: bytes, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/fraud.Scorer/Unary")(request_, timeout=10)
    assert caught.value.code() is code
    assert counted(seen, "Unary", code.name)


def test_a_client_that_goes_away_is_cancelled(seen: Seen, channel: grpc.Channel) -> None:
    WAITING.clear()
    call = channel.unary_unary("/fraud.Scorer/Unary").future(b"wait")
    assert WAITING.wait(60)  # else it is cancelled before the server hears of it
    call.cancel()
    assert counted(seen, "Unary", "CANCELLED")


def test_an_unknown_method_makes_no_label(seen: Seen, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/fraud.Scorer/Guessed")(b"a", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert seen.value(COUNT) is None


def test_a_failure_of_ours_reaches_no_call(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("mlobs.integrations.passage.observe_value", broken)
    monkeypatch.setattr("mlobs.integrations.grpc_server.incoming", broken)
    with capture(strict=False) as seen:
        assert channel.unary_unary("/fraud.Scorer/Unary")(b"a", timeout=10) == b"A"
        eventually(lambda: seen.internal_errors == {"incoming": 1, "request": 1}, "both are counted")
