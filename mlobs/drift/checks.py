"""Shares of rows that fail each check, and when a share is a finding.

A finding takes a share above that of the worst reference day by a margin. A check that some reference day
fails so often that no share could exceed it is off, and said to be off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

import numpy as np
from scipy import special

from mlobs.drift import bits, hll
from mlobs.drift.deep import word_hash
from mlobs.drift.spec import (
    CARDINALITY,
    CATEGORY,
    CHECKS,
    CONSTANT,
    DUPLICATES,
    NEGATIVE,
    NULL,
    NUMBER,
    RANGE,
    ROWS,
    SCHEMA,
    TYPE,
    UNSEEN,
    ZERO,
    ColumnSpec,
    Spec,
)
from mlobs.drift.state import EXAMPLES, State

SKETCH: Final = 0.05
"""Three standard errors of the sketch of rows."""
CHANCE: Final = 0.001
"""A declared share is exceeded when this is as likely as what was seen, or likelier."""
EXPLOSION: Final = 50
"""So many different new categories may be an explosion."""
EXPLODED: Final = 2 / 3
"""... where they are two thirds of all: twice as many as the reference knows."""


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
            unseen += weight * float(counts.cells[column.first_unseen :].sum())
            used.update(np.flatnonzero(counts.cells).tolist())
            used.update(-1 - place for place in range(max(len(counts.unseen) - 1, 0)))
    if not rows:
        return {}
    shares = {NULL: null / rows, SCHEMA: missing / rows}
    if column.kind == NUMBER:
        shares |= {RANGE: beyond / rows, TYPE: wrong / rows, CONSTANT: float(values > 1 and low == high)}
        zero, negative = signs(state, column)
        shares |= {ZERO: zero / rows, NEGATIVE: negative / rows}
    elif column.kind == CATEGORY:
        rare = range(len(column.categories), column.cells)
        one = len(used) == 1 and not used & set(rare)
        shares |= {
            CARDINALITY: _share_of_new(state, column),
            TYPE: wrong / rows,
            UNSEEN: unseen / rows,
            CONSTANT: float(values > 1 and one),
        }
    return shares


def signs(state: State, column: ColumnSpec) -> tuple[float, float]:
    """(weighted zeros, weighted negative values) of a numeric column; exact where the bins have an edge at
    zero, else of what lies beyond the limits."""
    if column.grid is None:
        return 0.0, 0.0
    edges = column.grid.edges
    at = int(np.searchsorted(edges, 0.0))
    split = at < len(edges) and edges[at] == 0.0
    key = int(bits.keys_of(np.zeros(1))[0])
    zero = negative = 0.0
    for weight, stratum in state.strata.items():
        counts = stratum.columns.get(column.name)
        if counts is None or not len(counts.cells):
            continue
        if split:
            zero += weight * float(counts.cells[at + 1])
            negative += weight * float(counts.cells[: at + 1].sum())
        elif edges[-1] <= 0.0:
            zero += weight * counts.outside.get(key, 0)
            negative += weight * (counts.values - sum(n for k, n in counts.outside.items() if k >= key))
        else:
            zero += weight * counts.outside.get(key, 0)
            negative += weight * sum(n for k, n in counts.outside.items() if k < key)
    return zero, negative


def new_categories(state: State, column: ColumnSpec) -> float:
    """Different unseen categories, estimated from the 16 of smallest hash (Bar-Yossef et al. 2002): exact to
    16, then within a quarter."""
    words: set[str] = set()
    for stratum in state.strata.values():
        if column.name in stratum.columns:
            words.update(stratum.columns[column.name].unseen)
    if len(words) < EXAMPLES:
        return float(len(words))
    greatest = sorted(word_hash(word) for word in words)[EXAMPLES - 1]
    return (EXAMPLES - 1) / (greatest / 2**64)


def _share_of_new(state: State, column: ColumnSpec) -> float:
    """Of all different categories, those of the reference and the unseen ones, the share of the unseen."""
    new = new_categories(state, column)
    return new / (new + len(column.categories) + len(column.known)) if new >= EXPLOSION else 0.0


def table_shares(state: State) -> dict[str, float]:
    """`duplicates`: the share of rows that repeat another one of the window, within 0.05; where the spec kept
    a sketch of every row."""
    sketches = [stratum.rows_seen for stratum in state.strata.values() if stratum.rows_seen is not None]
    if not sketches or len(sketches) < len(state.strata) or not state.rows:
        return {}
    return {DUPLICATES: max(1.0 - hll.estimate(reduce(hll.merge, sketches)) / state.rows, 0.0)}


def run_table_checks(state: State, spec: Spec, days: DayShares, margin: float) -> list[CheckResult]:
    """Checks of the rows as a whole: repeated ones, against what was declared or the worst day. Their number
    and their age are `arrivals`'."""
    share = table_shares(state).get(DUPLICATES)
    if share is None:
        return []
    most = spec.most_duplicates
    if most is not None:
        failed = exceeds(share - SKETCH, most, state.effective_rows)
        return [CheckResult(DUPLICATES, share, most, "", False, failed, most + SKETCH, declared=True)]
    limit = days.limit(ROWS, DUPLICATES, margin + SKETCH)
    bound = limit.worst + margin + SKETCH
    failed = share > bound and bool(limit.days) and not limit.off
    return [CheckResult(DUPLICATES, share, limit.worst, limit.day, limit.off, failed, bound)]


