"""Does it burn? Counts of bad and all events in windows -> burn rates and firing tiers. Pure.

The rules for Prometheus say the same in PromQL (rules.py); what is decided here is decided there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlobs import names
from mlobs.slo.policy import HOUR, Gates, Tier


@dataclass(frozen=True, slots=True)
class Count:
    """Events of one window."""

    bad: float
    total: float
    coverage: float = 1.0
    """Share of the window in which the service was observed, in [0, 1]."""

    @property
    def ratio(self) -> float | None:
        """Bad share of what was seen; None without events, never NaN."""
        return self.bad / self.total if self.total > 0 else None

    @property
    def spread(self) -> float | None:
        """Bad share if the unobserved rest of the window had been as busy and all good."""
        return None if self.ratio is None else self.ratio * self.coverage


@dataclass(frozen=True, slots=True)
class Firing:
    """The reason for an alert: the tier, or None for the absolute rule, and the long window's count."""

    severity: str
    tier: Tier | None
    count: Count
    burn_rate: float | None
    long: float
    short: float | None


def tier_burns(tier: Tier, long: Count, short: Count, gates: Gates, sliced: bool) -> bool:
    """Whether both windows burn, on enough evidence.

    A window that the service's life does not cover yet must burn up to twice as fast: one bad minute in the
    first ten is a start, ten bad ones are an outage.
    """
    threshold = float(tier.threshold)
    if long.spread is None or short.ratio is None:
        return False
    if long.spread <= threshold * (2 - long.coverage) or short.ratio <= threshold:
        return False
    if sliced:
        needed = gates.min_bad_slices if tier.severity == names.PAGE else 1
        return long.bad >= needed and short.bad >= 1
    return long.bad >= gates.min_bad_long and short.bad >= gates.min_bad_short


def absolute_burns(counts: Mapping[float, Count], gates: Gates, budget: float) -> float | None:
    """The window in which the absolute rule holds, or None: for services too quiet for any burn rate.

    The last events, ten or more of them, all bad; or half of at least ten in the longest window, five of
    them bad. Bursts shorter than the shortest window are the tiers' business.
    """
    if counts[HOUR].total > gates.quiet_events:
        return None
    for length in gates.absolute_windows:
        count = counts[length]
        if count.total >= gates.absolute_events and count.bad >= count.total * (1 - 1e-9):
            return length
    length = gates.absolute_windows[-1]
    count = counts[length]
    half = max(0.5, budget)
    if (
        count.total >= gates.absolute_events
        and count.bad >= gates.absolute_bad
        and count.bad >= half * count.total
    ):
        return length
    return None


def firing(
    tiers: Sequence[Tier], counts: Mapping[float, Count], gates: Gates, sliced: bool, budget: float, cap: str
) -> dict[str, Firing]:
    """The firing condition of each severity: the quickest tier that burns, or the absolute rule.

    `counts` holds every window of the tiers and of `gates.absolute_windows`; `budget` is the allowed bad
    share; `cap` is the severity of the absolute rule.
    """
    found: dict[str, Firing] = {}
    for tier in tiers:
        long, short = counts[tier.long], counts[tier.short]
        if tier.severity not in found and tier_burns(tier, long, short, gates, sliced):
            rate = burn_rate(long, budget)
            found[tier.severity] = Firing(tier.severity, tier, long, rate, tier.long, tier.short)
    if cap not in found and not sliced:
        length = absolute_burns(counts, gates, budget)
        if length is not None:
            count = counts[length]
            found[cap] = Firing(cap, None, count, burn_rate(count, budget), length, None)
    return found


def burn_rate(count: Count, budget: float) -> float | None:
    """How many times faster than allowed the budget goes in this window; None without events."""
    return None if count.ratio is None else count.ratio / budget
