"""One objective at one moment: counters now and then -> status and alerts. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from mlobs import names
from mlobs.durations import format_duration, speak_duration
from mlobs.errors import ConfigError, Problem, nearest
from mlobs.objectives import error_budget, show_objective
from mlobs.records import Alert
from mlobs.settings import ObjectiveSettings, Settings
from mlobs.slo import budget as budgets
from mlobs.slo.burn import Count, Firing, burn_rate, firing
from mlobs.slo.policy import (
    ABSENT_AFTER,
    Gates,
    Tier,
    period_length,
    severity_cap,
    tiers,
    window_lengths,
)
from mlobs.slo.sli import Indicator, indicator
from mlobs.slo.status import SloStatus

MEMBER_WINDOW = 300.0
"""A composite looks at so many last seconds of its members."""
JUDGED_SHARE = 0.5
"""Drift slices of which fewer than this share could be judged are an absence, not a verdict."""
UNJUDGED_SPEAK = 2
"""So many slices that nobody could judge raise an alert: one odd window is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An objective with what follows from it, worked out once."""

    objective: ObjectiveSettings
    indicator: Indicator
    tiers: tuple[Tier, ...]
    gates: Gates
    period: float
    cap: str
    """Highest severity that this objective may raise."""

    @property
    def name(self) -> str:
        return self.objective.name

    @property
    def share(self) -> float:
        """The error budget as a share of events."""
        return float(error_budget(self.objective.objective))

    @property
    def sliced(self) -> bool:
        """Its events are slices, so that few of them are already evidence."""
        return self.indicator.unit == "slices"

    @property
    def windows(self) -> tuple[float, ...]:
        """Every window that an evaluation reads, shortest first."""
        judging = () if self.judging is None else (self.judging,)
        return tuple(sorted({*window_lengths(self.tiers), *self.gates.absolute_windows, *judging}))

    @property
    def grown(self) -> float:
        """Seconds of the longest window that raises its highest severity: younger, it is young."""
        return max((tier.long for tier in self.tiers if tier.severity == self.cap), default=0.0)

    @property
    def shortest(self) -> float:
        """Seconds of the shortest raw window that its rules read: a slice's, or five minutes."""
        return 60.0 if self.indicator.sliced else MEMBER_WINDOW

    @property
    def judging(self) -> float | None:
        """Seconds within which at least half of the slices must have been judged; None: all are, always."""
        return self.gates.absent_after if self.indicator.unjudged else None


def plan(objective: ObjectiveSettings, settings: Settings) -> Plan:
    ticket = severity_cap(objective) == names.TICKET
    # What comes by drift window is not missing before a few windows have passed.
    slow = objective.sli.kind in ("drift", "data_quality")
    gates = Gates(absent_after=max(ABSENT_AFTER, 3 * settings.drift.window if slow else 0.0))
    try:
        counted = indicator(objective)
    except (ValueError, re.error) as problem:
        raise ConfigError(
            Problem(f"objective {objective.name!r}: sli", "an indicator that can be read", str(problem),
                    "see docs/slo.md for every kind")
        ) from None  # fmt: skip
    if counted.queries is not None and settings.slo.evaluator == "embedded":
        raise ConfigError(
            Problem(
                f"objective {objective.name!r}: sli",
                "selectors, which the embedded evaluator can match",
                "PromQL with $window",
                'write `evaluator: prometheus`, or selectors like metric{label="value"}',
            )
        )
    known = {other.name for other in settings.slo.objectives if other.sli.kind != "composite"}
    for member in counted.of:
        if member not in known:
            raise ConfigError(
                Problem(
                    f"objective {objective.name!r}: sli.composite.of",
                    "another objective, itself no composite", repr(member), nearest(member, known),
                )
            )  # fmt: skip
    return Plan(
        objective,
        counted,
        tiers(objective, settings.slo),
        gates,
        period_length(objective),
        names.TICKET if ticket else names.PAGE,
    )


