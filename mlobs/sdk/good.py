"""Good predictions: fast, valid, fresh and successful at once, counted once a call. Pure.

A call that nobody called invalid or stale costs nothing here: whether it was fast stands in its buckets,
which have an edge on the threshold. Only the others are counted apart, by reason and whether slow as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from mlobs import names
from mlobs.sdk.buckets import Bounds

SLOW, INVALID, STALE = "slow", "invalid", "stale"
RESULTS = (names.OK, names.ERROR, INVALID, STALE, SLOW)
"""Each call has one: the first that fits of error, invalid, stale, slow; else ok."""

_LATE = "_late"
"""Ends the reason of a spoiled call that was slow as well."""


def spoiled(valid: bool, late: bool) -> str:
    """The cell of a call that returned but was invalid, or valid but stale; `late` if it was slow as well."""
    return (STALE if valid else INVALID) + (_LATE if late else "")


def results(
    counts: Mapping[str, Sequence[float]],
    bounds: Bounds,
    threshold: float | None,
    apart: Mapping[str, float],
) -> dict[str, float]:
    """Calls by result, each of RESULTS, from the counts of each outcome's fine buckets and the spoiled calls.

    A cancelled call is nothing while it was fast (the client left), and slow beyond the threshold: clients
    that give up must not hide slowness. `apart` is by the cells of `spoiled`; never below 0.
    """
    edge = len(bounds.fine) + 1 if threshold is None else bisect_left(bounds.fine, threshold) + 1
    ended = counts[names.OK]
    invalid, stale = (apart.get(reason, 0.0) for reason in (INVALID, STALE))
    invalid_late, stale_late = (apart.get(reason + _LATE, 0.0) for reason in (INVALID, STALE))
    late = sum(ended[edge:]) - invalid_late - stale_late + sum(counts[names.CANCELLED][edge:])
    return {
        names.OK: max(0.0, sum(ended[:edge]) - invalid - stale),
        names.ERROR: float(sum(counts[names.ERROR])),
        INVALID: invalid + invalid_late,
        STALE: stale + stale_late,
        SLOW: max(0.0, late),
    }
