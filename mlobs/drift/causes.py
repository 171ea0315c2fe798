"""One sentence for people: what a failing check looks like, and what it may come from. Pure.

A change of unit is offered as a hypothesis only: the reference's deciles under each of a short list of known
conversions are laid beside the observed ones, and the nearest is named when it explains most of the
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlobs.drift.beyond import beyond_limits
from mlobs.drift.checks import CheckResult, new_categories
from mlobs.drift.grid import Floats
from mlobs.drift.moments import said, sort_of
from mlobs.drift.spec import (
    CARDINALITY,
    CONSTANT,
    DUPLICATES,
    NEGATIVE,
    NULL,
    RANGE,
    ROWS,
    SCHEMA,
    TYPE,
    UNSEEN,
    UNUSABLE,
    ZERO,
    ColumnSpec,
)
from mlobs.drift.state import State, add, weighted_cells

_DECILES = np.arange(1, 10) / 10
_NEAR = 0.75
"""A conversion is named when the deciles it predicts miss by less than this share of their own spread."""
_SPREAD = 9
"""Points that stand for a group of values beyond the limits."""
_BETTER = 4.0
"""... and by this factor less than without it."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A change of unit that pipelines are known to make."""

    name: str
    apply: Callable[[Floats], Floats]


CONVERSIONS: Sequence[Conversion] = (
    Conversion("Fahrenheit to Celsius", lambda x: (x - 32) / 1.8),
    Conversion("Celsius to Fahrenheit", lambda x: x * 1.8 + 32),
    Conversion("Celsius to Kelvin", lambda x: x + 273.15),
    Conversion("Kelvin to Celsius", lambda x: x - 273.15),
    Conversion("a factor of 1/1000", lambda x: x / 1000),
    Conversion("a factor of 1/100", lambda x: x / 100),
    Conversion("a factor of 1/10", lambda x: x / 10),
    Conversion("a factor of 10", lambda x: x * 10),
    Conversion("a factor of 100", lambda x: x * 100),
    Conversion("a factor of 1000", lambda x: x * 1000),
    Conversion("miles to kilometres", lambda x: x * 1.609344),
    Conversion("kilometres to miles", lambda x: x / 1.609344),
    Conversion("inches to millimetres", lambda x: x * 25.4),
    Conversion("pounds to kilograms", lambda x: x * 0.45359237),
    Conversion("a changed sign", lambda x: -x),
)


_NO_COLUMN = ColumnSpec(ROWS, UNUSABLE)


def describe_rows(result: CheckResult, current: State) -> str:
    """`describe` for a check of rows as a whole."""
    return describe(result, _NO_COLUMN, current, None)


def describe(result: CheckResult, column: ColumnSpec, current: State, reference: State | None) -> str:
    """The named cause of a failed check, for example `92 % of rows below the training minimum 10.94 (range);
    ...`.
    """
    share = _percent(result.share)
    worst = f"worst reference day {_percent(result.worst)}" + (f", {result.day}" if result.day else "")
    if result.declared:
        worst = f"declared: at most {_percent(result.worst)}"
    if result.check == RANGE:
        with np.errstate(over="ignore", invalid="ignore"):  # values near the end of the range name no unit
            return _range(column, current, reference)
    if result.check == NULL:
        return f"{share} of rows null or NaN (null); {worst}"
    if result.check == UNSEEN:
        names = ", ".join(repr(word[:40]) for word in list(_unseen(current, column.name))[:3])
        return f"{share} of rows in categories unknown to the reference (unseen), such as {names}; {worst}"
    if result.check == CARDINALITY:
        known = len(column.categories) + len(column.known)
        return (
            f"some {new_categories(current, column):,.0f} different new categories, the reference knows "
            f"{known:,} (cardinality): an identifier or free text in its place?"
        )
    if result.check in (ZERO, NEGATIVE):
        word = "zero" if result.check == ZERO else "negative"
        return f"{share} of rows {word} ({result.check}); {worst}"
    if result.check == DUPLICATES:
        return f"{share} of rows repeat another row (duplicates); {worst}"
    if result.check == TYPE:
        return f"{share} of rows hold no {column.kind} (type; {column.arrow} in the reference); {worst}"
    if result.check == CONSTANT:
        same = _same(current, column)
        return f"every row has the same value {same} (constant); the reference varies on every day"
    if result.check == SCHEMA:
        return f"{share} of rows come without this column, or with two of its name (schema)"
    return f"{share} of rows fail {result.check}; {worst}"


