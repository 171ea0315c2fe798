"""What the workers of the tests run: a WSGI app, an ASGI app, and work for processes. Not a test."""

import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import mlobs
from mlobs.sdk.serve import render

mlobs.init(service=os.environ.get("WORKER_SERVICE", "workers"))

_HELD = threading.Event()


@mlobs.observe(model="m", version="1")
def score(value: int) -> int:
    with mlobs.stage("inference"):
        mlobs.cache("feature_read").looked(True)
        return value


@mlobs.observe(model="held")
def hold() -> None:
    _HELD.wait()


def answer(path: str) -> bytes:
    if path == "/metrics":
        return render("")[0]
    if path == "/work":
        score(1)
    if path == "/hold":
        threading.Thread(target=hold, daemon=True).start()
    return str(os.getpid()).encode()


def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    body = answer(environ["PATH_INFO"])
    start("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
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
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def worked(times: int) -> None:
    """In a child: so many calls."""
    for _ in range(times):
        score(1)
