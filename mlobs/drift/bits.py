"""The reference-free histogram: float64 values by the leading bits of their pattern.

A key is sign, exponent and the first 7 bits of the mantissa: 128 log-linear bins an octave, at most 0.8 %
wide, the same for every column, so that counts merge exactly whatever the data. DDSketch and HdrHistogram
share the idea.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mlobs.drift.grid import Floats, Ints

SHIFT = 45
"""64 bits less sign, 11 of the exponent and 7 of the mantissa."""
_FEW = 64
"""So many keys are counted faster one by one."""


def keys_of(values: Floats) -> npt.NDArray[np.uint64]:
    """Keys of finite `values`, ascending with the value; shape as given. -0.0 counts as 0.0."""
    bits = (values + 0.0).view(np.uint64)
    negative = bits >> np.uint64(63) == 1
    ordered = np.where(negative, ~bits, bits | np.uint64(1 << 63))
    return np.asarray(ordered >> np.uint64(SHIFT))


def lower_edge(keys: npt.ArrayLike) -> Floats:
    """The least value of each key."""
    ordered = np.asarray(keys, dtype=np.uint64) << np.uint64(SHIFT)
    positive = ordered >> np.uint64(63) == 1
    bits = np.where(positive, ordered & np.uint64((1 << 63) - 1), ~ordered)
    return np.ascontiguousarray(bits).view(np.float64)


def middle(keys: npt.ArrayLike) -> Floats:
    """A value in the middle of each key's bin."""
    exact = np.asarray(keys, dtype=np.uint64)
    return lower_edge(exact) / 2 + lower_edge(exact + np.uint64(1)) / 2


def histogram(values: Floats) -> tuple[npt.NDArray[np.uint64], Ints]:
    """(keys ascending, counts) of finite values."""
    if not len(values):
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    keys = keys_of(values)
    first = int(keys.min())
    span = int(keys.max()) - first + 1
    if span <= 8 * len(values) + 256:
        dense = np.bincount((keys - np.uint64(first)).astype(np.intp), minlength=span)
        used = np.flatnonzero(dense)
        return used.astype(np.uint64) + np.uint64(first), dense[used].astype(np.int64)
    found, counts = np.unique(keys, return_counts=True)
    return found, counts.astype(np.int64)


def sparse(values: Floats) -> dict[int, int]:
    """The histogram as a mapping from key to count, keys ascending."""
    if len(values) <= _FEW:
        counted: dict[int, int] = {}
        for key in sorted(keys_of(values).tolist()):
            counted[key] = counted.get(key, 0) + 1
        return counted
    keys, counts = histogram(values)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def quantiles(counts: Mapping[int, int], ranks: npt.ArrayLike) -> Floats:
    """Values at `ranks` in [0, 1], within 0.4 %; NaN without counts."""
    wanted = np.asarray(ranks, dtype=np.float64)
    if not counts:
        return np.full(wanted.shape, np.nan)
    keys = np.array(sorted(counts), dtype=np.uint64)
    upto = np.cumsum([counts[int(key)] for key in keys])
    place = np.searchsorted(upto, wanted * upto[-1], side="left")
    return middle(keys[np.minimum(place, len(keys) - 1)])
