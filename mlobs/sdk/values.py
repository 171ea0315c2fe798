"""One value into a histogram's cells: what the instruments and the batches count with. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left

from mlobs import names
from mlobs.sdk.buckets import Bounds, plain_bounds
from mlobs.sdk.meter import HISTOGRAM, Family, Meter

BATCH = Family(names.BATCH_SIZE, HISTOGRAM, (names.MODEL,), "Rows of a batch.")
SIZES = plain_bounds(float(2**power) for power in range(13))


def add_value(meter: Meter, family: Family, values: tuple[str, ...], bounds: Bounds, value: float) -> None:
    """Count `value` in a histogram's cells. Raises ValueError for what is no finite number, and for
    one below 0: the sum of a histogram would go back, which is a reset to Prometheus.
    """
    number = float(value)
    if not 0.0 <= number < math.inf:
        raise ValueError("not a finite number of 0 or more")
    cells = (meter.shards(family, values, bounds).mine() if meter.sharded else
             meter.block(family, values, bounds))  # fmt: skip
    cells[bisect_left(bounds.fine, number) + 1] += 1
    cells[0] += number
