"""The alerting rules over a whole history at once: the same decisions as burn.py, on arrays. Pure.

A history is what was counted: ascending times and, for each, cumulative bad and total events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlobs import names
from mlobs.slo import timeslice
from mlobs.slo.evaluate import Plan
from mlobs.slo.policy import HOUR

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Past:
    """Cumulative events of one objective. The first entry is where counting began."""

    times: Floats
    bad: Floats
    total: Floats

    def __post_init__(self) -> None:
        if not len(self.times) == len(self.bad) == len(self.total):
            raise ValueError("times, bad and total have one length")


@dataclass(frozen=True, slots=True)
class Windowed:
    """Events of one window before every time, and the share of the window that was observed."""

    bad: Floats
    total: Floats
    coverage: Floats

    @property
    def ratio(self) -> Floats:
        """Bad share; 0 without events, where `total` tells."""
        return np.divide(self.bad, self.total, out=np.zeros_like(self.bad), where=self.total > 0)


def windowed(past: Past, length: float) -> Windowed:
    """The window of `length` seconds before each time of `past`. O(n log n)."""
    before = np.searchsorted(past.times, past.times - length, side="right") - 1
    bad0 = np.where(before >= 0, past.bad[before], 0.0) if len(past.bad) else past.bad
    total0 = np.where(before >= 0, past.total[before], 0.0) if len(past.total) else past.total
    age = past.times - past.times[0] if len(past.times) else past.times
    return Windowed(past.bad - bad0, past.total - total0, np.minimum(1.0, age / length))


def firing(plan: Plan, past: Past) -> dict[str, Flags]:
    """By severity, whether an alert of `plan` fires at each time of `past`."""
    cache = {length: windowed(past, length) for length in plan.windows}
    found: dict[str, Flags] = {}
    for tier in plan.tiers:
        long, short, threshold = cache[tier.long], cache[tier.short], float(tier.threshold)
        burns = long.ratio * long.coverage > threshold * (2 - long.coverage)
        burns &= short.ratio > threshold
        if plan.sliced:
            least = plan.gates.min_bad_slices if tier.severity == names.PAGE else 1
            burns &= (long.bad >= least) & (short.bad >= 1)
        else:
            burns &= (long.bad >= plan.gates.min_bad_long) & (short.bad >= plan.gates.min_bad_short)
        found[tier.severity] = found[tier.severity] | burns if tier.severity in found else burns
    if not plan.sliced:
        rule = _absolute(plan, cache)
        found[plan.cap] = found[plan.cap] | rule if plan.cap in found else rule
    return found


def _absolute(plan: Plan, cache: dict[float, Windowed]) -> Flags:
    gates = plan.gates
    longest = cache[gates.absolute_windows[-1]]
    half = max(0.5, plan.share)
    rule = (longest.total >= gates.absolute_events) & (longest.bad >= gates.absolute_bad)
    rule &= longest.bad >= half * longest.total
    for length in gates.absolute_windows:
        window = cache[length]
        rule |= (window.total >= gates.absolute_events) & (window.bad >= window.total * (1 - 1e-9))
    quiet: Flags = rule & (cache[HOUR].total <= gates.quiet_events)
    return quiet


def slices_of(times: Floats, slow: Floats, total: Floats, length: float) -> Past:
    """Requests (cumulative, at the ends of slices of `length` seconds) -> the slices as events."""
    spans = timeslice.growth(length)
    bad_slices, judged = np.zeros(len(times)), np.zeros(len(times))

    def look(end: int, count: int) -> timeslice.Requests:
        start = max(0, end - count)
        return timeslice.Requests(slow[end] - slow[start], total[end] - total[start])

    for end in range(1, len(times)):
        verdict = timeslice.judge(lambda count, end=end: look(end, count), spans)  # type: ignore[misc]
        judged[end] = verdict is not None
        bad_slices[end] = bool(verdict)
    return Past(times, np.cumsum(bad_slices), np.cumsum(judged))


def stretches(flags: Flags) -> list[tuple[int, int]]:
    """(first, last) index of every run of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]
