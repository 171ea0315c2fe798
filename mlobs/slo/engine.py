"""The embedded evaluator: scrapes, counts, judges slices, evaluates every objective. Time comes from
`tick(now)` alone.

Each tick ends in one transaction of the store; a process killed at any moment goes on from the last whole
tick.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, delete
from sqlalchemy.exc import SQLAlchemyError

from mlobs import names
from mlobs.records import Alert
from mlobs.settings import Settings
from mlobs.slo import alerts as alerting
from mlobs.slo import exposition, schema
from mlobs.slo.burn import Count
from mlobs.slo.evaluate import MEMBER_WINDOW, Evaluation, Observed, Plan, evaluate, fingerprint, plan
from mlobs.slo.export import SloCollector
from mlobs.slo.history import History, upsert
from mlobs.slo.intake import BAD, EVENTS, UNJUDGED, Raw, Router
from mlobs.slo.own import own_samples
from mlobs.slo.periods import period_of
from mlobs.slo.scrape import Fetch, Scraper
from mlobs.slo.slicing import Slicer
from mlobs.slo.status import SloStatus
from mlobs.store import Store

SELF = "self"
"""Name of the target that is this process's own registry."""

_POINT_EVERY = 3600.0
_JITTER = 0.1
"""A timer's tick that comes by so much of an interval too early is on time."""


