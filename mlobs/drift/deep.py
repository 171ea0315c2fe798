"""What can be said of a column without a reference: the deep part of a profile.

Integers only in `Deep` but for the extremes, which order does not touch either; the floating moments stand in
`Moments`, apart, equal to about 1e-12 whatever the order of merging.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from mlobs.drift import bits, hll
from mlobs.drift.exactsum import exact_sum
from mlobs.drift.grid import Floats, Ints

_CHUNK = 65536
CATEGORY_CAP = 1024
"""Categories that are counted by name: those of smallest hash; the rest is `other`."""
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, mean and sum of squared deviations (Chan, Golub and LeVeque 1979)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def merged(self, other: Moments) -> Moments:
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        step = other.mean - self.mean
        mean = self.mean + step * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + step * step * (self.n * (other.n / n)))


@dataclass(frozen=True, slots=True, eq=False)
class Deep:
    """Log-linear histogram, exact sum, categories of smallest hash, distinct values of one column."""

    keys: Keys
    counts: Ints
    """The histogram (`bits`), keys ascending; 7 bits of mantissa."""
    total: int = 0
    """Exact sum in units of 2**-1074."""
    words: Mapping[str, int] = field(default_factory=dict)
    other: int = 0
    """Rows of categories that `words` has no room for."""
    registers: hll.Registers = field(default_factory=hll.empty)
    moments: Moments = field(default_factory=Moments)

    @property
    def distinct(self) -> float:
        """Different values, within 1.6 %."""
        return hll.estimate(self.registers)


def of_numbers(values: Floats) -> Deep:
    """The deep part of finite numbers. About 40 ns a value."""
    if not len(values):
        return Deep(np.empty(0, np.uint64), np.empty(0, np.int64))
    if len(values) > _CHUNK:  # what fits the cache costs half
        parts = (of_numbers(values[start : start + _CHUNK]) for start in range(0, len(values), _CHUNK))
        return reduce(merge_deep, parts)
    keys, counts = bits.histogram(values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        m2 = float(np.square(values - mean).sum())
    return Deep(
        keys,
        counts,
        exact_sum(values),
        registers=hll.of_numbers(values),
        moments=Moments(len(values), mean, m2),
    )


def of_words(counts: Mapping[str, int]) -> Deep:
    """The deep part of categories by count."""
    hashes = {word: word_hash(word) for word in counts}
    kept = smallest(counts, hashes)
    rest = sum(counts.values()) - sum(kept.values())
    registers = hll.of_hashes(np.array(list(hashes.values()), dtype=np.uint64)) if hashes else hll.empty()
    return Deep(np.empty(0, np.uint64), np.empty(0, np.int64), words=kept, other=rest, registers=registers)


def merge_deep(a: Deep, b: Deep) -> Deep:
    """The deep part of the rows of both: exact, in any order, but for the moments' rounding."""
    keys, counts = merge_histograms(a.keys, a.counts, b.keys, b.counts)
    words, other = dict(a.words), a.other + b.other
    for word, count in b.words.items():
        words[word] = words.get(word, 0) + count
    if len(words) > CATEGORY_CAP:
        kept = smallest(words, {word: word_hash(word) for word in words})
        other += sum(words.values()) - sum(kept.values())
        words = kept
    return Deep(
        keys,
        counts,
        a.total + b.total,
        words,
        other,
        hll.merge(a.registers, b.registers),
        a.moments.merged(b.moments),
    )


def merge_histograms(keys: Keys, counts: Ints, others: Keys, more: Ints) -> tuple[Keys, Ints]:
    """Two sparse histograms as one."""
    if not len(others) or not len(keys):
        return (keys, counts) if len(keys) else (others, more)
    joined, place = np.unique(np.concatenate([keys, others]), return_inverse=True)
    total = np.zeros(len(joined), dtype=np.int64)
    np.add.at(total, place, np.concatenate([counts, more]))
    return joined, total


def smallest(counts: Mapping[str, int], hashes: Mapping[str, int], cap: int = CATEGORY_CAP) -> dict[str, int]:
    """The `cap` categories of smallest hash. One that is kept of the whole was kept of every part, so that
    its count is exact and the choice does not depend on the order of merging."""
    if len(counts) <= cap:
        return dict(counts)
    return {word: counts[word] for word in sorted(counts, key=lambda word: (hashes[word], word))[:cap]}


def word_hash(word: str) -> int:
    """64-bit hash of a category; the same in every process and version."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
