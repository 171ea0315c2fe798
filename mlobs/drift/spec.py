"""What is counted of each column: its kind, bins or categories, limits. Comes from a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mlobs.drift.grid import Grid

NUMBER: Final = "number"
CATEGORY: Final = "category"
UNUSABLE: Final = "unusable"
"""Nested columns and such: only nulls are counted."""

NULL: Final = "null"
UNSEEN: Final = "unseen"
RANGE: Final = "range"
TYPE: Final = "type"
CONSTANT: Final = "constant"
SCHEMA: Final = "schema"
CHECKS: Final = (NULL, UNSEEN, RANGE, TYPE, CONSTANT, SCHEMA)
ROW_CHECKS: Final = (NULL, UNSEEN, RANGE, TYPE, SCHEMA)
"""Checks that a single row can fail; a column is constant only as a whole."""

CATEGORY_CAP: Final = 1024
"""Categories of a reference that have a cell of their own; the rarer ones share one."""


@dataclass(frozen=True, slots=True, eq=False)
class ColumnSpec:
    """One column. `grid` for a number, `categories` (most frequent first) for a category, neither while
    learning.
    """

    name: str
    kind: str
    arrow: str = ""
    """Arrow type in the reference, for messages: `double`, `dictionary<...>`."""
    grid: Grid | None = None
    categories: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    """Rare categories beyond the cap: known, though without a cell of their own."""
    limits: tuple[float, float] | None = None
    """Declared range, else what the reference saw: values outside fail `range`."""
    declared: bool = False
    """The limits or categories were declared by a person and not inferred."""
    row_checks: frozenset[str] = frozenset(ROW_CHECKS)
    """Checks whose failure makes a row bad. Leaves out what reference days do as a habit."""

    @property
    def cells(self) -> int:
        """Cells of the counts: bins; or categories, then one for rare and one for unseen ones."""
        if self.kind == NUMBER:
            return self.grid.bins if self.grid is not None else 0
        return len(self.categories) + 2 if self.kind == CATEGORY else 0


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """The columns that are profiled, and the id of the reference that they come from."""

    columns: Mapping[str, ColumnSpec]
    reference: str = ""
    ignored: frozenset[str] = field(default=frozenset())
    """Columns that are no features (event time, slice): no news when they come along."""
