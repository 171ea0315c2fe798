"""p99 as time slices: a slice is bad if "at most 1 % of its requests are slow" does not hold. Pure.

Exact counts from the threshold's bucket, never interpolation. A slice with few requests takes in the ones
before it (5, 15, 60 minutes) until 6,000 requests speak, and is bad only if the claim is refuted at p <
0.01 and the slice's own share of slow requests exceeds 1 %: the window gives the evidence, the slice the
place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlobs.stats.binomial import critical_count

SLOW_SHARE = 0.01
"""What p99 leaves: the share of requests that may be slower than the threshold."""
ENOUGH = 6000
"""Requests from which on a slice stands for itself."""
EXACT_FROM = 60_000
"""Requests from which on the share is compared as it is. Below, a service with 0.8 % slow requests would show
more than 1 % in every 25th slice of 6,000 by chance alone, and page; the test lets 1 in 10,000 pass."""
ALPHA = 0.01
GROWTH = (1, 5, 15, 60)
"""Lengths of the evidence in slices, for slices of a minute."""
LONGEST = 3600.0
"""Evidence is never older than this many seconds, unless one slice is."""


@dataclass(frozen=True, slots=True)
class Requests:
    slow: float
    total: float


def refuted(counts: Requests) -> bool:
    """Whether "at most 1 % slow" cannot be held up against these requests."""
    if counts.total >= EXACT_FROM:
        return counts.slow > SLOW_SHARE * counts.total
    return counts.slow >= critical_count(round(counts.total), SLOW_SHARE, ALPHA)


def growth(slice_length: float) -> tuple[int, ...]:
    """How many slices the evidence may span, shortest first."""
    return tuple(count for count in GROWTH if count == 1 or count * slice_length <= LONGEST)


def judge(look: Callable[[int], Requests], lengths: tuple[int, ...]) -> bool | None:
    """True for a bad slice, False for a good one, None for an empty one, which counts as neither.

    `look(n)` gives the requests of the last n slices, the judged one included.
    """
    own = look(1)
    if own.total <= 0:
        return None
    if own.slow <= SLOW_SHARE * own.total:
        return False
    evidence = own
    for length in lengths[1:]:
        if evidence.total >= ENOUGH:
            break
        evidence = look(length)
    return refuted(evidence)
