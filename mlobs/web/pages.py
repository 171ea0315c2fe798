"""The pages: view values into Jinja2 templates, everything escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from mlobs.web import shapes, words
from mlobs.web.api import MOST_WINDOWS, WINDOWS, moment_of
from mlobs.web.assets import asset_url, style_ids
from mlobs.web.model import DriftView, IncidentView, StatusView, Views

_PAST_SHOWN = 5
"""Past incidents on the overview; the others have a page."""
_STORIES = 5
_FEATURES = 16
"""Rows of the heat map on the overview, and every feature in trouble."""


def environment() -> Environment:
    """The templates, with our words as filters. Autoescape is on for every one of them."""
    made = Environment(
        loader=PackageLoader("mlobs.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        state=words.state,
        percent=words.percent,
        count=words.count,
        number=words.number,
        rate=words.rate,
        value=words.value,
        duration=words.duration,
        iso=words.iso,
        target=words.target,
        spent=words.spent,
        left=words.left,
        segment=lambda text: quote(str(text), safe=""),
    )
    made.tests["known"] = words.known
    made.globals.update(asset=asset_url, style_ids=style_ids, runs_out=words.runs_out)
    return made


class Pages:
    """The HTML endpoints over one source of views."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._templates = environment()

    def routes(self) -> list[Route]:
        return [
            Route("/", self.overview),
            Route("/slos/{name:path}", self.slo),
            Route("/drift", self.drift),
            Route("/incidents", self.incidents),
            Route("/incidents/{key:path}", self.incident),
            Route("/calls/{key:path}", self.call),
        ]

    def overview(self, request: Request) -> Response:
        status = self._views.status()
        slos = shapes.ranked(self._views.slos())
        incidents = self._views.incidents()
        return self._page(
            request,
            "overview.html",
            status,
            headline=shapes.headline(slos, incidents, status.now is not None),
            slos=slos,
            opened=self._with_stories([incident for incident in incidents if incident.is_open]),
            past=[incident for incident in incidents if not incident.is_open][:_PAST_SHOWN],
            maps=self._maps(status, with_scores=False),
            pipelines=self._views.pipelines(),
            targets=self._views.targets(),
        )

    def _with_stories(self, incidents: Sequence[IncidentView]) -> list[IncidentView]:
        """The first few with what explains them: the first look at night should be enough to know."""
        told = [self._views.incident(incident.id) or incident for incident in incidents[:_STORIES]]
        return [*told, *incidents[_STORIES:]]

    def slo(self, request: Request) -> Response:
        name = request.path_params["name"]
        status = self._views.status()
        found = next((slo for slo in self._views.slos() if slo.name == name), None)
        if found is None:
            return self.missing(request, f"no objective {name[:80]!r}")
        return self._page(request, "slo.html", status, slo=found)

    def drift(self, request: Request) -> Response:
        """`?from=` and `?to=` (seconds) show the windows of a time, as the links of pages do."""
        status = self._views.status()
        span = _span(request)
        return self._page(
            request, "drift.html", status, span=span, maps=self._maps(status, with_scores=True, span=span)
        )

    def incidents(self, request: Request) -> Response:
        found = self._views.incidents()
        return self._page(
            request,
            "incidents.html",
            self._views.status(),
            opened=[incident for incident in found if incident.is_open],
            past=[incident for incident in found if not incident.is_open],
        )

    def incident(self, request: Request) -> Response:
        key = request.path_params["key"]
        found = self._views.incident(key)
        if found is None:
            return self.missing(request, f"no incident {key[:80]!r}")
        return self._page(request, "incident.html", self._views.status(), incident=found)

    def call(self, request: Request) -> Response:
        key = request.path_params["key"]
        at = moment_of(request)
        found = self._views.call(key, at)
        if found is None:
            where = "in the newest part of the log" if at is None else f"within an hour of {at:.0f}"
            why = f"no kept call {key[:80]!r} {where}: not sampled, already removed, or of another time"
            return self.missing(request, f"{why} (?at=seconds looks there)")
        return self._page(
            request, "call.html", self._views.status(), call=found, bars=shapes.waterfall(found), key=key
        )

    def missing(self, request: Request, text: str) -> Response:
        return self._page(request, "problem.html", self._views.status(), code=404, text=text)

    def _maps(
        self, status: StatusView, *, with_scores: bool, span: tuple[float, float] | None = None
    ) -> list[tuple[DriftView, shapes.HeatMap, shapes.HeatMap | None]]:
        views = self._views.drift(MOST_WINDOWS if span else WINDOWS)
        if span is not None:
            views = [shapes.within(view, *span) for view in views]
        return [
            (
                view,
                shapes.verdict_map(view, status.zone, None if with_scores else _FEATURES),
                shapes.score_map(view, status.zone) if with_scores else None,
            )
            for view in views
        ]

    def _page(
        self, request: Request, template: str, status: StatusView, code: int = 200, **values: Any
    ) -> Response:
        zone = status.zone
        moments: Mapping[str, Callable[..., str]] = {
            "moment": lambda at: words.moment(at, zone),
            "short": lambda at: words.short_moment(at, zone),
        }
        text = self._templates.get_template(template).render(
            status=status,
            path=request.url.path,
            nonce=request.state.nonce,
            **moments,
            **values,
        )
        return HTMLResponse(text, status_code=code)


def _span(request: Request) -> tuple[float, float] | None:
    """The asked stretch of time; None for none, and for what is none."""
    try:
        start, end = (float(request.query_params[name]) for name in ("from", "to"))
    except (KeyError, ValueError):
        return None
    return (start, end) if words.known(end - start) and start <= end else None
