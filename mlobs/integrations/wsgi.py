"""Flask, Django and any other WSGI application, under gunicorn or whatever serves it.

    from mlobs.integrations.wsgi import MlobsMiddleware
    app.wsgi_app = MlobsMiddleware(app.wsgi_app)       # Flask; any WSGI app: app = MlobsMiddleware(app)

Needs no package. The route is Flask's rule; for other frameworks give `route=`, a function of the environ
that returns a template. A body that is streamed is timed to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mlobs.integrations.passage import HTTP, Passage, method_label

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def flask_route(environ: Environ) -> str:
    """Werkzeug leaves its request in the environ, and Flask the matched rule in the request."""
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    return "" if rule is None else str(rule.rule)


class MlobsMiddleware:
    """Counts whole requests, body sent; gives their trace context to the observed calls inside."""

    def __init__(self, app: App, *, route: Callable[[Environ], str] = flask_route) -> None:
        self.app = app
        self._route = route

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        passage = Passage(lambda: (environ.get("HTTP_TRACEPARENT"), str(environ.get("HTTP_TRACESTATE", ""))))
        status: object = ""
        route: str | None = None

        def started(line: str, *rest: Any, **more: Any) -> Any:
            nonlocal status, route
            status = str(line)[:3]
            route = passage.guarded("route", lambda: self._route(environ))  # Flask forgets it at the end
            return start_response(line, *rest, **more)

        def ended(error: BaseException | None) -> None:
            shown = 500 if isinstance(error, Exception) else status
            method = str(environ.get("REQUEST_METHOD", ""))
            template = passage.guarded("route", lambda: self._route(environ)) if route is None else route
            passage.end(HTTP, lambda: (method_label(method), shown, template or ""))

        try:
            body = self.app(environ, started)
        except BaseException as error:
            ended(error)
            raise
        return _Body(body, ended)


class _Body:
    """The body as it was, and word of its end. A server's `close` comes even where the client went away."""

    def __init__(self, body: Iterable[bytes], ended: Callable[[BaseException | None], None]) -> None:
        self._body = body
        self._ended: Callable[[BaseException | None], None] | None = ended

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as error:
            self._end(error)
            raise

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)
