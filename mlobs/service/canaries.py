"""The canaries of `mlobs serve`: each watched every ten seconds; its verdict as JSON, metrics and a webhook.

What was seen is kept in the store with every block: a serve that is started anew goes on from there.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlobs import names
from mlobs.errors import nearest
from mlobs.settings import CanarySettings, Settings
from mlobs.slo import canary_keep
from mlobs.slo.canary import PROMOTE, ROLLBACK, VERDICTS, Rules
from mlobs.slo.canary_feed import Feed
from mlobs.slo.canary_show import as_json
from mlobs.slo.canary_watch import Watch
from mlobs.slo.scrape import Fetch, Scraper
from mlobs.store import Store

Post = Callable[[str, dict[str, Any]], None]
"""Sends JSON to a URL; an OSError or httpx.HTTPError where it was not taken."""
GATES = {"promote": PROMOTE, "rollback": ROLLBACK}
STAGE = "canary"
_log = logging.getLogger("mlobs.service")


class Canaries(Collector):
    """`tick(now)` looks at every canary that is due; `start` does so by the wall clock, in a thread."""

    def __init__(
        self, settings: Settings, store: Store, fetch: Fetch, registry: CollectorRegistry, post: Post
    ) -> None:
        self._post = post
        self._seen: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlobs-canary", daemon=True)
        self.rules = Rules()
        canary_keep.forget(store, [one.name for one in settings.slo.canaries])
        self._trials = {
            one.name: _Trial(
                one, self.rules, Scraper(one.targets or settings.targets, fetch, settings.base), store
            )
            for one in settings.slo.canaries
        }
        if self._trials:
            registry.register(self)

    def tick(self, now: float) -> None:
        """A block of every canary, unless the last one is younger than ten seconds."""
        if self._seen is not None and now - self._seen < self.rules.block * 0.9:
            return
        self._seen = now
        for trial in self._trials.values():
            trial.look(now, self._post)

    def start(self) -> None:
        """Nothing where the settings name no canary."""
        if self._trials:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        for trial in self._trials.values():
            trial.scraper.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.tick(time.time())
            except Exception:  # noqa: BLE001 - logged; the thread lives on and looks at the next block
                _log.exception("the canaries could not be looked at")
            self._stop.wait(max(0.0, self.rules.block - (time.monotonic() - began)))

    def names(self) -> tuple[str, ...]:
        return tuple(self._trials)

    def show(self, name: str) -> dict[str, Any] | None:
        """The verdict of one canary as JSON; None for one that nobody named."""
        trial = self._trials.get(name)
        if trial is None:
            return None
        one = trial.settings
        return {
            "name": one.name, "model": one.model, "baseline": one.baseline, "candidate": one.candidate,
            **as_json(trial.watch.verdict), "problems": dict(trial.watch.problems),
        }  # fmt: skip

    def collect(self) -> Iterable[GaugeMetricFamily]:
        own = [names.CANARY, names.MODEL]
        verdicts = GaugeMetricFamily(
            names.CANARY_VERDICT, "The verdict that holds is 1.", labels=[*own, names.RESULT]
        )
        odds = GaugeMetricFamily(
            names.CANARY_E_VALUE, "Odds against the candidate being no worse.", labels=[*own, names.METRIC]
        )
        needed = GaugeMetricFamily(
            names.CANARY_NEEDED, "The odds that a rollback takes.", labels=[*own, names.METRIC]
        )
        for name, trial in self._trials.items():
            found, told = trial.watch.verdict, [name, trial.settings.model]
            for each in VERDICTS:
                verdicts.add_metric([*told, each], float(each == found.verdict))
            for one in found.evidence:
                odds.add_metric([*told, one.metric], one.e_value)
                needed.add_metric([*told, one.metric], one.needed)
        return [verdicts, odds, needed]


class _Trial:
    """One canary: where it looks, what it found, whom it told last."""

    def __init__(self, settings: CanarySettings, rules: Rules, scraper: Scraper, store: Store) -> None:
        self.settings, self.scraper, self._store = settings, scraper, store
        self._trial = json.dumps([settings.model, settings.baseline, settings.candidate])
        self._kept = canary_keep.load(store, settings.name, self._trial)
        feed = Feed(settings.model, settings.candidate, settings.baseline)
        self.watch = Watch(feed, rules, self._kept)
        self._said = self._told = ""

    def look(self, now: float, post: Post) -> None:
        found = self.watch.take(dict(self.scraper.fetch_all(self.scraper.urls())), now)
        self._keep()
        name, url = self.settings.name, self.settings.webhook
        if found.verdict != self._said:
            self._said = found.verdict
            _log.info("canary %s: %s: %s", name, found.verdict, found.reason)
        if url is None or found.verdict == self._told:
            return
        try:
            post(url, {"name": name, "model": self.settings.model, **as_json(found)})
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as problem:  # told again with the next block
            what = type(problem).__name__
            _log.warning("canary %s: the webhook did not take the verdict: %s", name, what)
        else:
            self._told = found.verdict

    def _keep(self) -> None:
        known = self.watch.canary
        if known is self._kept:
            return
        try:
            canary_keep.save(self._store, self.settings.name, self._trial, known)
        except SQLAlchemyError as problem:  # kept with the next block; the verdict is said all the same
            what = type(problem).__name__
            _log.warning("canary %s: the store did not take what was seen: %s", self.settings.name, what)
        else:
            self._kept = known


def post_json(url: str, body: dict[str, Any]) -> None:
    """POST within 5 s; httpx.HTTPError where it was not taken."""
    httpx.post(url, json=body, timeout=5.0).raise_for_status()


def mount(app: Starlette, canaries: Canaries) -> None:
    """GET /api/canary, /api/canary/NAME and, for Flagger, /api/canary/NAME/gate/promote and /rollback."""

    def listing(_request: Request) -> Response:
        return JSONResponse({"canaries": [canaries.show(name) for name in canaries.names()]})

    def one(request: Request) -> Response:
        name, gate = request.path_params["name"], request.path_params.get("gate")
        found = canaries.show(name)
        if found is None:
            remedy = nearest(name[:80], canaries.names())
            text = f"no canary {name[:80]!r} in `slo.canaries`; {remedy}"
            return JSONResponse({"error": text}, status_code=404)
        if gate is None:
            return JSONResponse(found)
        if gate not in GATES:
            return JSONResponse({"error": f"no gate {gate[:80]!r}: promote or rollback"}, status_code=404)
        return JSONResponse(found, status_code=200 if found["verdict"] == GATES[gate] else 403)

    app.router.routes[:0] = [
        Route("/api/canary", listing),
        Route("/api/canary/{name}", one),
        Route("/api/canary/{name}/gate/{gate}", one, methods=["GET", "POST"]),
    ]
