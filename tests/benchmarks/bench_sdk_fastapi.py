"""FastAPI on uvicorn, a POST of 14 validated fields, four stages: CPU a request of the server process.

Six processes of one service: bare, twice (what they differ by is noise), instrumented by mlobs (1 % of the
records kept), with its middleware as well, by starlette_exporter and by prometheus-fastapi-instrumentator.
One client asks in short blocks in an order drawn anew each time, so that a noisy moment hits all. The peers
measure the request alone; mlobs the call and its stages, and with its middleware the request, too.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import create_model

BLOCKS = 120
REQUESTS = 40
WARM_UP = 250
FIELDS = {f"f{number}": number * 1.5 for number in range(12)} | {"country": "SE", "merchant": "m-17"}
GOAL = 1.05


def make_app(kind: str, folder: str) -> FastAPI:
    app = FastAPI()
    body = create_model("Body", **{name: (type(value), ...) for name, value in FIELDS.items()})  # type: ignore[call-overload]
    stage: Any = lambda _name: nullcontext()  # noqa: E731 - stands where mlobs.stage stands
    observe: Any = lambda fn: fn  # noqa: E731
    if kind.startswith("mlobs"):
        import mlobs
        from mlobs.integrations.asgi import MlobsMiddleware

        mlobs.init(service="bench", feature_log=folder, sample=0.01)
        app.mount("/metrics", mlobs.metrics_app())
        if kind != "mlobs":
            app.add_middleware(MlobsMiddleware)
        stage, observe = mlobs.stage, mlobs.observe(model="fraud", version="1")
    elif kind == "starlette_exporter":
        from starlette_exporter import PrometheusMiddleware, handle_metrics

        app.add_middleware(PrometheusMiddleware)
        app.add_route("/metrics", handle_metrics)
    elif kind == "instrumentator":
        from prometheus_fastapi_instrumentator import Instrumentator

        Instrumentator().instrument(app).expose(app)

    @observe
    async def predict(transaction: dict[str, Any]) -> float:
        with stage("feature_read"):
            features = dict(transaction)
        with stage("preprocess"):
            numbers = [value for value in features.values() if isinstance(value, float)]
        with stage("inference"):
            score = sum(numbers) % 1.0
        with stage("postprocess"):
            return round(score, 6)

    async def score(given: body) -> dict[str, float]:  # type: ignore[valid-type]
        return {"score": await predict(given.model_dump())}

    score.__annotations__["given"] = body
    app.post("/score")(score)
    return app


def cpu_seconds(pid: int) -> float:
    """Of all threads, to the nanosecond: the ticks of /proc/<pid>/stat are a tenth of a block."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


class Server:
    """One variant in a process of its own."""

    def __init__(self, kind: str, folder: str, stack: ExitStack) -> None:
        self.kind = kind
        read, write = os.pipe()
        command = [sys.executable, "-m", "tests.benchmarks.bench_sdk_fastapi", kind, folder, str(write)]
        self.process = subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)
        os.close(write)
        with os.fdopen(read) as port:
            self.connection = HTTPConnection("127.0.0.1", int(port.readline()), timeout=30)
        self.spent: list[float] = []

    def ask(self, requests: int) -> None:
        import json

        body, headers = json.dumps(FIELDS), {"Content-Type": "application/json"}
        before = cpu_seconds(self.process.pid)
        for _ in range(requests):
            self.connection.request("POST", "/score", body, headers)
            answer = self.connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        self.spent.append((cpu_seconds(self.process.pid) - before) / requests)


def serve(kind: str, folder: str, write: int) -> None:
    import socket

    # asyncio switches Nagle off where it knows that the protocol is TCP; else every answer waits 40 ms
    handle = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    handle.bind(("127.0.0.1", 0))
    handle.listen(16)
    os.write(write, f"{handle.getsockname()[1]}\n".encode())
    config = uvicorn.Config(
        make_app(kind, folder), log_level="error", access_log=False, timeout_keep_alive=120
    )
    uvicorn.Server(config).run(sockets=[handle])


def main() -> int:
    kinds = (
        "bare", "bare again", "mlobs", "mlobs, requests too", "starlette_exporter", "instrumentator",
    )  # fmt: skip
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = [Server(kind, folder, stack) for kind in kinds]
        time.sleep(3)  # a benchmark may wait for four servers to settle
        for server in servers:
            server.ask(WARM_UP)
            server.spent.clear()
        order, dice = list(servers), random.Random(7)
        for _ in range(BLOCKS):
            dice.shuffle(order)  # who comes after whom weighs more than what we measure
            for server in order:
                server.ask(REQUESTS)
        bare = servers[0]
        print(f"server CPU a request, {BLOCKS} blocks of {REQUESTS}; goal for mlobs {GOAL:.2f}x of bare")
        for server in servers:
            whole = sum(server.spent) / sum(bare.spent)
            pairs = [own / peer for own, peer in zip(server.spent, bare.spent, strict=True) if peer]
            each = statistics.fmean(server.spent) * 1e6
            paired = f"median of pairs {statistics.median(pairs):.2f}x"
            print(f"{server.kind:20} {each:7.0f} us  {whole:5.2f}x  ({paired})")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 4:
        serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
