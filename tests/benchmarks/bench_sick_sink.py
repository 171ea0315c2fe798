"""Request p99 of a FastAPI service whose feature log or spans cannot be written, beside one that is well.

Processes of one service, every call kept (30 features, durability os), asked in turn by one client: a block
of the healthy one beside a block of a sick one is a pair, the order changing from pair to pair. The disks:

    dead       every open and write fails with EIO
    hung       a write never returns
    refusing   every write fails with ENOSPC
    trickle    a write takes one byte, after a second

Then the collector of its spans (OTLP by HTTP, every call traced), beside the same service with one that takes
them; `disk` or `collector` as argument runs one of the two. Kafka and S3 are not in the serving process:
`mlobs log ship` and `mlobs serve` write to them.

    dead       nobody listens on the port
    hung       takes connections and never answers
    refusing   answers 503
    trickle    answers a byte a second

Buffers are full before the first pair, so the sick ones drop. Pairs are added, `LEAST` to `MOST`, until the
95 % interval of the median ratio (bootstrap) is narrower than `NARROW`. `well` is a second process without
trouble: what the method makes of nothing. On a machine that others use, run it as `chrt -r 1 python ...`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn
from fastapi import FastAPI

import mlobs
from mlobs.featurelog import spool

REQUESTS = 400
LEAST, MOST = 10, 80
NARROW = 0.08
GOAL, UPPER_GOAL = 1.05, 1.15
KINDS = ("well", "dead", "hung", "refusing", "trickle")
FEATURES = {f"f{number}": number * 1.5 for number in range(27)} | {"a": "SE", "b": "m-17", "c": "+4670000000"}


class SickDisk:
    """`os`, for the spool alone, on a disk that behaves as `kind` says."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *args: Any, **kwargs: Any) -> int:
        if self.kind == "dead":
            raise OSError(errno.EIO, "dead")
        return os.open(*args, **kwargs)

    def write(self, handle: int, data: Any) -> int:
        if self.kind == "dead":
            raise OSError(errno.EIO, "dead")
        if self.kind == "refusing":
            raise OSError(errno.ENOSPC, "refused")
        if self.kind == "hung":
            threading.Event().wait()
        if self.kind == "trickle":
            time.sleep(1)
            return os.write(handle, bytes(data[:1]))
        return os.write(handle, data)


def collect(kind: str, write: int) -> None:
    """A collector that behaves as `kind` says, in a process of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            head = b"HTTP/1.1 503 No\r\n" if kind == "refusing" else b"HTTP/1.1 200 OK\r\n"
            answer = head + b"Content-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
            if kind != "trickle":
                self.wfile.write(answer)
                return
            for byte in answer:
                self.wfile.write(bytes([byte]))
                time.sleep(1)

        def log_message(self, *_: object) -> None:
            return

    if kind in ("dead", "hung"):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        if kind == "hung":
            listening.listen(64)
        os.write(write, f"{listening.getsockname()[1]}\n".encode())
        threading.Event().wait()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    os.write(write, f"{server.server_address[1]}\n".encode())
    server.serve_forever()


def serve(kind: str, folder: str, write: int, otlp: str) -> None:
    if kind not in ("healthy", "well"):
        spool.os = SickDisk(kind)  # type: ignore[attr-defined]
    mlobs.init(
        service="bench", feature_log=folder, sample=1.0, otlp=otlp or None, trace_sample=1.0 if otlp else None
    )

    @mlobs.observe(model="fraud", version="1")
    def predict(transaction: dict[str, Any]) -> float:
        return sum(value for value in transaction.values() if isinstance(value, float)) % 1.0

    for _ in range(25_000):  # more than the buffer holds
        predict(FEATURES)
    app = FastAPI()

    @app.post("/score")
    async def score(transaction: dict[str, Any]) -> dict[str, float]:
        return {"score": predict(transaction)}

    # asyncio switches Nagle off where it knows that the protocol is TCP; else every answer waits 40 ms
    handle = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    handle.bind(("127.0.0.1", 0))
    handle.listen(16)
    os.write(write, f"{handle.getsockname()[1]}\n".encode())
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run(sockets=[handle])


def started(role: str, *arguments: str, stack: ExitStack) -> int:
    """The port of a process of this file that does `role`."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "tests.benchmarks.bench_sick_sink", role, str(write), *arguments]
    process = subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    os.close(write)
    with os.fdopen(read) as port:
        return int(port.readline())


class Server:
    """One service in a process of its own, with a sick disk or a sick collector."""

    def __init__(self, folder: str, stack: ExitStack, disk: str = "healthy", collector: str = "") -> None:
        otlp = f"http://127.0.0.1:{started('collect', collector, stack=stack)}" if collector else ""
        port = started("serve", disk, f"{folder}/{disk}{collector}{time.time_ns()}", otlp, stack=stack)
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.body = json.dumps(FEATURES)

    def p99(self) -> float:
        """Seconds, of one block."""
        took = []
        for _ in range(REQUESTS):
            begin = time.perf_counter()
            self.connection.request("POST", "/score", self.body, {"Content-Type": "application/json"})
            answer = self.connection.getresponse()
            answer.read()
            took.append(time.perf_counter() - begin)
            assert answer.status == 200, answer.status
        return sorted(took)[int(0.99 * REQUESTS)]


def interval(ratios: list[float], rng: random.Random) -> tuple[float, float]:
    """Of the median, at 95 %, by bootstrap."""
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[49], medians[1949]


def compare(name: str, healthy: Server, sick: Server, rng: random.Random) -> None:
    """Pairs of blocks until the interval is narrow, and a line of what they say."""
    ratios: list[float] = []
    plain: list[float] = []
    low, high = 0.0, 9.0
    while len(ratios) < LEAST or (len(ratios) < MOST and high - low > NARROW):
        if len(ratios) % 2:
            one, other = healthy.p99(), sick.p99()
        else:
            other, one = sick.p99(), healthy.p99()
        ratios.append(other / one)
        plain.append(one)
        low, high = interval(ratios, rng)
    median = statistics.median(ratios)
    missed = "" if median <= GOAL and high <= UPPER_GOAL else "  missed"
    print(
        f"{name:9} {median:5.3f}x  95 % interval {low:5.3f} to {high:5.3f}, {len(ratios)} pairs, "
        f"healthy {statistics.median(plain) * 1e3:.2f} ms{missed}",
        flush=True,
    )


def run(what: str, make: Callable[[str, ExitStack], Server]) -> None:
    """Every kind beside the healthy one. `make(kind, stack)`."""
    rng = random.Random(1)
    with ExitStack() as stack:
        healthy = make("healthy", stack)
        healthy.p99()
        goals = f"goals: median {GOAL}, upper end {UPPER_GOAL}"
        print(f"{what}: p99 beside the healthy one, blocks of {REQUESTS} requests; {goals}", flush=True)
        for kind in KINDS:
            with ExitStack() as own:
                sick = make(kind, own)
                sick.p99()
                compare(kind, healthy, sick, rng)


def main() -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if sys.argv[1:] != ["collector"]:
            run("disk", lambda kind, stack: Server(folder, stack, disk=kind))
        if sys.argv[1:] != ["disk"]:
            run("collector", lambda kind, stack: Server(folder, stack, collector=kind))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[3], sys.argv[4], int(sys.argv[2]), sys.argv[5])
    elif sys.argv[1:2] == ["collect"]:
        collect(sys.argv[3], int(sys.argv[2]))
    else:
        sys.exit(main())
