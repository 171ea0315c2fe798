"""What is wrong with objectives before anything is applied, and how soon their alerts would speak. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from decimal import Decimal

from mlobs import names
from mlobs.durations import format_duration
from mlobs.errors import ConfigError, Problem
from mlobs.objectives import error_budget, show_objective
from mlobs.settings import ObjectiveSettings, Settings
from mlobs.slo.evaluate import plan
from mlobs.slo.policy import Tier, period_length, tiers

CHECKS_PER_SHORT_WINDOW = 3
"""A short window that holds fewer evaluations can miss what it is there to see."""


@dataclass(frozen=True, slots=True)
class TierTimes:
    """When a tier speaks and when it falls silent, in seconds; None where it never does."""

    slo: str
    objective: str
    severity: str
    long: str
    short: str
    factor: float
    burns_above: float
    """Share of bad events above which it can fire."""
    detect_total: float | None
    """After the onset of a total outage."""
    detect_tenth: float | None
    """After the onset of 10 % bad events."""
    detect_steady: float | None
    """After the onset of twice the share that it can see."""
    reset_total: float | None
    """After the end of a total outage that filled its short window."""


def check(settings: Settings, source: str = "mlobs.yaml") -> list[Problem]:
    """Every objective that could not do its work, with the fix. Empty when all can."""
    found = []
    for number, objective in enumerate(settings.slo.objectives):
        where = f"{source}: slo.objectives[{number}] ({objective.name})"
        try:
            plan(objective, settings)
        except ConfigError as error:
            found += [dataclasses.replace(problem, where=f"{where}.sli") for problem in error.problems]
            continue
        for tier in tiers(objective, settings.slo):
            found += _tier_problems(where, objective, tier, settings)
    return found


def _tier_problems(where: str, objective: ObjectiveSettings, tier: Tier, settings: Settings) -> list[Problem]:
    found = []
    long, short = format_duration(Decimal(str(tier.long))), format_duration(Decimal(str(tier.short)))
    if not tier.reachable:
        budget = error_budget(objective.objective)
        most = 1 / budget * Decimal(str(tier.long)) / Decimal(str(period_length(objective)))
        found.append(
            Problem(
                where,
                f"a tier that can fire: factor {tier.factor:.4g} x budget {budget} below 1",
                f"{tier.threshold:.4g} for the window {long}, and no more than every event can be bad",
                f"spend less than {most:.2%} of the budget in {long}, or raise the objective",
            )
        )
    step = max(settings.slo.evaluation_interval, settings.slo.scrape_interval)
    if tier.short < CHECKS_PER_SHORT_WINDOW * step:
        least = format_duration(Decimal(str(CHECKS_PER_SHORT_WINDOW * step)))
        found.append(
            Problem(
                where,
                f"a short window of at least {CHECKS_PER_SHORT_WINDOW} checks ({least})",
                short,
                f"write `short: {least}` or more, or check more often",
            )
        )
    if tier.long > period_length(objective):
        found.append(
            Problem(
                where,
                "a long window within the period",
                f"{long} of {format_duration(Decimal(str(period_length(objective))))}",
                "take a shorter window or a longer period",
            )
        )
    return found


def times(settings: Settings) -> list[TierTimes]:
    """The table of detection and reset times of every tier, for a mature service with an even load."""
    found = []
    for objective in settings.slo.objectives:
        for tier in tiers(objective, settings.slo):
            threshold = float(tier.threshold)
            row = TierTimes(
                slo=objective.name,
                objective=show_objective(objective.objective),
                severity=tier.severity,
                long=format_duration(Decimal(str(tier.long))),
                short=format_duration(Decimal(str(tier.short))),
                factor=float(tier.factor),
                burns_above=threshold,
                detect_total=detection(tier, 1.0),
                detect_tenth=detection(tier, 0.1),
                detect_steady=detection(tier, min(1.0, 2 * threshold)),
                reset_total=reset(tier, 1.0),
            )
            found.append(row)
    return sorted(
        found, key=lambda row: (row.slo, names.SEVERITIES.index(row.severity), row.detect_total or 0)
    )


def detection(tier: Tier, share: float) -> float | None:
    """Seconds from a step to the share `share` of bad events until the tier fires: F b long / e,
    if e > F b."""
    threshold = float(tier.threshold)
    if share <= threshold:
        return None
    return max(threshold * tier.long, threshold * tier.short) / share


def reset(tier: Tier, share: float) -> float | None:
    """Seconds from the end of a failure until the short window is below the threshold: short (1 - F b /
    e)."""
    threshold = float(tier.threshold)
    return None if share <= threshold else tier.short * (1 - threshold / share)
