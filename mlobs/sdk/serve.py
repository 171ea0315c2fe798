"""`/metrics` over ASGI, WSGI or from a small server of its own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mlobs.errors import Problem, UnavailableError
from mlobs.sdk.api import scraped
from mlobs.sdk.given import fits, is_text, refuse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def render(accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, by what the scraper accepts; protobuf only with `native`."""
    from prometheus_client.exposition import choose_encoder  # weight: only where metrics are served

    from mlobs.sdk.collector import families, make_registry, native_families
    from mlobs.sdk.view import view_of

    runtime = scraped()
    if runtime.settings.native:
        from mlobs.sdk import protobuf  # weight: off by default

        if protobuf.accepted(accept):
            view = view_of(runtime)
            shown = protobuf.encode(families(runtime, view), native_families(view))
            return shown, protobuf.CONTENT_TYPE
    encode, content_type = choose_encoder(accept)
    return encode(make_registry(runtime)), content_type


def _load() -> None:
    """What `render` imports, before a thread does: a fork meanwhile would leave the child a locked module."""
    import prometheus_client.exposition  # noqa: F401

    import mlobs.sdk.collector
    import mlobs.sdk.protobuf
    import mlobs.sdk.view  # noqa: F401


def metrics_app() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An ASGI app that answers GET with the metrics: `app.mount("/metrics", mlobs.metrics_app())`."""
    _load()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        body, content_type = render(accept.decode("latin-1"))
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def metrics_wsgi_app() -> Callable[[Scope, Callable[..., Any]], Iterable[bytes]]:
    """The same for WSGI: `DispatcherMiddleware(app.wsgi_app, {"/metrics": mlobs.metrics_wsgi_app()})`."""
    _load()

    def app(environ: Scope, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body, content_type = render(environ.get("HTTP_ACCEPT", ""))
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


class MetricsServer:
    """A running server; `port` is the one the kernel chose, `url` where to scrape."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]
        self.url = f"http://{server.server_address[0]!s}:{self.port}/metrics"
        self._thread = threading.Thread(target=server.serve_forever, name="mlobs-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body, content_type = render(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """A scrape is no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def start_metrics_server(port: int = 0, host: str = "127.0.0.1") -> MetricsServer:
    """Serve `/metrics` from a thread of its own; port 0 lets the kernel choose; loopback unless told.

    Raises UnavailableError when the port is taken, UsageError for what is no port or host.
    """
    if not fits(lambda number: isinstance(number, int) and 0 <= number <= 65535, port):
        raise refuse("start_metrics_server(port=)", "a port, 0 to 65535", port, "0 lets the kernel choose")
    if not fits(is_text, host):
        raise refuse("start_metrics_server(host=)", "a name or address", host, "for example host='127.0.0.1'")
    _load()
    try:
        return MetricsServer(_Server((host, port), _Handler))
    except OSError as problem:
        raise UnavailableError(
            Problem(
                f"{host}:{port}", "a free port", problem.strerror or "an error", "choose another, or port=0"
            )
        ) from None
