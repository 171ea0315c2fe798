"""Shares of rows that fail each check, and when a share is a finding.

A finding takes a share above that of the worst reference day by a margin. A check that some reference day
fails so often that no share could exceed it is off, and said to be off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlobs.drift.spec import CATEGORY, CHECKS, CONSTANT, NULL, NUMBER, RANGE, SCHEMA, TYPE, UNSEEN, ColumnSpec
from mlobs.drift.state import State


def check_shares(state: State, column: ColumnSpec) -> dict[str, float]:
    """Weighted share of rows in [0, 1] that fail each check that means something for the column.

    `null` counts nulls and NaN; `range` values beyond the limits and infinities; `constant` is 1 when two
    values or more are all the same, else 0; `schema` the rows without the column. Empty without rows.
    """
    rows = null = unseen = beyond = wrong = missing = 0.0
    low, high, values = np.inf, -np.inf, 0
    used: set[int] = set()
    for weight, stratum in state.strata.items():
        counts = stratum.columns.get(column.name)
        if counts is None:
            continue
        rows += weight * counts.rows
        null += weight * (counts.null + counts.nan)
        beyond += weight * (counts.below + counts.above + counts.pos_inf + counts.neg_inf)
        wrong += weight * counts.wrong
        missing += weight * counts.missing
        low, high, values = min(low, counts.low), max(high, counts.high), values + counts.values
        if column.kind == CATEGORY and len(counts.cells):
            unseen += weight * float(counts.cells[-1])
            used.update(np.flatnonzero(counts.cells).tolist())
            used.update(-1 - place for place in range(max(len(counts.unseen) - 1, 0)))
    if not rows:
        return {}
    shares = {NULL: null / rows, SCHEMA: missing / rows}
    if column.kind == NUMBER:
        shares |= {RANGE: beyond / rows, TYPE: wrong / rows, CONSTANT: float(values > 1 and low == high)}
    elif column.kind == CATEGORY:
        rare = range(len(column.categories), column.cells - 1)
        one = len(used) == 1 and not used & set(rare)
        shares |= {TYPE: wrong / rows, UNSEEN: unseen / rows, CONSTANT: float(values > 1 and one)}
    return shares


@dataclass(frozen=True, slots=True)
class Limit:
    """What the reference days say of one check on one column."""

    worst: float
    """Share of rows on the worst reference day."""
    day: str
    """Label of that day; empty for a reference without days."""
    days: int
    off: bool
    """No share could exceed `worst` by the margin."""

    def said(self, margin: float) -> str:
        """Why it is off, for people."""
        return (
            f"off: reference day {self.day or '(whole)'} fails it in {self.worst:.0%} of its rows, "
            f"so that no share exceeds it by {margin * 100:.3g} points"
        )


@dataclass(frozen=True, slots=True)
class DayShares:
    """Shares of every reference day: `shares[column][check][i]` belongs to `labels[i]`, which has `rows[i]`
    rows.
    """

    labels: tuple[str, ...]
    rows: tuple[int, ...]
    shares: Mapping[str, Mapping[str, Sequence[float]]]

    def limit(self, column: str, check: str, margin: float, least_rows: int = 30) -> Limit:
        """The worst day of a check. Days below `least_rows` rows are left out while others remain."""
        values = self.shares.get(column, {}).get(check, ())
        enough = [place for place in range(len(values)) if self.rows[place] >= least_rows]
        places = enough or list(range(len(values)))
        if not places:
            return Limit(0.0, "", 0, False)
        worst = max(places, key=lambda place: values[place])
        return Limit(values[worst], self.labels[worst], len(places), values[worst] + margin >= 1.0)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check on one column in one window."""

    check: str
    share: float
    worst: float
    day: str
    off: bool
    failed: bool


def is_masked(state: State, column: ColumnSpec) -> bool:
    """Every unseen category of the state that is known by name is a keyed hash, and the reference holds raw
    text: nothing can be said of the values, and it is no drift."""
    words: set[str] = set()
    for stratum in state.strata.values():
        if column.name in stratum.columns:
            words.update(stratum.columns[column.name].unseen)
    return column.meets_masked(words)


def run_checks(state: State, column: ColumnSpec, days: DayShares, margin: float) -> list[CheckResult]:
    """Every check of the column against the worst reference day plus `margin` (a share)."""
    results = []
    shares = check_shares(state, column)
    for check in CHECKS:
        if check not in shares:
            continue
        limit = days.limit(column.name, check, margin)
        if check == UNSEEN and column.novel > limit.worst:
            limit = replace(limit, worst=column.novel, day="", off=column.novel + margin >= 1.0)
        failed = not limit.off and shares[check] > limit.worst + margin
        if check == UNSEEN and failed and is_masked(state, column):
            failed = False
        results.append(CheckResult(check, shares[check], limit.worst, limit.day, limit.off, failed))
    return results
