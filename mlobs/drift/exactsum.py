"""Exact sums of float64 values: an integer in units of 2**-1074, so that the order of adding never shows.

The mantissas are added by sign and exponent in two halves of 26 bits each, which float64 carries exactly for
2**27 values; a Python integer takes over between the chunks (a long accumulator, Kulisch 1971).
"""

from __future__ import annotations

import numpy as np

from mlobs.drift.grid import Floats

_CHUNK = 1 << 20
_HALF = 26
_UNIT = 1074


def exact_sum(values: Floats) -> int:
    """The sum of finite values in units of 2**-1074. About 8 ns a value."""
    total = 0
    for start in range(0, len(values), _CHUNK):
        bits = np.ascontiguousarray(values[start : start + _CHUNK]).view(np.int64)
        place = (bits >> 52) & 0xFFF
        low = np.bincount(place, weights=(bits & ((1 << _HALF) - 1)).astype(np.float64), minlength=4096)
        high = np.bincount(
            place, weights=((bits >> _HALF) & ((1 << _HALF) - 1)).astype(np.float64), minlength=4096
        )
        count = np.bincount(place, minlength=4096)
        for slot in np.flatnonzero(count).tolist():
            exponent = slot & 0x7FF
            mantissa = (int(high[slot]) << _HALF) + int(low[slot])
            if exponent:
                mantissa = (mantissa + (int(count[slot]) << 52)) << (exponent - 1)
            total += -mantissa if slot >> 11 else mantissa
    return total


def as_float(total: int) -> float:
    """The nearest float64 of an exact sum; infinite beyond the range."""
    try:
        return total / (1 << _UNIT)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")
