"""Distributions as a few bars, the same for both sides. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlobs.drift.beyond import beyond_limits
from mlobs.drift.grid import Floats
from mlobs.drift.spec import ColumnSpec
from mlobs.drift.state import State, weighted_cells

BARS = 32
TOP = 12
"""Categories that have a bar; the others share one."""
_TAIL = 0.002
"""Share on either end that may lie beyond the axis, in its last bar."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Shares in [0, 1] of the values of each side, shape (bars,) each."""

    reference: tuple[float, ...]
    current: tuple[float, ...]
    labels: tuple[str, ...] = ()
    """Categories, most frequent of the reference first; empty for numbers."""
    low: float = 0.0
    high: float = 0.0
    """Ends of the axis of numbers."""
    arrow: str = ""
    """Arrow type of the column, for what its numbers mean."""


def bars_of(column: ColumnSpec, reference: State, current: State) -> Bars | None:
    """The bars of a column; None where neither side has a value or the column has no distribution."""
    if column.grid is not None:
        return _numbers(column, reference, current)
    if column.cells:
        return _categories(column, reference, current)
    return None


def _numbers(column: ColumnSpec, reference: State, current: State) -> Bars | None:
    sides = [_intervals(column, state) for state in (reference, current)]
    ends = [_ends(*side) for side in sides if side[2].sum() > 0]
    if not ends:
        return None
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    edges = np.linspace(low, high, BARS + 1)
    before, after = (_spread(*side, edges) for side in sides)
    return Bars(before, after, low=low, high=high, arrow=column.arrow)


def _intervals(column: ColumnSpec, state: State) -> tuple[Floats, Floats, Floats]:
    """(lower ends, upper ends, weighted rows) of what is known of the values of a number."""
    assert column.grid is not None
    edges = column.grid.edges
    counts = weighted_cells(state, column.name, column.cells)
    lows, highs, rows = [edges[:-1]], [edges[1:]], []
    for start, end, weight in beyond_limits(column, state):
        place = int(np.searchsorted(edges, start, side="right"))
        taken = min(weight, counts[place])  # what is known more finely leaves its bin
        if taken > 0:
            counts[place] -= taken
            lows, highs = [*lows, np.array([start])], [*highs, np.array([end])]
            rows.append(np.array([taken]))
    # What lies beyond the outer edges and is not known any nearer stands at them.
    lows += [edges[:1], edges[-1:]]
    highs += [edges[:1], edges[-1:]]
    rows = [counts[1:-1], *rows, counts[:1], counts[-1:]]
    return np.concatenate(lows), np.concatenate(highs), np.concatenate(rows)


def _ends(lows: Floats, highs: Floats, rows: Floats) -> tuple[float, float]:
    order = np.argsort(lows, kind="stable")
    upto = np.cumsum(rows[order]) / rows.sum()
    first = int(np.searchsorted(upto, _TAIL, side="right"))
    last = int(np.searchsorted(upto, 1.0 - _TAIL, side="left"))
    last = min(last, len(order) - 1)
    return float(lows[order][min(first, last)]), float(highs[order][last])


def _spread(lows: Floats, highs: Floats, rows: Floats, edges: Floats) -> tuple[float, ...]:
    """Rows of intervals over equal bars, evenly within an interval; the outer bars take what is beyond."""
    total = rows.sum()
    if total <= 0:
        return (0.0,) * (len(edges) - 1)
    inner = edges[1:-1]
    width = np.maximum(highs - lows, np.finfo(float).tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        part = np.clip((inner[None, :] - lows[:, None]) / width[:, None], 0.0, 1.0)
    part = np.where(highs[:, None] <= lows[:, None], (inner[None, :] > lows[:, None]).astype(float), part)
    upto = np.concatenate([[0.0], (np.nan_to_num(part) * rows[:, None]).sum(axis=0), [total]])
    return tuple(np.maximum(np.diff(upto) / total, 0.0).tolist())


def _categories(column: ColumnSpec, reference: State, current: State) -> Bars | None:
    counts = [weighted_cells(state, column.name, column.cells) for state in (reference, current)]
    totals = [count.sum() for count in counts]
    if not any(totals):
        return None
    shares = [count / total if total else count for count, total in zip(counts, totals, strict=True)]
    named = len(column.categories)
    ranked = sorted(range(named), key=lambda cell: (-max(share[cell] for share in shares), cell))[:TOP]
    shown = sorted(ranked)
    rows = [[float(share[cell]) for cell in shown] for share in shares]
    labels = [column.categories[cell] for cell in shown]
    first = column.first_unseen
    rest = [float(share[:first].sum()) - sum(row) for share, row in zip(shares, rows, strict=True)]
    if max(rest) > 1e-12:
        labels.append(f"other ({named + len(column.known) - len(shown)} more)")
        rows = [[*row, max(extra, 0.0)] for row, extra in zip(rows, rest, strict=True)]
    if max(share[first:].sum() for share in shares) > 0:
        labels.append("never seen before")
        rows = [[*row, float(share[first:].sum())] for row, share in zip(rows, shares, strict=True)]
    return Bars(tuple(rows[0]), tuple(rows[1]), tuple(labels))