def fingerprint(each: Plan, settings: Settings) -> str:
    """Changes with what is counted, and not with the objective or the windows: those may be tuned on old
    counts."""
    slices = (settings.slo.slice, settings.slo.zone) if each.indicator.sliced else ()
    return hashlib.sha256(repr((each.indicator, slices)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of an objective's counters at `now`."""

    now: float
    born: float | None
    """When the first event source was seen; None while there was none."""
    absent_since: float | None
    """Since when no target shows its series; None while one does."""
    window: Callable[[float], Count]
    """Events of the last so many seconds."""
    period: Count
    """Events of the period so far."""
    period_s: float
    """Its true length: a month has its own number of days."""
    unjudged: Callable[[float], float]
    """Slices of the last so many seconds that nobody could judge."""
    trouble: str = ""
    """What the targets said that did not answer."""
    spent_by: tuple[tuple[str, float], ...] = ()
    """(`label=value`, bad events of the period), the worst first."""
    run_start: float | None = None
    """Start of the first bad slice of the last run of them."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    status: SloStatus
    alerts: tuple[Alert, ...]


def evaluate(plan: Plan, seen: Observed, settings: Settings, since: Mapping[str, float]) -> Evaluation:
    """Status and holding conditions. `since` says from when each severity has been firing already."""
    counts = {length: seen.window(length) for length in plan.windows}
    rates = {length: burn_rate(counts[length], plan.share) for length in window_lengths(plan.tiers)}
    found = firing(plan.tiers, counts, plan.gates, plan.sliced, plan.share, plan.cap)
    absent = seen.absent_since is not None and seen.now - seen.absent_since >= plan.gates.absent_after
    unjudged = _mostly_unjudged(plan, seen, counts)
    blind = absent or unjudged > 0
    account = budgets.budget(
        seen.period.bad, seen.period.total, plan.objective.objective, seen.period_s, seen.period.coverage
    )
    worst = found.get(names.PAGE) or found.get(names.TICKET)
    gone = budgets.exhausted_at(
        seen.now, account.remaining, worst.burn_rate if worst else _recent(rates), seen.period_s
    )
    band = budgets.exhaustion_band(
        seen.now, account.remaining, counts[max(rates)] if rates else None, plan.share, seen.period_s
    )
    young = seen.born is None or seen.now - seen.born < plan.grown
    state = budgets.state(
        absent=blind, burning=bool(found), young=young,
        total=account.total, consumed=account.consumed, share=plan.share,
    )  # fmt: skip
    status = SloStatus(
        name=plan.name, model=plan.objective.model, kind=plan.objective.sli.kind,
        objective=show_objective(plan.objective.objective), state=state,
        reason=_reason(plan, state, seen, account, worst, gone), unit=plan.indicator.unit,
        period_s=seen.period_s, at=seen.now, bad=account.bad, total=account.total, allowed=account.allowed,
        consumed=account.consumed, remaining=account.remaining, remaining_events=account.remaining_events,
        budget_minutes=account.minutes, remaining_minutes=account.remaining_minutes,
        burn_rates={format_duration(Decimal(str(length))): rate for length, rate in rates.items()},
        exhausted_at=gone, firing=worst.severity if worst else None,
        since=None if worst is None else since.get(worst.severity, _onset(plan, seen)),
        exhausted_early=band[0], exhausted_late=band[1], spent_by=seen.spent_by,
        calendar=plan.objective.calendar, description=plan.objective.description,
        threshold_s=None if plan.objective.sli.threshold is None else float(plan.objective.sli.threshold),
    )  # fmt: skip
    alerts = [_burn_alert(plan, fire, account, gone, seen, settings) for fire in found.values()]
    if absent:
        what = f"no target has shown {_metric(plan.indicator)} for {speak_duration(_silence(seen))}"
        alerts.append(_absent_alert(plan, seen, account, settings, what))
    elif unjudged >= UNJUDGED_SPEAK and plan.judging is not None:
        judged = counts[plan.judging].total
        what = (
            f"{_number(unjudged)} of {_number(unjudged + judged)} {plan.indicator.unit} of the last "
            f"{speak_duration(plan.judging)} could not be judged"
        )
        alerts.append(_absent_alert(plan, seen, account, settings, what))
    return Evaluation(status, tuple(alerts))


def _onset(plan: Plan, seen: Observed) -> float:
    """Since when a condition that is found now has held: slices know, for events it is now."""
    return seen.now if not plan.indicator.sliced or seen.run_start is None else seen.run_start


def _mostly_unjudged(plan: Plan, seen: Observed, counts: Mapping[float, Count]) -> float:
    """How many slices nobody could judge, where they are more than half of them; else 0."""
    if plan.judging is None:
        return 0.0
    unjudged, judged = seen.unjudged(plan.judging), counts[plan.judging].total
    return unjudged if judged < JUDGED_SHARE * (judged + unjudged) else 0.0


def _silence(seen: Observed) -> float:
    """For how long no target has shown the series, seconds."""
    return 0.0 if seen.absent_since is None else seen.now - seen.absent_since


def _recent(rates: Mapping[float, float | None]) -> float | None:
    """The burn rate that a forecast goes by while nothing fires: the longest window's."""
    return rates[max(rates)] if rates else None


def _burn_alert(
    plan: Plan, fire: Firing, account: budgets.Budget, gone: float | None, seen: Observed, settings: Settings
) -> Alert:
    objective = plan.objective
    share = fire.count.ratio or 0.0
    rule = "absolute rule" if fire.tier is None else f"burning {fire.burn_rate or 0:.3g} times too fast"
    digits = 2 if fire.count.total >= 1000 else 0
    return Alert(
        name="SLOBurn", cause=plan.indicator.cause, severity=fire.severity, firing=True,
        since=_onset(plan, seen), at=seen.now,
        service=settings.service, model=objective.model, environment=settings.environment, kind="burn",
        slo=objective.name, burn_rate=fire.burn_rate, budget_remaining=account.remaining, exhausted_at=gone,
        long_window_s=fire.long, short_window_s=fire.short, bad=fire.count.bad, total=fire.count.total,
        summary=(
            f"{objective.name}: {rule}; {_number(fire.count.bad)} of {_number(fire.count.total)} "
            f"{plan.indicator.unit} ({share:.{digits}%}) bad in {speak_duration(fire.long)}"
            f"{_left(account.remaining)}"
        ),
    )  # fmt: skip


def _left(remaining: float | None) -> str:
    """What is left of the budget, after a comma; nothing where nothing is known."""
    if remaining is None:
        return ""
    if remaining <= 0:
        return ", no budget left" if remaining > -0.005 else f", budget overspent by {-remaining:.0%}"
    return f", {remaining:.0%} of the budget left"


def _absent_alert(
    plan: Plan, seen: Observed, account: budgets.Budget, settings: Settings, what: str
) -> Alert:
    objective = plan.objective
    return Alert(
        name="SLOAbsent", cause="absent", severity=plan.cap, firing=True, since=seen.now, at=seen.now,
        service=settings.service, model=objective.model, environment=settings.environment, kind="absent",
        slo=objective.name, budget_remaining=account.remaining,
        summary=f"{objective.name}: {what}{'; ' if seen.trouble else ''}{seen.trouble}",
    )  # fmt: skip


def _metric(indicator: Indicator) -> str:
    return indicator.selectors[0].metric if indicator.selectors else "its query"


def _reason(
    plan: Plan, state: str, seen: Observed, account: budgets.Budget, worst: Firing | None, gone: float | None
) -> str:
    unit = plan.indicator.unit
    if state == budgets.ABSENT:
        if seen.absent_since is None:
            return "most slices could not be judged"
        why = f": {seen.trouble}" if seen.trouble else ""
        return f"no data for {speak_duration(_silence(seen))}{why}"
    if account.consumed is None:
        return f"no {unit} yet"
    spent = (
        f"{_number(account.bad)} of {_number(account.total)} {unit} bad, "
        f"{account.consumed:.0%} of the budget spent"
    )
    if state == budgets.EXHAUSTED:
        return f"the budget is gone: {spent}"
    if worst is not None and worst.burn_rate is not None:
        until = "" if gone is None else f", gone in {speak_duration(gone - seen.now)}"
        return f"burning {worst.burn_rate:.3g} times too fast{until}: {spent}"
    if state == budgets.YOUNG and seen.born is not None:
        return f"{observed_for(seen.now - seen.born)}: {spent}"
    if state == budgets.LOW_TRAFFIC:
        return f"so few {unit} that one bad one spends the budget: {spent}"
    return spent


def observed_for(age: float) -> str:
    """How long a young objective has been watched, in words."""
    return "seen for the first time just now" if age < 1 else f"observed for {speak_duration(age)} so far"


def _number(value: float) -> str:
    return f"{math.floor(value + 0.5):,}".replace(",", " ")
