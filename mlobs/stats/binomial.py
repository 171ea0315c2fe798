"""Binomial tails: is a share larger than it may be, or just unlucky?

Exact sums over the tail, without scipy: the SLO engine asks it at every slice, and importing scipy costs a
second.
"""

from __future__ import annotations

import math
from functools import lru_cache


def upper_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p).

    `k` and `n` are counts >= 0, `p` is in [0, 1]; the result is in [0, 1], its relative error about 1e-10.
    Cost: O(sqrt(n)) terms, as the sum starts at k and stops once a term adds nothing. Raises ValueError for
    a p outside of [0, 1] or a negative n. (Feller, An Introduction to Probability Theory, VI.2.)
    """
    if not 0.0 <= p <= 1.0 or n < 0:
        raise ValueError(f"a binomial has n >= 0 and p in [0, 1], got n={n}, p={p}")
    if k <= 0:
        return 1.0
    if k > n or p == 0.0:
        return 0.0
    if p == 1.0:
        return 1.0
    if k <= n * p:  # the other tail is the short one
        return 1.0 - _sum_from(n - k + 1, n, 1.0 - p)
    return _sum_from(k, n, p)


def _sum_from(k: int, n: int, p: float) -> float:
    if k > n:
        return 0.0
    log_term = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    term = math.exp(log_term)
    odds = p / (1.0 - p)
    total = 0.0
    while k <= n:
        total += term
        term *= (n - k) / (k + 1) * odds
        k += 1
        if term < total * 1e-17:
            break
    return min(total, 1.0)


@lru_cache(maxsize=4096)
def critical_count(n: int, p: float, alpha: float) -> int:
    """The smallest k with P(X >= k) < `alpha` for X ~ Binomial(n, p): so many refute "at most p".

    May be n + 1: then no outcome of n trials refutes it. Cost: a bisection of about log2(n) tails, cached.
    """
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if upper_tail(middle, n, p) < alpha:
            high = middle
        else:
            low = middle + 1
    return low
