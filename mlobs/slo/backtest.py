"""What proposed objectives and alerts would have done in the past: pages a week, delays, what was missed.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlobs import names
from mlobs.slo.evaluate import Plan
from mlobs.slo.replay import Flags, Past, firing, stretches

WEEK = 7 * 86400.0
MERGE = 1800.0
"""Trouble that pauses for less than this is one incident, and pages that close together are one page."""
WORTH = 0.01
"""Share of the period's budget that a stretch must cost to be an incident, where nobody listed the
incidents."""


@dataclass(frozen=True, slots=True)
class Incident:
    start: float
    end: float
    page: float | None
    """When the first page left during it; None if it was missed."""
    cost: float
    """Share of the period's budget that it cost."""

    @property
    def delay(self) -> float | None:
        return None if self.page is None else max(0.0, self.page - self.start)


@dataclass(frozen=True, slots=True)
class Backtest:
    """One objective over a stretch of the past."""

    slo: str
    start: float
    end: float
    pages: tuple[float, ...]
    """When each page would have left."""
    tickets: tuple[float, ...]
    incidents: tuple[Incident, ...]
    false_pages: int
    """Pages outside of any incident."""
    bad: float
    total: float
    spent: float | None
    """Share of its budget that a whole period at the stretch's pace would have cost; None without events."""
    worst_spent: float | None
    """The most that any period-long window of it cost."""

    @property
    def pages_per_week(self) -> float:
        return len(self.pages) * WEEK / max(self.end - self.start, 1.0)

    @property
    def missed(self) -> int:
        return sum(1 for incident in self.incidents if incident.page is None)

    @property
    def delays(self) -> tuple[float, ...]:
        return tuple(sorted(each.delay for each in self.incidents if each.delay is not None))


def backtest(plan: Plan, past: Past, incidents: Sequence[tuple[float, float]] | None = None) -> Backtest:
    """Replay `past` through the alerts of `plan`.

    `incidents` are (start, end) that people know of; without them, stretches that burned faster than
    allowed and cost more than 1 % of the budget count as incidents.
    """
    fired = firing(plan, past)
    nothing = np.zeros(len(past.times), dtype=np.bool_)
    pages = _onsets(past, fired.get(names.PAGE, nothing))
    tickets = _onsets(past, fired.get(names.TICKET, nothing))
    known = list(incidents) if incidents is not None else trouble(plan, past)
    found = [
        Incident(start, end, _first(pages or tickets, start, end), _cost(plan, past, start, end))
        for start, end in known
    ]
    outside = [page for page in pages if not any(start <= page <= end + MERGE for start, end in known)]
    bad, total = float(past.bad[-1] - past.bad[0]), float(past.total[-1] - past.total[0])
    return Backtest(
        plan.name, float(past.times[0]), float(past.times[-1]), tuple(pages), tuple(tickets), tuple(found),
        len(outside), bad, total, bad / (plan.share * total) if total > 0 else None, _worst(plan, past),
    )  # fmt: skip


def trouble(plan: Plan, past: Past) -> list[tuple[float, float]]:
    """Stretches in which events went bad faster than allowed, joined over short pauses and over times without
    any event (between slices of a day, or a night), if they cost enough."""
    bad, total = np.diff(past.bad, prepend=past.bad[0]), np.diff(past.total, prepend=past.total[0])
    burning = bad > plan.share * total
    joined: list[list[float]] = []
    before = -1
    for first, last in stretches(burning):
        start, end = float(past.times[max(0, first - 1)]), float(past.times[last])
        silent = joined and past.total[first - 1] <= past.total[before]
        if joined and (silent or start - joined[-1][1] <= MERGE):
            joined[-1][1] = end
        else:
            joined.append([start, end])
        before = last
    return [(start, end) for start, end in joined if _cost(plan, past, start, end) >= WORTH]


def _onsets(past: Past, flags: Flags) -> list[float]:
    found: list[float] = []
    quiet_since = -np.inf
    for first, last in stretches(flags):
        if past.times[first] - quiet_since > MERGE:
            found.append(float(past.times[first]))
        quiet_since = float(past.times[last])
    return found


def _first(pages: Sequence[float], start: float, end: float) -> float | None:
    return next((page for page in pages if start <= page <= end + MERGE), None)


def _cost(plan: Plan, past: Past, start: float, end: float) -> float:
    """Share of a period's budget that (start, end] cost, at the pace of the whole past."""
    low, high = np.searchsorted(past.times, [start, end], side="right") - 1
    span = max(float(past.times[-1] - past.times[0]), 1.0)
    expected = float(past.total[-1] - past.total[0]) * plan.period / span
    return float(past.bad[high] - past.bad[max(low, 0)]) / (plan.share * expected) if expected > 0 else 0.0


def _worst(plan: Plan, past: Past) -> float | None:
    """The dearest period-long window, of whole ones where the past is long enough for any."""
    before = np.searchsorted(past.times, past.times - plan.period, side="right") - 1
    whole = before >= 0
    if not whole.any():
        return None
    bad = past.bad[whole] - past.bad[before[whole]]
    total = past.total[whole] - past.total[before[whole]]
    spent = np.divide(bad, plan.share * total, out=np.zeros_like(bad), where=total > 0)
    return float(spent.max())
