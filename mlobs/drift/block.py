"""Means and co-moments of several columns over the rows that have a value in all of them, mergeable.

Floating, so outside the canonical bytes: equal to about 1e-12 whatever the order (Chan's update, in several
dimensions; Schubert and Gertz 2018). Values are taken less the first batch's mean, so that a large offset
costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlobs.drift.grid import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """`n` complete rows of `names`; mean (d,) and sum of outer products of deviations (d, d)."""

    names: tuple[str, ...]
    n: int
    mean: Floats
    comoment: Floats

    @property
    def covariance(self) -> Floats:
        """Sample covariance, (d, d); zeros below two rows."""
        return self.comoment / max(self.n - 1, 1)


def block_of(names: tuple[str, ...], rows: Floats) -> Block:
    """The block of `rows` of shape (n, d), all finite. Cost: one product X'X."""
    if not len(rows):
        return Block(names, 0, np.zeros(len(names)), np.zeros((len(names), len(names))))
    with np.errstate(over="ignore", invalid="ignore"):  # values near the end of the range: see `joint_scores`
        mean = rows.mean(axis=0)
        centred = rows - mean
        return Block(names, len(rows), mean, centred.T @ centred)


def merge_blocks(a: Block, b: Block) -> Block:
    """The block of the rows of both."""
    n = a.n + b.n
    if not a.n or not b.n:
        return a if a.n else b
    weight = a.n * (b.n / n)
    with np.errstate(over="ignore", invalid="ignore"):
        step = b.mean - a.mean
        comoment = a.comoment + b.comoment + weight * np.outer(step, step)
        return Block(a.names, n, a.mean + step * (b.n / n), comoment)
