"""The canaries of `mlobs serve`: each watched every ten seconds; its verdict as JSON, metrics and a webhook.

Counters are scraped, rows come from the feature log. What was seen is kept in the store with every block,
together with how far the log was read: a serve that is started anew goes on from there.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx
import pyarrow as pa
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
from mlobs.service.canary_log import LogSource, LogTail, SpecOf, rows_of
from mlobs.settings import CanarySettings, Settings
from mlobs.slo import canary_keep
from mlobs.slo.canary import OF_ROWS, PROMOTE, ROLLBACK, VERDICTS, Block, Canary, Gaps, Rules
from mlobs.slo.canary_feed import Feed
from mlobs.slo.canary_rows import SIDES, Sheet
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
        self, settings: Settings, store: Store, fetch: Fetch, registry: CollectorRegistry, post: Post,
        log: LogSource | None = None, spec_of: SpecOf = lambda _model, _version: None,
    ) -> None:  # fmt: skip
        """`log`: the feature log, where there is one; `spec_of`: by what its rows are judged."""
        self._post = post
        self._store = store
        self._seen: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlobs-canary", daemon=True)
        self.rules = Rules()
        canary_keep.forget(store, [one.name for one in settings.slo.canaries])
        self._tail = LogTail(settings, store, log) if log is not None and settings.slo.canaries else None
        self._trials = {
            one.name: _Trial(
                one, self.rules, Scraper(one.targets or settings.targets, fetch, settings.base), store,
                None if self._tail is None else _Log(settings, one, self.rules, self._tail, spec_of),
            )
            for one in settings.slo.canaries
        }  # fmt: skip
        if self._trials:
            registry.register(self)

    def tick(self, now: float) -> None:
        """A block of every canary, unless the last one is younger than ten seconds."""
        if self._seen is not None and now - self._seen < self.rules.block * 0.9:
            return
        self._seen = now
        if self._tail is not None:
            for tables in self._tail.read(self._stop.is_set):
                for trial in self._trials.values():
                    trial.take(tables, now)
            if self._stop.is_set():  # perhaps amid a backlog: who goes on reads it again, from what was kept
                return
        for trial in self._trials.values():
            trial.look(now)
        self._keep()
        for trial in self._trials.values():
            trial.tell(self._post)

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

    def _keep(self) -> None:
        trials = [(name, trial.key, trial.to_text()) for name, trial in self._trials.items()]
        tail = self._tail
        source, cursor = ("", None) if tail is None else (tail.source, tail.cursor)
        try:
            canary_keep.save(self._store, trials, source, cursor)
        except SQLAlchemyError as problem:  # kept with the next block; the verdict is said all the same
            what = type(problem).__name__
            _log.warning("canaries: the store did not take what was seen: %s", what)

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
            **as_json(trial.watch.verdict), "feature_log": trial.told_of_log(),
            "problems": dict(trial.watch.problems),
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


class _Log:
    """The feature log as one canary sees it."""

    def __init__(
        self, settings: Settings, one: CanarySettings, rules: Rules, tail: LogTail, spec_of: SpecOf
    ) -> None:
        model = settings.model(one.model)
        self.tail, self._rules, self._model = tail, rules, one.model
        self._versions = (one.candidate, one.baseline)
        self._specs = [spec_of(one.model, version) for version in self._versions]
        self._threshold = model.decision_threshold
        self._rate = settings.sample if model.sample is None else model.sample
        self._before = (-math.inf, -math.inf)
        self.sheet: Sheet | None = None
        """None until the first look: the trial begins then."""
        self.uncounted = ""
        """Why rows that came since the last look could not be counted; empty when they could."""

    def restore(self, plain: Mapping[str, Any] | None) -> None:
        """What was kept; of another version it begins anew."""
        try:
            self.sheet = None if plain is None else Sheet.from_plain(plain)
        except (ValueError, TypeError, KeyError):
            self.sheet = None

    def begin(self, now: float) -> Sheet:
        if self.sheet is None:
            self.sheet = Sheet(now)
        return self.sheet

    @property
    def problem(self) -> str:
        return self.tail.problem or self.uncounted

    def take(self, tables: Mapping[str, pa.Table], now: float) -> None:
        """Rows that cannot be counted are a `problem`: the counters are looked at all the same."""
        sheet, table = self.begin(now), tables.get(self._model)
        if table is None:
            return
        try:
            self._count(sheet, table, now)
        except Exception as problem:  # noqa: BLE001 - logged and told beside the verdict
            self.uncounted = f"its rows cannot be counted: {type(problem).__name__}"
            _log.exception("the rows of model %s could not be counted", self._model)

    def _count(self, sheet: Sheet, table: pa.Table, now: float) -> None:
        judged = None not in self._specs
        for side, version in enumerate(self._versions):
            spec = self._specs[side] if judged else None
            sheet.take(side, rows_of(table, version, spec, self._threshold), now, self._rules.block)

    def blocks(self, canary: Canary, now: float) -> list[Block]:
        """Those that are over; `canary` is what is known until now."""
        sheet = self.begin(now)
        sheet.told(canary, self._before)
        self._before = (sheet.newest[0], sheet.newest[1])
        if self.tail.problem:  # what it had is yet to come: nothing is closed without it
            return []
        return list(sheet.close(now, self.tail.late, self._rules.block))

    def gaps(self, canary: Canary, now: float) -> Gaps:
        if self.sheet is None:
            return Gaps()
        missing = [one for one, spec in zip(self._versions, self._specs, strict=True) if spec is None]
        why = f"no reference of version {' and '.join(missing)} says which rows are bad" if missing else ""
        return self.sheet.gaps(canary, self._rules, now, self.tail.late, why, self._rate)


class _Trial:
    """One canary: where it looks, what it found, whom it told last."""

    def __init__(
        self, settings: CanarySettings, rules: Rules, scraper: Scraper, store: Store, log: _Log | None
    ) -> None:
        self.settings, self.scraper, self._log = settings, scraper, log
        self.key = json.dumps([settings.model, settings.baseline, settings.candidate])
        kept = canary_keep.load(store, settings.name, self.key)
        if log is not None:
            log.restore(kept.sheet)
        feed = Feed(settings.model, settings.candidate, settings.baseline)
        self.watch = Watch(feed, rules, kept.canary, _without_log if log is None else log.gaps)
        self._said = self._told = ""

    def take(self, tables: Mapping[str, pa.Table], now: float) -> None:
        """Rows that are new in the feature log, by model."""
        if self._log is not None:
            self._log.take(tables, now)

    def look(self, now: float) -> None:
        if self._log is not None:
            self.watch.add_rows(self._log.blocks(self.watch.canary, now))
        found = self.watch.take(dict(self.scraper.fetch_all(self.scraper.urls())), now)
        if self._log is not None and self._log.problem:
            self.watch.problems["feature log"] = self._log.problem
            self._log.uncounted = ""
        if found.verdict != self._said:
            self._said = found.verdict
            _log.info("canary %s: %s: %s", self.settings.name, found.verdict, found.reason)

    def tell(self, post: Post) -> None:
        """The webhook hears of a verdict that is new, and of one that it did not take."""
        name, url, found = self.settings.name, self.settings.webhook, self.watch.verdict
        if url is None or found.verdict == self._told:
            return
        try:
            post(url, {"name": name, "model": self.settings.model, **as_json(found)})
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as problem:  # told again with the next block
            what = type(problem).__name__
            _log.warning("canary %s: the webhook did not take the verdict: %s", name, what)
        else:
            self._told = found.verdict

    def to_text(self) -> str:
        sheet = None if self._log is None or self._log.sheet is None else self._log.sheet.to_plain()
        return canary_keep.to_text(self.watch.canary, sheet)

    def told_of_log(self) -> dict[str, Any] | None:
        """Rows that were counted, by arm, and those that came too late; None without a feature log."""
        sheet = None if self._log is None else self._log.sheet
        if sheet is None:
            return None
        return {
            "rows": dict(zip(SIDES, sheet.seen, strict=True)), "late": sheet.late, "pairs": sheet.pairs
        }  # fmt: skip


def _without_log(_canary: Canary, _now: float) -> Gaps:
    return Gaps(dict.fromkeys(OF_ROWS, "no `feature_log` in the settings"))


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