def exceeds(share: float, most: float, rows: float) -> bool:
    """More than was declared, beyond chance: among `rows` rows of which `most` fail on the average, as many
    or more have a probability below `CHANCE` (the binomial tail)."""
    if share <= most:
        return False
    return most <= 0 or bool(special.betainc(share * rows, (1 - share) * rows + 1, most) < CHANCE)


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
    silences: tuple[float, ...] = ()
    """Seconds of the longest silence that ended on each day; empty where nobody asked."""

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
    most: float = 1.0
    """The share beyond which it fails."""
    declared: bool = False
    """A person set the share that `worst` holds; it takes more than chance to exceed it."""


def is_masked(state: State, column: ColumnSpec) -> bool:
    """Every unseen category of the state that is known by name is a keyed hash, and the reference holds raw
    text: nothing can be said of the values, and it is no drift."""
    words: set[str] = set()
    for stratum in state.strata.values():
        if column.name in stratum.columns:
            words.update(stratum.columns[column.name].unseen)
    return column.meets_masked(words)


def run_checks(state: State, column: ColumnSpec, days: DayShares, margin: float) -> list[CheckResult]:
    """Every check of the column: against the share that was declared, else against the worst reference day
    plus `margin` (a share)."""
    results = []
    shares = check_shares(state, column)
    for check in CHECKS:
        if check not in shares:
            continue
        share, most = shares[check], column.most.get(check)
        if most is None:
            limit = limit_of(check, column, days, margin)
            failed = not limit.off and share > limit.worst + margin
            found = CheckResult(check, share, limit.worst, limit.day, limit.off, failed, limit.worst + margin)
        else:
            failed = exceeds(share, most, state.effective_rows)
            found = CheckResult(check, share, most, "", most >= 1, failed, most, declared=True)
        if check == UNSEEN and found.failed and is_masked(state, column):
            found = replace(found, failed=False)
        results.append(found)
    return _one_finding(results)


def limit_of(check: str, column: ColumnSpec, days: DayShares, margin: float) -> Limit:
    """What a share of the check is judged by where nothing was declared."""
    limit = days.limit(column.name, check, margin)
    if check in (ZERO, NEGATIVE):
        limit = _of_signs(check, limit)
    if check == UNSEEN and column.novel > limit.worst:
        limit = replace(limit, worst=column.novel, day="", off=column.novel + margin >= 1.0)
    return limit


def _of_signs(check: str, limit: Limit) -> Limit:
    """Zeros and negative values are judged where the days were looked at for them; negative ones only where
    no day has any: else the mean of a column that has both signs would be judged, and seasons move it."""
    return replace(limit, off=limit.off or not limit.days or (check == NEGATIVE and limit.worst > 0))


def _one_finding(results: list[CheckResult]) -> list[CheckResult]:
    """One cause is one finding: signs of values beyond the range are the range's; too many different new
    categories stand for the unseen."""
    failed = {result.check for result in results if result.failed}
    exploded = UNSEEN in failed and any(r.check == CARDINALITY and r.share > EXPLODED for r in results)
    kept = []
    for result in results:
        if result.check in (ZERO, NEGATIVE):
            result = replace(result, failed=result.failed and RANGE not in failed)
        elif result.check == CARDINALITY:
            result = replace(result, worst=EXPLODED, failed=exploded, most=EXPLODED)
        elif result.check == UNSEEN and exploded:
            result = replace(result, failed=False)
        kept.append(result)
    return kept
