"""FastAPI, Starlette and any other ASGI application.

    from mlobs.integrations.asgi import MlobsMiddleware
    app.add_middleware(MlobsMiddleware)          # any ASGI app: app = MlobsMiddleware(app)

Needs no package. The route is the template that Starlette or FastAPI matched, prefixes of mounts and included
routers in front of it; an unmatched path is the empty text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from mlobs.integrations.passage import HTTP, Passage, method_label

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class MlobsMiddleware:
    """Counts whole requests, body sent; gives their trace context to the observed calls inside."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        passage = Passage(lambda: _context(scope["headers"]))
        if scope["type"] == "websocket":  # lives as long as it likes: its duration says nothing
            try:
                await self.app(scope, receive, send)
            finally:
                passage.release()
            return
        mounted = len(scope.get("root_path") or "")
        status: object = ""

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message.get("type") == "http.response.start":
                status = message.get("status", "")
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception:
            status = 500  # what the server answers in the application's place, or a body that breaks off
            raise
        finally:
            passage.end(HTTP, lambda: (method_label(scope["method"]), status, _route(scope, mounted)))


def _context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str]:
    """`traceparent`, unless there are several, and the joined `tracestate`."""
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    parent = parents[0].decode("latin-1") if len(parents) == 1 else None
    return parent, b",".join(states).decode("latin-1")


def _route(scope: Scope, mounted: int) -> str:
    """The template of the matched route; `mounted` is the length of the root path before the routing."""
    found = scope.get("route")
    inside = scope.get("fastapi")
    effective = inside.get("effective_route_context") if isinstance(inside, dict) else None
    # FastAPI's included routers: the route itself does not know the prefix it was included with.
    template = getattr(effective, "path", None) or getattr(found, "path", None)
    if not isinstance(template, str):
        return ""
    prefix = (scope.get("root_path") or "")[mounted:]
    if prefix:  # of a mount: with the values of its parameters, which go back to their names
        names = {str(value): f"{{{name}}}" for name, value in (scope.get("path_params") or {}).items()}
        prefix = "/".join(names.get(part, part) for part in prefix.split("/"))
    if effective is None and not hasattr(found, "endpoint"):  # a mounted app that has no routes of its own
        return prefix
    return prefix + template
