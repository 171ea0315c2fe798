"""`evaluator: prometheus`: the recorded rules evaluate, and this reads what they found, so that the web
page, the command line and the burn-down are the same. It raises no alert: Alertmanager has them already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import delete

from mlobs import names
from mlobs.errors import MlobsError
from mlobs.objectives import show_objective
from mlobs.records import Alert
from mlobs.settings import Settings
from mlobs.slo import budget as budgets
from mlobs.slo import promql, schema
from mlobs.slo.evaluate import Plan, observed_for, plan
from mlobs.slo.export import SloCollector
from mlobs.slo.history import upsert
from mlobs.slo.policy import window_lengths
from mlobs.slo.prometheus import Prometheus
from mlobs.slo.scrape import Fetch
from mlobs.slo.sli import quoted
from mlobs.slo.status import SloStatus
from mlobs.store import Store

_POINT_EVERY = 3240.0
"""A little under an hour between two points of the burn-down."""


class RemoteSlo:
    """Stands where SloEngine stands, with the same `tick(now)`; the alerts are Alertmanager's to send."""

    def __init__(
        self, settings: Settings, store: Store, registry: CollectorRegistry | None, fetch: Fetch
    ) -> None:
        self.settings = settings
        self._store = store
        self._plans = tuple(plan(objective, settings) for objective in settings.slo.objectives)
        self._server = Prometheus(settings.slo.prometheus or "", lambda url: _bytes(fetch(url)))
        self._read: float | None = None
        self._pointed: float | None = None
        self._grown = {each.name for each in self._plans if not each.grown}
        """Objectives that are known to be young no more; a restart asks anew."""
        self._ageless = ""
        """Why it could not be asked how old they are."""
        self.statuses: tuple[SloStatus, ...] = ()
        self.problem = ""
        """Why the last look at Prometheus failed; empty when it did not."""
        self._collector = SloCollector()
        if registry is not None:
            registry.register(self._collector)

    def tick(self, now: float) -> list[Alert]:
        """Read the recorded series when an evaluation is due. Never any alert."""
        if self._read is not None and now - self._read < self.settings.slo.evaluation_interval * 0.9:
            return []
        self._read = now
        try:
            found = self._ask()
            self.problem = ""
        except MlobsError as error:  # unknown is a state of every objective, and never ok
            found, self.problem = {}, str(error)
        self.statuses = tuple(self._status(each, found.get(each.name, {}), now) for each in self._plans)
        self._collector.show(self.statuses)
        self._keep(now)
        return []

    def _ask(self) -> dict[str, dict[str, Any]]:
        """By objective what the rules recorded, by recorded name; firing alerts under `ALERTS`."""
        mine = f"sloth_service={quoted(self.settings.service)}"
        questions = (
            f'{{__name__=~"slo:sli_error:ratio_rate.+",{mine}}}',
            f"{names.RULE_PERIOD_BUDGET_REMAINING}{{{mine}}}",
            f'{{__name__=~"{promql.EVENTS}|{promql.SUMS}",events=~"bad|total",{mine}}}',
            f'ALERTS{{alertname=~"MlobsSlo.+",alertstate="firing",{mine}}}',
        )
        found: dict[str, dict[str, Any]] = {}
        for question in questions:
            for row in self._server.api("query", query=question)["result"]:
                labels = row["metric"]
                into = found.setdefault(labels.get("sloth_slo", ""), {})
                if labels["__name__"] == "ALERTS":
                    into.setdefault("ALERTS", []).append((labels["alertname"], labels.get(names.SEVERITY)))
                else:
                    into[_key(labels["__name__"], labels)] = float(row["value"][1])
        try:
            self._ask_ages(found, mine)
            self._ageless = ""
        except MlobsError as error:  # it looks back far, and decides `young` alone: the rest stands
            self._ageless = str(error)
        return found

    def _ask_ages(self, found: dict[str, dict[str, Any]], mine: str) -> None:
        """Since when there are counts, of objectives not known to be grown. Twice the window is looked back
        on: a gap in the middle of it makes nothing young again."""
        waiting = {each.name: each.grown for each in self._plans if each.name not in self._grown}
        if not waiting:
            return
        for row in self._server.api("query", query=promql.age(2 * max(waiting.values()), mine))["result"]:
            name, age = row["metric"].get("sloth_slo", ""), float(row["value"][1])
            if name in found and name in waiting:
                found[name]["age"] = age
                if age >= waiting[name]:
                    self._grown.add(name)

    def _status(self, each: Plan, found: Mapping[str, Any], now: float) -> SloStatus:
        objective, period = each.objective, promql.window(each.period)
        bad, total = (found.get(f"{which} {period}", 0.0) for which in ("bad", "total"))
        left = found.get(names.RULE_PERIOD_BUDGET_REMAINING)
        # The rules stretch a period that has only begun: by how much follows from what they say is left.
        rate = bad / total / each.share if total > 0 else 0.0
        lived = 1.0 if left is None or rate <= 0 else min(1.0, (1 - left) / rate)
        account = budgets.budget(bad, total, objective.objective, each.period, lived)
        rates = {}
        for length in window_lengths(each.tiers):
            ratio = found.get(promql.RATIO.format(window=promql.window(length)))
            rates[promql.window(length)] = None if ratio is None else ratio / each.share
        firing = found.get("ALERTS", [])
        severities = [severity for name, severity in firing if name == "MlobsSloBurn"]
        worst = next((s for s in names.SEVERITIES if s in severities), None)
        absent = not found or any(name == "MlobsSloAbsent" for name, _ in firing)
        state = budgets.state(
            absent=absent, burning=worst is not None, young=each.name not in self._grown, total=total,
            consumed=None if left is None else 1 - left, share=each.share,
        )  # fmt: skip
        pace = max((rate for rate in rates.values() if rate is not None), default=None) if worst else None
        reason = self.problem or (
            f"no recorded series of {objective.name}: are the rules of `mlobs slo rules` loaded?"
            if not found
            else f"{bad:,.0f} of {total:,.0f} {each.indicator.unit} bad, as Prometheus recorded"
        )
        if state == budgets.YOUNG and not self.problem:
            age = found.get("age")  # to five minutes: of less than that nothing is known yet
            since = "observed for a few minutes so far" if age is None else observed_for(age)
            reason = f"{f'no age known ({self._ageless})' if self._ageless else since}: {reason}"
        return SloStatus(
            name=objective.name, model=objective.model, kind=objective.sli.kind,
            objective=show_objective(objective.objective), state=state, reason=reason,
            unit=each.indicator.unit, period_s=each.period, at=now, bad=bad, total=total,
            allowed=account.allowed, consumed=None if left is None else 1 - left, remaining=left,
            remaining_events=account.remaining_events, budget_minutes=account.minutes,
            remaining_minutes=None if left is None else account.minutes * left, burn_rates=rates,
            exhausted_at=budgets.exhausted_at(now, left, pace, each.period), firing=worst,
            since=now if worst else None, calendar=objective.calendar, description=objective.description,
            threshold_s=None if objective.sli.threshold is None else float(objective.sli.threshold),
        )  # fmt: skip

    def _keep(self, now: float) -> None:
        rows = [{"slo": each.name, "at": now, "body": each.to_json()} for each in self.statuses]
        with self._store.write() as connection:
            connection.execute(delete(schema.status))
            if rows:
                upsert(connection, schema.status, rows, ["slo"])
            if self._pointed is None or now - self._pointed >= _POINT_EVERY:
                self._pointed = now
                body = {each.name: each.remaining for each in self.statuses if each.remaining is not None}
                upsert(connection, schema.point, [{"at": now, "body": json.dumps(body)}], ["at"])


def _key(name: str, labels: Mapping[str, str]) -> str:
    """Names a recorded series of one objective: counts are told apart by labels, the rest by name."""
    return f"{labels['events']} {labels['sloth_window']}" if "events" in labels else name


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body
