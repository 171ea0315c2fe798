"""The interceptor in a real gRPC server of grpcio's asyncio API, on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import mlobs
from mlobs.integrations.grpc_aio import MlobsInterceptor
from mlobs.testing import Seen, capture

COUNT = "rpc_server_call_duration_seconds_count"
WAITING = threading.Event()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@mlobs.observe(model="m")
async def predict(request: bytes) -> bytes:
    await asyncio.sleep(0)
    return request.upper()


async def unary(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"said":
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
    if request == b"boom":
        raise RuntimeError("no")
    if request == b"wait":
        WAITING.set()
        await asyncio.sleep(60)
    return await predict(request)


async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for letter in request:
        yield await predict(bytes([letter]))


async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([await predict(request) async for request in requests])


async def echo(requests: Any, context: Any) -> None:
    """The other way to answer with a stream: read and write."""
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(await predict(request))


@mlobs.observe(model="m")
def plain_predict(request: bytes) -> bytes:
    return request.upper()


def plain(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"said":
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
    if request == b"boom":
        raise RuntimeError("no")
    return plain_predict(request)


def plain_stream(request: bytes, context: Any) -> Iterator[bytes]:
    for letter in request:
        yield plain_predict(bytes([letter]))


@asynccontextmanager
async def serving() -> AsyncIterator[grpc.aio.Channel]:
    pool = ThreadPoolExecutor(2)  # for the plain functions
    server = grpc.aio.server(pool, interceptors=[MlobsInterceptor()])
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Plain": grpc.unary_unary_rpc_method_handler(plain),
        "PlainStream": grpc.unary_stream_rpc_method_handler(plain_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("fraud.Scorer", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)
    pool.shutdown()


def running(work: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving() as channel:
            await work(channel)

    asyncio.run(main())


async def counted(seen: Seen, method: str, code: str) -> None:
    labels = {"rpc_method": f"fraud.Scorer/{method}", "rpc_response_status_code": code}
    async with asyncio.timeout(10):
        while seen.value(COUNT, **labels) != 1:
            await asyncio.sleep(0.01)


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


def test_all_kinds_are_counted_and_carry_their_context(seen: Seen) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        more: dict[str, Any] = {"metadata": [("traceparent", PARENT)], "timeout": 10}
        assert await channel.unary_unary("/fraud.Scorer/Unary")(b"a", **more) == b"A"
        assert [each async for each in channel.unary_stream("/fraud.Scorer/Stream")(b"ab", **more)] == [
            b"A", b"B"
        ]  # fmt: skip
        assert await channel.stream_unary("/fraud.Scorer/Collect")(iter([b"a", b"b"]), **more) == b"AB"
        assert [each async for each in channel.stream_stream("/fraud.Scorer/Echo")(iter([b"a"]), **more)] == [
            b"A"
        ]
        assert await channel.unary_unary("/fraud.Scorer/Plain")(b"a", **more) == b"A"
        assert [each async for each in channel.unary_stream("/fraud.Scorer/PlainStream")(b"a", **more)] == [
            b"A"
        ]
        for method in ("Unary", "Stream", "Collect", "Echo", "Plain", "PlainStream"):
            await counted(seen, method, "OK")
        assert {record.trace_id for record in seen.records} == {PARENT[3:35]}
        await channel.unary_unary("/fraud.Scorer/Unary")(b"a", timeout=10)
        assert seen.records[-1].trace_id != PARENT[3:35]

    running(work)


@pytest.mark.parametrize("method", ["Unary", "Plain"])
@pytest.mark.parametrize(
    ("request_", "code"),
    [(b"missing", "NOT_FOUND"), (b"said", "FAILED_PRECONDITION"), (b"boom", "UNKNOWN")],
)
def test_failures_keep_their_code(seen: Seen, method: str, request_: bytes, code: str) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary(f"/fraud.Scorer/{method}")(request_, timeout=10)
        assert caught.value.code().name == code
        await counted(seen, method, code)

    running(work)


def test_a_client_that_goes_away_is_cancelled_and_an_unknown_method_no_label(seen: Seen) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary("/fraud.Scorer/Unary")(b"wait")
        with pytest.raises(grpc.RpcError):
            await channel.unary_unary("/fraud.Scorer/Guessed")(b"a", timeout=10)
        assert seen.value(COUNT) is None
        while not WAITING.is_set():  # else it is cancelled before the server hears of it
            await asyncio.sleep(0.01)
        call.cancel()
        await counted(seen, "Unary", "CANCELLED")

    running(work)


def test_a_failure_of_ours_reaches_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("mlobs.integrations.passage.observe_value", broken)
    monkeypatch.setattr("mlobs.integrations.grpc_server.incoming", broken)

    async def work(channel: grpc.aio.Channel) -> None:
        assert await channel.unary_unary("/fraud.Scorer/Unary")(b"a", timeout=10) == b"A"

    with capture(strict=False) as seen:
        running(work)
        assert seen.internal_errors == {"incoming": 1, "request": 1}
