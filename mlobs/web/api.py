"""The JSON for scripts and for the page's own: the view values as they are, times in seconds, strict JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlobs.web import words
from mlobs.web.model import SloView, Views
from mlobs.web.plain import plain
from mlobs.web.shapes import count_states, headline

WINDOWS = 31
"""Windows of the heat map where nobody asks for another number."""
MOST_WINDOWS = 400
_LAST_TIME = 253402300799.0
"""The last second of 9999."""


class Api:
    """The `/api/...` endpoints over one source of views."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def routes(self) -> list[Route]:
        return [
            Route("/api/status", self.status),
            Route("/api/slos", self.slos),
            Route("/api/slos/{name:path}", self.slo),
            Route("/api/drift", self.drift),
            Route("/api/incidents", self.incidents),
            Route("/api/incidents/{key:path}", self.incident),
            Route("/api/calls/{key:path}", self.call),
            Route("/api/pipelines", self.pipelines),
            Route("/api/targets", self.targets),
        ]

    def status(self, _request: Request) -> Response:
        """How things are in one line, and `revision`: another one when anything shown is another."""
        status, slos, incidents = self._views.status(), self._views.slos(), self._views.incidents()
        head = headline(slos, incidents, status.now is not None)
        return JSONResponse(
            {
                **plain(status),
                "time": words.iso(status.now),
                "time_text": words.moment(status.now, status.zone),
                "headline": head.text,
                "state": head.css,
                "slos": dict(count_states(slos)),
                "incidents_open": sum(incident.is_open for incident in incidents),
                # Drift has no part in it: a window is judged by a tick, and a tick moves `now`.
                "revision": revision(status, slos, incidents, self._views.pipelines(), self._views.targets()),
            }
        )

    def slos(self, _request: Request) -> Response:
        now = self._views.status().now
        return JSONResponse({"slos": [slo_json(slo, now) for slo in self._views.slos()]})

    def slo(self, request: Request) -> Response:
        name = request.path_params["name"]
        now = self._views.status().now
        for slo in self._views.slos():
            if slo.name == name:
                return JSONResponse(slo_json(slo, now))
        return _missing("objective", name)

    def drift(self, request: Request) -> Response:
        asked = request.query_params.get("windows", str(WINDOWS))
        # int() would take "١٢" and "1_0" as well
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= MOST_WINDOWS):
            text = f"windows: expected a whole number from 1 to {MOST_WINDOWS}, got {asked[:80]!r}"
            return JSONResponse({"error": text}, status_code=400)
        model = request.query_params.get("model")
        found = [view for view in self._views.drift(int(asked)) if model in (None, view.model)]
        return JSONResponse({"drift": plain(found)})

    def incidents(self, request: Request) -> Response:
        state = request.query_params.get("state")
        if state not in (None, "open", "resolved"):
            text = f"state: expected open or resolved, got {state[:80]!r}"
            return JSONResponse({"error": text}, status_code=400)
        found = [
            incident
            for incident in self._views.incidents()
            if state in (None, "open" if incident.is_open else "resolved")
        ]
        return JSONResponse({"incidents": plain(found)})

    def incident(self, request: Request) -> Response:
        key = request.path_params["key"]
        found = self._views.incident(key)
        return JSONResponse(plain(found)) if found is not None else _missing("incident", key)

    def call(self, request: Request) -> Response:
        key = request.path_params["key"]
        found = self._views.call(key, moment_of(request))
        return JSONResponse(plain(found)) if found is not None else _missing("kept call", key)

    def pipelines(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "pipelines": [
                    {**plain(ledger), "balanced": ledger.balanced} for ledger in self._views.pipelines()
                ]
            }
        )

    def targets(self, _request: Request) -> Response:
        return JSONResponse({"targets": plain(list(self._views.targets()))})


def slo_json(slo: SloView, now: float | None) -> Mapping[str, Any]:
    """The objective with its history, and the same in words."""
    return {
        **plain(slo),
        "target": words.target(slo),
        "spent_text": words.spent(slo),
        "left_text": words.left(slo),
        "runs_out_text": words.runs_out(slo, now),
    }


def revision(*values: Any) -> str:
    """16 hex digits that are the same as long as `values` are."""
    text = json.dumps(plain(values), ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _missing(what: str, key: str) -> Response:
    return JSONResponse({"error": f"no {what} {key[:80]!r}"}, status_code=404)


def moment_of(request: Request) -> float | None:
    """`?at=`, seconds; None for none, and for what is none."""
    try:
        at = float(request.query_params["at"])
    except (KeyError, ValueError):
        return None
    return at if 0.0 <= at <= _LAST_TIME else None
