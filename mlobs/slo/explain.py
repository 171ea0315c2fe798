"""An objective's state in words, requests, minutes and dates. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from mlobs.durations import speak_duration
from mlobs.objectives import quality_better, show_objective
from mlobs.settings import ObjectiveSettings, Settings
from mlobs.slo.policy import tiers
from mlobs.slo.promql import window
from mlobs.slo.status import SloStatus
from mlobs.slo.validate import detection

GOOD = {
    "availability": "requests succeed",
    "latency": "requests are faster than {threshold}",
    "p99": "slices of {slice} have 99 % of their requests faster than {threshold}",
    "data_quality": "rows pass every check",
    "drift": "judged windows show no drift",
    "freshness": "looks find the data younger than {threshold}",
    "good_prediction": "predictions are fast, valid, fresh and successful",
    "model_quality": "looks find {threshold}",
    "boolean": "looks find it up",
    "ratio": "events are good",
    "composite": "looks find every one of {of} keeping its promise",
}
_PARTS = {"p99": "slow requests"}
"""What is told apart by part, where it is not the objective's events."""


def explain(objective: ObjectiveSettings, status: SloStatus, settings: Settings) -> str:
    """Some ten lines: the promise, what was spent, by what, how fast, until when, and what would page."""
    return "\n".join(_lines(objective, status, settings))


def _lines(objective: ObjectiveSettings, status: SloStatus, settings: Settings) -> Iterable[str]:
    zone = ZoneInfo(objective.zone)
    threshold = "" if objective.sli.threshold is None else _threshold(objective)
    good = GOOD[objective.sli.kind].format(
        threshold=threshold, slice=window(settings.slo.slice), of=", ".join(objective.sli.of)
    )
    period = f"a calendar {objective.calendar}" if objective.calendar else speak_duration(objective.period)
    yield f"{objective.name}: {show_objective(objective.objective)} of {good}, over {period}."
    if objective.description:
        yield objective.description
    yield f"State: {status.state}. {status.reason[:1].upper()}{status.reason[1:]}."
    yield (
        f"Budget: {status.allowed:,.0f} of about {status.allowed / (1 - float(objective.objective)):,.0f} "
        f"{status.unit} may be bad, or {status.budget_minutes:,.0f} minutes of total outage."
    )
    if status.consumed is not None and status.remaining_events is not None:
        yield (
            f"Spent: {status.bad:,.0f} {status.unit}, {status.consumed:.1%}; left: "
            f"{status.remaining_events:z,.0f} {status.unit} or {status.remaining_minutes or 0:z,.0f} minutes."
        )
    if status.spent_by:
        shares = ", ".join(f"{part} {bad:,.0f}" for part, bad in status.spent_by[:5])
        unit = _PARTS.get(status.kind, status.unit)
        yield f"Spent by ({unit}): {shares}."
    yield from _forecast(status, zone)
    if status.firing is not None and status.since is not None:
        yield f"Firing: a {status.firing} since {_date(status.since, zone)}."
    for tier in tiers(objective, settings.slo):
        soonest = detection(tier, 1.0)
        when = "never" if soonest is None else f"after {speak_duration(soonest)}"
        rate = status.burn_rates.get(window(tier.long))
        now = "nothing to judge" if rate is None else f"now {rate:.3g}"
        yield (
            f"A {tier.severity} opens above {tier.factor:.4g} times the allowed pace over "
            f"{window(tier.long)} and {window(tier.short)} ({now}); a total failure opens it {when}."
        )


def _forecast(status: SloStatus, zone: ZoneInfo) -> Iterable[str]:
    if status.remaining is not None and status.remaining <= 0:
        yield "Nothing is left to spend."
    elif status.exhausted_at is not None:
        early = (
            ""
            if status.exhausted_early is None
            else f", at the soonest {_date(status.exhausted_early, zone)}"
        )
        late = ", perhaps never"
        if status.exhausted_late is not None:
            late = f", at the latest {_date(status.exhausted_late, zone)}"
        yield f"At this pace the rest is gone {_date(status.exhausted_at, zone)}{early}{late}."
    elif status.consumed is not None:
        yield "At this pace the rest lasts."


def _threshold(objective: ObjectiveSettings) -> str:
    value = objective.sli.threshold
    assert value is not None
    sli = objective.sli
    if sli.kind != "model_quality":
        return speak_duration(float(value))
    better = quality_better(sli.metric or "", sli.better, value)
    return f"{sli.metric} at {value} or {'less' if better == 'lower' else 'more'}"


def _date(at: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M %Z")
