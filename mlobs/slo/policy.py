"""Burn-rate tiers: the windows are data, the factors are derived.

A tier fires when a stated share of the period's budget goes within its long window, and its short window
shows that it still burns. With error budget b and factor F an error share e is found after F * b * long /
e, if e > F
* b at all. (Google, The Site Reliability Workbook, chapter 5, "Alerting on SLOs", table 5-8.)
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mlobs import names
from mlobs.objectives import error_budget
from mlobs.settings import BurnWindowSettings, ObjectiveSettings, SloSettings

HOUR = 3600.0
DAY = 24 * HOUR

WORKBOOK = (
    BurnWindowSettings(names.PAGE, HOUR, 5 * 60.0, Decimal("0.02")),
    BurnWindowSettings(names.PAGE, 6 * HOUR, 30 * 60.0, Decimal("0.05")),
    BurnWindowSettings(names.TICKET, DAY, 2 * HOUR, Decimal("0.10")),
    BurnWindowSettings(names.TICKET, 3 * DAY, 6 * HOUR, Decimal("0.10")),
)
"""Shares of a 30-day budget per window, the workbook's recommended parameters: factors 14.4, 6, 3 and 1."""

CALENDAR_DAYS = {"month": 30, "quarter": 91}
"""Nominal length of a calendar period: factors do not jump between February and March."""

TICKET_KINDS = frozenset({"drift", "model_quality"})
"""Kinds whose budget burns over hours or days: they open a ticket unless the objective says `page`."""
NEVER_PAGE = frozenset({"model_quality"})
"""Labels come days later: nobody is woken for them, whatever the objective says."""


ABSENT_AFTER = 15 * 60.0
"""Seconds without any data after which somebody should look: absent is never good."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What must have happened before a burn rate counts as evidence."""

    min_bad_long: float = 5
    min_bad_short: float = 1
    min_bad_slices: float = 3
    """A page on slices needs so many bad ones."""
    absolute_events: float = 10
    """The absolute rule looks at so many last events, for services too quiet for a burn rate."""
    absolute_bad: float = 5
    quiet_events: float = 100
    """A service with more events in the last hour is judged by its burn rate alone."""
    absolute_windows: tuple[float, ...] = (300.0, 1800.0, HOUR, 2 * HOUR, 6 * HOUR)
    absent_after: float = ABSENT_AFTER


@dataclass(frozen=True, slots=True)
class Tier:
    severity: str
    long: float
    short: float
    factor: Decimal
    threshold: Decimal
    """Error share above which it burns: factor x error budget."""

    @property
    def reachable(self) -> bool:
        """An error share above one does not exist."""
        return self.threshold < 1


def period_length(objective: ObjectiveSettings) -> float:
    """Seconds of the period, nominal ones for a calendar period."""
    if objective.calendar is not None:
        return CALENDAR_DAYS[objective.calendar] * DAY
    return objective.period


def severity_cap(objective: ObjectiveSettings) -> str:
    """The highest severity that the objective may raise."""
    kind = objective.sli.kind
    if kind in NEVER_PAGE or objective.severity == names.TICKET:
        return names.TICKET
    return names.TICKET if objective.severity is None and kind in TICKET_KINDS else names.PAGE


def tiers(objective: ObjectiveSettings, slo: SloSettings) -> tuple[Tier, ...]:
    """The objective's tiers, quickest first; `severity: ticket` caps every one."""
    windows = objective.windows or slo.windows or WORKBOOK
    period = Decimal(str(period_length(objective)))
    capped = severity_cap(objective)
    found = []
    for window in windows:
        factor = window.budget * period / Decimal(str(window.long))
        severity = names.TICKET if capped == names.TICKET else window.severity
        threshold = factor * error_budget(objective.objective)
        found.append(Tier(severity, window.long, window.short, factor, threshold))
    return tuple(sorted(found, key=lambda tier: (tier.severity, tier.long)))


def window_lengths(tiers_: tuple[Tier, ...]) -> tuple[float, ...]:
    """Every window that the tiers read, shortest first."""
    return tuple(sorted({length for tier in tiers_ for length in (tier.long, tier.short)}))
