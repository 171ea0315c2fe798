"""What the workers of the tests run: a WSGI app, an ASGI app, and work for processes. Not a test."""

import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import mlobs
from mlobs.sdk.serve import render

mlobs.init(
    service=os.environ.get("WORKER_SERVICE", "workers"),
    native="WORKER_LOG" in os.environ,
    sample=1.0,
    feature_log=os.environ.get("WORKER_LOG"),
    otlp=os.environ.get("WORKER_OTLP"),
)

_HELD = threading.Event()


@mlobs.observe(model="m", version="1")
def score(value: int) -> int:
    with mlobs.stage("inference"):
        mlobs.cache("feature_read").looked(True)
        return value


@mlobs.observe(model="held")
def hold() -> None:
    _HELD.wait()


@mlobs.observe(model="apart", version="1")
def linger(request: dict[str, Any]) -> None:
    time.sleep(request["seconds"])


def answer(path: str, accept: str = "") -> tuple[bytes, str]:
    """Body and content type."""
    if path == "/metrics":
        return render(accept)
    if path == "/work":
        score(1)
    if path.startswith("/apart/"):  # one worker is slow, the others are fast
        linger({"seconds": 0.03 if path == f"/apart/{os.getpid()}" else 0.0})
    if path == "/hold":
        threading.Thread(target=hold, daemon=True).start()
    return str(os.getpid()).encode(), "text/plain"


def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    body, kind = answer(environ["PATH_INFO"], environ.get("HTTP_ACCEPT", ""))
    start("200 OK", [("Content-Type", kind), ("Connection", "close")])
    return [body]


async def asgi(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, _ = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def worked(times: int) -> None:
    """In a child: so many calls."""
    for _ in range(times):
        score(1)
