"""The table that benchmarks print: us, the peer, their ratio and the goal."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One comparison, both figures in the same unit; `goal` is the ratio that ours should not pass."""

    what: str
    ours: float
    peer: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.ours / self.peer


def show(unit: str, rows: list[Row]) -> int:
    """Print the table; 0, for a goal that is missed is told and is no failure of the run."""
    width = max(len(row.what) for row in rows)
    print(f"{'':{width}}  {'ours':>10}  {'peer':>10}  {'ratio':>6}  {'goal':>6}   ({unit})")
    for row in rows:
        mark = "" if row.ratio <= row.goal else "  missed"
        figures = f"{row.ours:10.3f}  {row.peer:10.3f}  {row.ratio:5.2f}x  {row.goal:5.2f}x"
        print(f"{row.what:{width}}  {figures}{mark}")
    return 0
