"""`create_app`: the web page, the JSON, `/metrics`, `/healthz` and, for replays, `/api/tick`, in one app."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlobs.settings import Settings
from mlobs.store import Store
from mlobs.web import assets
from mlobs.web.api import Api
from mlobs.web.guard import Guard
from mlobs.web.model import Views
from mlobs.web.pages import Pages
from mlobs.web.tick import Tick, TickEndpoint
from mlobs.web.views import FindCall, StoreViews


def create_app(
    settings: Settings,
    store: Store,
    registry: CollectorRegistry,
    tick: Tick,
    *,
    find_call: FindCall | None = None,
    reached: Callable[[], float | None] | None = None,
    views: Views | None = None,
) -> Starlette:
    """The app that `mlobs serve` listens with.

    `tick(now)` advances the stages and says what that did; it is called in a worker thread, once at a
    time, and only by `POST /api/tick` with `clock: driven`. `find_call(id, at)` gives the kept call of a
    prediction or trace id, of about the time `at` where that is known; `reached()` the event time of the last
    tick, which otherwise is told by the last evaluation. `views` replaces what is read from the store (for
    tests).
    """
    source = views if views is not None else StoreViews(settings, store, registry, find_call, reached)
    pages = Pages(source)

    def metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": media_type})

    def healthz(_request: Request) -> Response:
        """Alive, and the store answers."""
        source.status()
        return PlainTextResponse("ok\n")

    def on_http_error(request: Request, problem: Exception) -> Response:
        code = problem.status_code if isinstance(problem, HTTPException) else 500
        text = problem.detail if isinstance(problem, HTTPException) else "internal error"
        headers = problem.headers if isinstance(problem, HTTPException) else None
        if code == 404 and not request.url.path.startswith(("/api/", "/static/")):
            return pages.missing(request, f"no page {request.url.path[:80]!r}")
        return JSONResponse({"error": text}, status_code=code, headers=headers)

    def on_failure(request: Request, problem: Exception) -> Response:
        """Of ours: the log has the traceback, the answer only what it was."""
        text = f"mlobs failed to answer: {type(problem).__name__}; its log says more"
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": text}, status_code=500)
        return PlainTextResponse(f"{text}\n", status_code=500)

    return Starlette(
        routes=[
            *pages.routes(),
            Route("/api/tick", TickEndpoint(tick, settings.clock).answer, methods=["POST"]),
            *Api(source).routes(),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/static/{path}", assets.endpoint()),
        ],
        middleware=[
            Middleware(Guard, listen=settings.listen, public_url=settings.public_url),
            Middleware(GZipMiddleware, minimum_size=2000, compresslevel=5),
        ],
        exception_handlers={HTTPException: on_http_error, Exception: on_failure},
    )
