"""The error budget, from events: never from averaged ratios, never NaN, never green for want of data.
Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from mlobs.objectives import error_budget
from mlobs.slo.burn import Count

OK = "ok"
BURNING = "burning"
EXHAUSTED = "exhausted"
ABSENT = "absent"
LOW_TRAFFIC = "low_traffic"
YOUNG = "young"

LEAST_SEEN = 30.0
"""Seconds that the first counts stand for at least: seen once, they have no duration of their own."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One period's account."""

    bad: float
    total: float
    allowed: float
    """Bad events that the objective allows in the period, at the pace seen so far."""
    consumed: float | None
    """Share of the budget that is spent, above 1 when overspent; None without events."""
    minutes: float
    """The budget as minutes of total outage at an even load."""

    @property
    def remaining(self) -> float | None:
        return None if self.consumed is None else 1.0 - self.consumed

    @property
    def remaining_events(self) -> float | None:
        return None if self.consumed is None else self.allowed - self.bad

    @property
    def remaining_minutes(self) -> float | None:
        return None if self.consumed is None else self.minutes * (1.0 - self.consumed)


def budget(bad: float, total: float, objective: Decimal, period: float, coverage: float) -> Budget:
    """The account of a period of `period` seconds, of which the share `coverage` in [0, 1] was observed."""
    share = float(error_budget(objective))
    expected = total / min(1.0, max(coverage, LEAST_SEEN / period))
    allowed = share * expected
    consumed = bad / allowed if allowed > 0 else None
    return Budget(bad, total, allowed, consumed, share * period / 60.0)


def state(
    *, absent: bool, burning: bool, young: bool, total: float, consumed: float | None, share: float
) -> str:
    """One word for the objective; what people must act on comes first."""
    if absent:
        return ABSENT
    if consumed is not None and consumed >= 1.0:
        return EXHAUSTED
    if burning:
        return BURNING
    if young:
        return YOUNG
    if total * share < 1.0:  # one bad event would spend all of it
        return LOW_TRAFFIC
    return OK


def exhausted_at(now: float, left: float | None, burn_rate: float | None, period: float) -> float | None:
    """When what is left is gone at this burn rate; `now` if nothing is left, None if it never will."""
    if left is None:
        return None
    if left <= 0:
        return now
    if burn_rate is None or burn_rate <= 0:
        return None
    return now + left * period / burn_rate


def exhaustion_band(
    now: float, left: float | None, recent: Count | None, share: float, period: float
) -> tuple[float | None, float | None]:
    """The earliest and the latest time at which what is left may be gone, by what is known of the recent
    pace.

    Bad events come as a Poisson count: two standard errors either way (an approximate 95 % band). None:
    never.
    """
    if left is None or recent is None or recent.total <= 0:
        return None, None
    spread = 2.0 * math.sqrt(recent.bad + 1.0)
    pace = [max(0.0, count) / recent.total / share for count in (recent.bad + spread, recent.bad - spread)]
    return exhausted_at(now, left, pace[0], period), exhausted_at(now, left, pace[1], period)
