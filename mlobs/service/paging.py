"""The POST side of paging on the web app: on-call API, Slack's buttons, Alertmanager's webhook.

`mount` puts it before the app's own routes. Each request works in a thread: the store is asked, nobody else
waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlobs.notify.api import OnCall
from mlobs.notify.receiver import MOST_BYTES
from mlobs.web.guard import is_loopback

PATHS = (
    "/api/incidents/{incident}/ack",
    "/api/incidents/{incident}/resolve",
    "/api/events",
    "/api/silences",
    "/api/alertmanager",
    "/api/slack",
)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def mount(app: Starlette, oncall: OnCall, now: Callable[[], float]) -> None:
    """Let `app` take POSTs for `oncall`; `now` gives the event time."""

    async def answer(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return JSONResponse({"error": f"more than {MOST_BYTES} bytes"}, status_code=413)
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, local = request.url.path, is_local(request)
        found = await run_in_threadpool(
            lambda: oncall.answer(path, headers, body, now(), local=local, wall=time.time())
        )
        kind = "done" if found.status == 200 else "error"
        return JSONResponse({kind: found.text}, status_code=found.status)

    for path in reversed(PATHS):
        app.router.routes.insert(0, Route(path, answer, methods=["POST"]))


def is_local(request: Request) -> bool:
    """Straight from this machine: a proxy in front of us would make everybody local."""
    host = request.client.host if request.client is not None else ""
    return is_loopback(host) and not any(name in request.headers for name in _FORWARDED)


async def _body(request: Request) -> bytes | None:
    """The body; None when it is too long, whatever its header said."""
    parts: list[bytes] = []
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
