"""PromQL's `increase` and `rate` over samples, to the last digit: what the written rules compute. Pure.

Definition: of the samples in the window, last - first, plus the value before each reset; stretched to the
window's edges where the first or last sample is nearer to its edge than 1.1 mean spacings, else by half a
spacing, and never below zero at the start. At least two samples; else None. (Prometheus, promql/functions.go,
`extrapolatedRate`.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

LEFT_OPEN = "3"
"""Prometheus 3: the window is (t - range, t]."""
CLOSED = "2"
"""Prometheus 2: the window is [t - range, t]."""


def increase(
    times: Sequence[float], values: Sequence[float], t: float, length: float, edition: str = CLOSED
) -> float | None:
    """The increase of a counter in the window of `length` seconds that ends at `t`.

    `times` (seconds, ascending, whole milliseconds as Prometheus keeps them) and `values` have the same
    length. None where the window holds fewer than two samples. Cost: O(samples in the window).
    """
    start = t - length
    low = bisect_left(times, start) if edition == CLOSED else bisect_right(times, start)
    high = bisect_right(times, t)
    if high - low < 2:
        return None
    first, last = values[low], values[high - 1]
    gained = last - first
    before = first
    for value in values[low + 1 : high]:
        if value < before:
            gained += before
        before = value
    # Milliseconds as integers, divided once: the float operations are Prometheus' own, in its order.
    to_start = _seconds(times[low], start)
    to_end = _seconds(t, times[high - 1])
    sampled = _seconds(times[high - 1], times[low])
    spacing = sampled / (high - low - 1)
    if gained > 0 and first >= 0:
        to_zero = sampled * (first / gained)
        to_start = min(to_start, to_zero)
    limit = spacing * 1.1
    stretched = sampled
    stretched += to_start if to_start < limit else spacing / 2
    stretched += to_end if to_end < limit else spacing / 2
    return gained * (stretched / sampled)


def rate(
    times: Sequence[float], values: Sequence[float], t: float, length: float, edition: str = CLOSED
) -> float | None:
    """The increase per second."""
    found = increase(times, values, t, length, edition)
    return None if found is None else found / length


def _seconds(later: float, earlier: float) -> float:
    return (round(later * 1000) - round(earlier * 1000)) / 1000
