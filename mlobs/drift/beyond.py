"""Where the values beyond the limits of a number lie, as nearly as its counts tell. Pure."""

from __future__ import annotations

import numpy as np

from mlobs.drift import bits
from mlobs.drift.spec import ColumnSpec
from mlobs.drift.state import State


def beyond_limits(column: ColumnSpec, state: State) -> list[tuple[float, float, float]]:
    """(least, greatest, weighted rows) of each group of values beyond the limits, ascending.

    A group is a key of the histogram: a 128th of the value, of moments a quarter of a year. It is cut to what
    is known otherwise: the extremes of the column, and that none of it lies within the limits.
    """
    rows: dict[int, float] = {}
    low, high, below, above = np.inf, -np.inf, 0, 0
    for weight, stratum in state.strata.items():
        counts = stratum.columns.get(column.name)
        if counts is not None:
            low, high = min(low, counts.low), max(high, counts.high)
            below, above = below + counts.below, above + counts.above
            for key, count in counts.outside.items():
                rows[key] = rows.get(key, 0.0) + weight * count
    least, greatest = column.limits or (np.inf, -np.inf)
    found = []
    for key in sorted(rows):
        start, end = (float(edge) for edge in np.clip(bits.lower_edge([key, key + 1]), low, high))
        if start < greatest < end and (start >= least or not below):
            start = greatest
        elif start < least < end and (end <= greatest or not above):
            end = least
        found.append((start, end, rows[key]))
    return found