class SloEngine:
    """`tick(now)` scrapes when it is due, evaluates when it is due, and returns what fires.

    `fetch(url)` is the network; `registry` holds the metrics of stages in this process, and gets ours.
    Thresholds, windows and periods come from `settings.slo`.
    """

    def __init__(
        self, settings: Settings, store: Store, registry: CollectorRegistry | None, fetch: Fetch
    ) -> None:
        self.settings = settings
        self._store = store
        self._registry = registry
        self._scraper = Scraper(settings.targets, fetch, settings.base)
        self._plans = tuple(plan(objective, settings) for objective in settings.slo.objectives)
        self._gauges = [each for each in self._plans if each.indicator.gauge is not None]
        self._drift = [each for each in self._plans if each.objective.sli.kind == "drift"]
        self._history = History(store)
        fingerprints = {each.name: fingerprint(each, settings) for each in self._plans}
        accounts, self._book = self._history.load(fingerprints)
        self._accounts = accounts
        self._router = Router({each.name: each.indicator for each in self._plans}, accounts)
        self._standing = _standing(self._history)
        self._slicer = Slicer(
            self._plans, settings.slo.slice, settings.slo.zone, accounts, self._history.values()
        )
        self._previous = self._history.last()
        self._scraped: float | None = None
        self._evaluated: float | None = None
        self._pointed: float | None = None
        self._expected: float | None = None
        self._said: list[Alert] = []
        self.statuses: tuple[SloStatus, ...] = ()
        self._collector = SloCollector()
        if registry is not None:
            # Counters of this process begin with it, or were restored before us: then what they gained since
            # the last tick that was kept is in the first difference.
            if SELF not in self._book.targets:
                self._book.baseline(SELF, self._router.read(own_samples(registry)), self._book.began or 0.0)
            registry.register(self._collector)

    def tick(self, now: float) -> list[Alert]:
        """All alerts that fire at `now`, and once each that ceased. A time that has been is answered with
        the last word."""
        if self._scraped is not None and now <= self._scraped:
            return [alert for alert in self._said if alert.firing]
        scrape = _due(self._scraped, now, self.settings.slo.scrape_interval)
        assess = scrape and _due(self._evaluated, now, self.settings.slo.evaluation_interval)
        if not scrape:
            return [alert for alert in self._said if alert.firing]
        self._history.forget()
        self._expected = self._expected if self._expected is not None else now
        self._scrape(now)
        try:
            self._slicer.close(now, self._previous, self._book, self._history)
            found = self._evaluate(now) if assess else None
            self._commit(now, found)
        except SQLAlchemyError as problem:
            return self._unkept(problem, now)
        self._history.confirm(self._accounts)
        self._previous = now
        if found is None:
            return [alert for alert in self._said if alert.firing]
        return list(self._said)

    def _unkept(self, problem: SQLAlchemyError, now: float) -> list[Alert]:
        """The store cannot be read or written: what fired fires on, and somebody is told. Counting goes on in
        memory, and the next tick that is kept holds all of it."""
        self._history.distrust()
        why = str(getattr(problem, "orig", None) or type(problem).__name__)
        meta = Alert(
            name="SLOStore", cause="store", severity=names.PAGE, firing=True, since=now, at=now,
            service=self.settings.service, model="", environment=self.settings.environment, kind="meta",
            summary=f"mlobs cannot keep its state: {why[:200]}",
        )  # fmt: skip
        holding = {key: held.alert for key, held in self._standing.items() if not held.ceased}
        holding[alerting.key(meta)] = meta
        self._standing, self._said = alerting.advance(self._standing, holding, now)
        return list(self._said)

    def close(self) -> None:
        """Let the scraper's threads go, and take our metrics out of the registry."""
        self._scraper.close()
        if self._registry is not None:
            self._registry.unregister(self._collector)

    # -- scraping --------------------------------------------------------------------------------------

    def _scrape(self, now: float) -> None:
        if self._book.began is None:
            self._book.began = now
        levels: dict[int, list[float]] = {}
        drifted = self._drifted()
        urls = self._scraper.urls()
        for url, body in self._scraper.fetch_all(urls) if urls else ():
            try:
                if isinstance(body, Exception):
                    raise body
                raw = self._read(body)
            except Exception as problem:  # noqa: BLE001 - any failure of a target is a state of it, kept there
                self._book.miss(url, f"{type(problem).__name__}: {problem}"[:300], now)
            else:
                self._book.take(url, raw, now)
                _join(levels, raw)
        for source, reason in self._scraper.problems.items():
            self._book.miss(source, reason, now)
        if self._registry is not None:
            own = self._router.read(own_samples(self._registry))
            self._book.take(SELF, own, now)
            _join(levels, own)
        self._check(levels, now)
        self._blame_features(drifted)
        self._book.retire({*urls, *self._scraper.problems, SELF}, now)
        self._scraped = now

    def _drifted(self) -> dict[str, float]:
        """Bad slices so far of each drift objective."""
        found = {}
        for each in self._drift:
            account = self._accounts.id(each.name, EVENTS)
            if account < len(self._book.totals):
                found[each.name] = float(self._book.totals[account, BAD])
        return found

    def _blame_features(self, before: Mapping[str, float]) -> None:
        """Slices that went bad at this scrape are put down to the features whose breach stands."""
        broken = {
            (each.labels.get(names.MODEL, ""), each.labels.get(names.FEATURE, ""))
            for state in self._book.targets.values()
            for each in state.breaches
        }
        models = {each.name: each.objective.model for each in self._drift}
        for slo, bad in self._drifted().items():
            gained = bad - before.get(slo, 0.0)
            for model, feature in broken if gained > 0 else ():
                if feature and models[slo] in ("", model):
                    self._book.add(self._accounts.id(slo, f"{names.FEATURE}={feature}"), gained)

    def _check(self, levels: Mapping[int, Sequence[float]], now: float) -> None:
        """Each look at a gauge is an event: bad if the worst of its series is."""
        for each in self._gauges:
            account = self._accounts.id(each.name, EVENTS)
            gauge = each.indicator.gauge
            if gauge is not None and levels.get(account):
                bad = any(gauge.bad(value, now) for value in levels[account])
                self._book.count(account, bad, now)

    def _read(self, body: bytes | str) -> Raw:
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        return self._router.read(exposition.samples(text))

    # -- evaluating ------------------------------------------------------------------------------------

    def _evaluate(self, now: float) -> list[Evaluation]:
        self._history.fetch({now - length for each in self._plans for length in each.windows})
        found = [self._assess(each, now) for each in self._plans if not each.indicator.of]
        for each in self._plans:
            if each.indicator.of:
                self._check_members(each, now)
                found.append(self._assess(each, now))
        self.statuses = tuple(each.status for each in found)
        self._collector.show(self.statuses)
        holding = {alerting.key(alert): alert for each in found for alert in each.alerts}
        if self.settings.slo.breach:
            holding |= {alerting.key(alert): alert for alert in self._breaches(now)}
        self._standing, self._said = alerting.advance(self._standing, holding, now)
        self._evaluated = now
        return found

    def _assess(self, each: Plan, now: float) -> Evaluation:
        return evaluate(each, self._observe(each, now), self.settings, self._since(each))

    def _check_members(self, each: Plan, now: float) -> None:
        """One look at a composite: bad if any member spent too fast in 5 minutes, none while one has no
        events."""
        members = [member for member in self._plans if member.name in each.indicator.of]
        looks = [(member, self._observe(member, now).window(MEMBER_WINDOW).ratio) for member in members]
        if looks and all(ratio is not None for _, ratio in looks):
            broken = [member for member, ratio in looks if ratio is not None and ratio > member.share]
            self._book.count(self._accounts.id(each.name, EVENTS), bool(broken), now)
            for member in broken:
                self._book.add(self._accounts.id(each.name, f"{names.SLO}={member.name}"), 1.0)

    def _since(self, each: Plan) -> Mapping[str, float]:
        return {
            held.alert.severity: held.alert.since
            for held in self._standing.values()
            if held.alert.slo == each.name and held.alert.kind == "burn" and not held.ceased
        }

    def _observe(self, each: Plan, now: float) -> Observed:
        events = self._accounts.id(each.name, EVENTS)
        unjudged = self._accounts.find(each.name, UNJUDGED)
        born = _known(self._book.born, events)
        seen = _known(self._book.seen, events)
        if each.objective.sli.kind in ("drift", "data_quality"):
            # These counters stand in our own registry whether or not anybody judges: life is that they grow.
            # Slices that nobody could judge are a sign of life all the same.
            accounts = [events] if unjudged is None else [events, unjudged]
            grown = [t for account in accounts if (t := _known(self._book.grew, account)) is not None]
            seen = max(grown, default=self._expected)
        totals = self._book.totals

        def count(start: float, length: float, account: int) -> Count:
            if account >= len(totals):
                return Count(0.0, 0.0, 0.0)
            bad, total = totals[account] - self._history.at(start, len(totals))[account]
            covered = 0.0 if born is None else min(1.0, (now - max(born, start)) / length)
            return Count(float(bad), float(total), covered)

        start, period = period_of(each.objective, now)
        return Observed(
            now,
            born,
            # One failed scrape is not an absence, however long ticks are apart.
            None if seen == now else (seen if seen is not None else self._expected),
            lambda length: count(now - length, length, events),
            count(start, period, events),
            period,
            lambda length: 0.0 if unjudged is None else count(now - length, length, unjudged).total,
            self._trouble(),
            self._spent_by(each, start),
            self._slicer.run_start(each.name),
        )

    def _trouble(self) -> str:
        """What is wrong with targets: why they do not answer, or what they do not show; the first two."""
        down = [f"{name}: {state.error}" for name, state in sorted(self._book.targets.items()) if state.error]
        more = f"; and {len(down) - 2} more" if len(down) > 2 else ""
        return "; ".join(down[:2]) + more

    def _spent_by(self, each: Plan, start: float) -> tuple[tuple[str, float], ...]:
        """Bad events of the period by model version, segment, feature, check: the ten worst parts."""
        totals = self._book.totals
        parts = [(p, i) for p, i in self._accounts.parts(each.name) if "=" in p and i < len(totals)]
        if not parts:
            return ()
        before = self._history.at(start, len(totals))
        spent = [(part, float(totals[id_, BAD] - before[id_, BAD])) for part, id_ in parts]
        return tuple(sorted((s for s in spent if s[1] > 0), key=lambda s: -s[1])[:10])

    def _breaches(self, now: float) -> Iterable[Alert]:
        """`mlobs_drift_breach` becomes an alert at once: it has been debounced where it was found."""
        found = {each.place: each for state in self._book.targets.values() for each in state.breaches}
        for (model, feature, segment, severity), broken in found.items():
            labels = broken.labels
            drift = next((s for s in self.statuses if s.kind == "drift" and s.model in ("", model)), None)
            place = f" in {segment}" if segment else ""
            yield Alert(
                name="DriftBreach", cause="drift", severity=severity or names.PAGE, firing=True,
                since=now if broken.since is None else min(broken.since, now), at=now,
                service=labels.get(names.SERVICE) or self.settings.service, model=model,
                environment=self.settings.environment, kind="breach", slo=drift.name if drift else "",
                model_version=labels.get(names.MODEL_VERSION, ""), feature=feature, segment=segment,
                budget_remaining=drift.remaining if drift else None,
                summary=f"{model}: {feature or 'a feature'} broke its check{place}",
            )  # fmt: skip

    # -- keeping ---------------------------------------------------------------------------------------

    def _commit(self, now: float, found: list[Evaluation] | None) -> None:
        keep = max((each.period for each in self._plans), default=0.0) * 1.1 + 86400.0
        with self._store.write() as connection:
            self._history.put_counters(connection, now, self._accounts, self._book)
            self._history.put_values(connection, self._slicer.state())
            if found is not None:
                rows = [{"slo": e.status.name, "at": now, "body": e.status.to_json()} for e in found]
                connection.execute(delete(schema.status))
                if rows:
                    upsert(connection, schema.status, rows, ["slo"])
                self._put_point(connection, now)
                connection.execute(delete(schema.alert))
                held = [
                    {"key": key, "since": each.alert.since, "ceased": int(each.ceased),
                     "body": json.dumps(dataclasses.asdict(each.alert))}
                    for key, each in self._standing.items()
                ]  # fmt: skip
                if held:
                    upsert(connection, schema.alert, held, ["key"])
            self._history.thin(connection, now, keep)

    def _put_point(self, connection: Connection, now: float) -> None:
        if self._pointed is not None and now - self._pointed < _POINT_EVERY * (1 - _JITTER):
            return
        self._pointed = now
        body = {s.name: s.remaining for s in self.statuses if s.remaining is not None}
        upsert(connection, schema.point, [{"at": now, "body": json.dumps(body)}], ["at"])


def _join(levels: dict[int, list[float]], raw: Raw) -> None:
    for account, values in raw.levels.items():
        levels.setdefault(account, []).extend(values)


def _due(last: float | None, now: float, interval: float) -> bool:
    return last is None or now - last >= interval * (1 - _JITTER)


def _known(times: NDArray[np.float64], account: int) -> float | None:
    if account >= len(times) or np.isnan(times[account]):
        return None
    return float(times[account])


def _standing(history: History) -> dict[str, alerting.Standing]:
    """What fired when the store was last written. A last word that may not have been heard is said again."""
    standing = {}
    for key, _since, body, _ceased in history.alerts():
        alert = Alert(**body)
        standing[key] = alerting.Standing(dataclasses.replace(alert, firing=True))
    return standing