def _range(column: ColumnSpec, current: State, reference: State | None) -> str:
    below = above = infinite = rows = 0.0
    for weight, stratum in current.strata.items():
        counts = stratum.columns[column.name]
        below, above = below + weight * counts.below, above + weight * counts.above
        infinite += weight * (counts.pos_inf + counts.neg_inf)
        rows += weight * counts.rows
    low, high = (_number(value, column) for value in column.limits or (float("nan"), float("nan")))
    origin = "declared" if column.declared else "training"
    parts = []
    if below:
        parts.append(f"{_percent(below / rows)} of rows below the {origin} minimum {low}")
    if above:
        parts.append(f"{_percent(above / rows)} of rows above the {origin} maximum {high}")
    if infinite:
        parts.append(f"{_percent(infinite / rows)} of rows infinite")
    text = " and ".join(parts) + f" (range; {origin} range {low} to {high})"
    seen = observed_quantiles(current, column, np.array([0.05, 0.5, 0.95]))
    if np.isfinite(seen).all():
        seen = np.rint(seen) if sort_of(column.arrow) else seen
        text += f"; observed 5/50/95 %: {', '.join(_number(float(value), column) for value in seen)}"
    if reference is not None:
        guess = unit_hypothesis(reference, current, column)
        if guess:
            text += f"; values look like a change of unit: {guess} (a hypothesis)"
    return text


def observed_quantiles(state: State, column: ColumnSpec, ranks: Floats) -> Floats:
    """Quantiles of a numeric column from its bins, and from the finer histogram beyond the limits.

    Within a bin the values count as spread evenly. NaN without values.
    """
    if column.grid is None:
        return np.full(len(ranks), np.nan)
    grid = column.grid
    cells = weighted_cells(state, column.name, grid.bins)
    outside = beyond_limits(column, state)
    low, high = np.inf, -np.inf
    for stratum in state.strata.values():
        counts = stratum.columns.get(column.name)
        if counts is not None:
            low, high = min(low, counts.low), max(high, counts.high)
    if cells.sum() <= 0:
        return np.full(len(ranks), np.nan)
    left = np.maximum(np.concatenate([[low], grid.edges]), low)
    right = np.minimum(np.concatenate([grid.edges, [high]]), high)
    centres, weights = [], []
    for place in np.flatnonzero(cells):
        beyond = (
            outside and column.limits is not None and not column.limits[0] <= left[place] <= column.limits[1]
        )
        if not beyond:
            centres.append(np.linspace(left[place], right[place], 5)[[1, 2, 3]])
            weights.append(np.full(3, cells[place] / 3))
    if outside:
        inside = sum(part.sum() for part in weights)
        total = sum(rows for _, _, rows in outside) / max(cells.sum() - inside, 1e-9)
        for start, end, rows in outside:
            centres.append(np.linspace(start, end, _SPREAD + 2)[1:-1])
            weights.append(np.full(_SPREAD, rows / total / _SPREAD))
    points, mass = np.concatenate(centres), np.concatenate(weights)
    order = np.argsort(points)
    upto = np.cumsum(mass[order])
    return np.asarray(points[order][np.minimum(np.searchsorted(upto, ranks * upto[-1]), len(order) - 1)])


def unit_hypothesis(reference: State, current: State, column: ColumnSpec) -> str:
    """The conversion that explains the observed deciles best, a runner-up that fits as well, or an empty
    text.
    """
    before = observed_quantiles(reference, column, _DECILES)
    after = observed_quantiles(current, column, _DECILES)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return ""
    plain = float(np.abs(after - before).mean())
    fits = []
    for conversion in CONVERSIONS:
        expected = np.sort(conversion.apply(before))
        spread = float(expected[7] - expected[1])
        error = float(np.abs(after - expected).mean())
        if spread > 0 and error < _NEAR * spread and error * _BETTER < plain:
            shape = float(after[7] - after[1]) / spread
            fits.append((error / spread + abs(np.log(max(shape, 1e-3))) / 2, conversion.name))
    fits.sort()
    if not fits:
        return ""
    rival = f", or {fits[1][1]}" if len(fits) > 1 and fits[1][0] < 1.5 * fits[0][0] else ""
    return f"{fits[0][1]}{rival}"


def _unseen(state: State, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for stratum in state.strata.values():
        if name in stratum.columns:
            found = add(found, stratum.columns[name].unseen)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _same(state: State, column: ColumnSpec) -> str:
    for stratum in state.strata.values():
        counts = stratum.columns.get(column.name)
        if counts is not None and counts.values:
            if column.grid is not None:
                return _number(counts.low, column)
            cell = int(np.flatnonzero(counts.cells)[0])
            if cell < len(column.categories):
                return repr(column.categories[cell][:40])
    return ""


def _percent(share: float) -> str:
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{share * 100:.2f} %"
    return f"{share * 100:.0f} %"


def _number(value: float, column: ColumnSpec) -> str:
    return said(value, column.arrow, 4 if abs(value) < 1e5 else 6)
