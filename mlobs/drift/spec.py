"""What is counted of each column: its kind, bins or categories, limits. Comes from a reference."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from mlobs.drift.deep import word_hash
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
ZERO: Final = "zero"
NEGATIVE: Final = "negative"
CARDINALITY: Final = "cardinality"
CHECKS: Final = (NULL, UNSEEN, RANGE, TYPE, CONSTANT, SCHEMA, ZERO, NEGATIVE, CARDINALITY)
DUPLICATES: Final = "duplicates"
VOLUME: Final = "volume"
FRESHNESS: Final = "freshness"
ROWS: Final = "(rows)"
"""What stands in the place of a column where a check is of rows as a whole."""
ROW_CHECKS: Final = (NULL, UNSEEN, RANGE, TYPE, SCHEMA)
"""Checks that a single row can fail; a column is constant only as a whole."""

_MASKED = re.compile(r"[0-9a-f]{8}:(?:[0-9a-f]{32}|[0-9a-f]{64})")
"""What masking with a key leaves of a text: id of the key, colon, hash."""
_KEY_ID = 8
EXAMINED: Final = 16

HEAVY: Final = 1 / 1000
"""Categories from this share of the reference on have a cell of their own; the rarer ones share hashed
cells. To give the most frequent of the rare ones cells would be to choose by chance, and look like drift
ever after."""
HEAVY_ROWS: Final = 30
"""... and from so many rows on, where there are many: what chance made frequent in a short reference is as
rare as the others in the next sample."""
RARE_CELLS: Final = 64
KNOWN_CAP: Final = 65_536
"""With more different categories in the reference a new one is no news: `unseen` is off."""


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
    """Rare categories: known, though without a cell of their own."""
    rare: int = 1
    """Cells that the rare ones share, by hash."""
    open_ended: bool = False
    """More categories than can be kept: none is unseen."""
    limits: tuple[float, float] | None = None
    """Declared range, else what the reference saw: values outside fail `range`."""
    declared: bool = False
    """The limits or categories were declared by a person and not inferred."""
    most: Mapping[str, float] = field(default_factory=dict)
    """Declared: the greatest ordinary share of rows, by check."""
    novel: float = 0.0
    """Share of rows in categories that the reference had once: as many of another sample are in new ones
    (Good 1953)."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Cell of each of `categories`; filled in when it is made."""
    row_checks: frozenset[str] = frozenset(ROW_CHECKS)
    """Checks whose failure makes a row bad. Leaves out what reference days do as a habit."""

    def cells_of(self, words: Sequence[str]) -> npt.NDArray[np.intp]:
        """The cell of each category; from `first_unseen` on for those that the reference does not know."""
        place, rare, unseen = self.places, len(self.categories), self.first_unseen
        cells = [place.get(word, unseen) for word in words]
        for at, cell in enumerate(cells):
            if cell == unseen:
                known = self.open_ended or words[at] in self.known
                size, first = (self.rare, rare) if known else (self.unseen_cells, unseen)
                cells[at] = first + word_hash(words[at]) % size
        return np.array(cells, dtype=np.intp)

    @property
    def first_unseen(self) -> int:
        """The first of the cells of categories that the reference does not know."""
        return len(self.categories) + self.rare

    @property
    def unseen_cells(self) -> int:
        """As many as rare ones where the reference had categories once: another sample of the same law has
        others in their place (Good 1953), by hash as many in each cell. Else one: what is new is news."""
        return self.rare if self.novel else 1

    def meets_masked(self, words: Collection[str]) -> bool:
        """The words are keyed hashes of the feature log, and the reference has raw text, or hashes by other
        keys: before their first colon stands the id of the key."""
        own = (*self.categories[:EXAMINED], min(self.known, default=""))
        keys = {word[:_KEY_ID] for word in own if _MASKED.fullmatch(word)}
        return bool(words) and all(_MASKED.fullmatch(word) and word[:_KEY_ID] not in keys for word in words)

    def __post_init__(self) -> None:
        if len(self.places) != len(self.categories):
            object.__setattr__(self, "places", {word: cell for cell, word in enumerate(self.categories)})

    @property
    def cells(self) -> int:
        """Cells of the counts: bins; or categories, then those of the rare ones and those of unseen ones."""
        if self.kind == NUMBER:
            return self.grid.bins if self.grid is not None else 0
        return self.first_unseen + self.unseen_cells if self.kind == CATEGORY else 0


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """The columns that are profiled, and the id of the reference that they come from."""

    columns: Mapping[str, ColumnSpec]
    reference: str = ""
    ignored: frozenset[str] = field(default=frozenset())
    """Columns that are no features (event time, slice): no news when they come along."""
    deep: bool = False
    """Count what needs no reference too (`deep.Deep`): histogram, exact sum, distinct values."""
    block: tuple[str, ...] = ()
    """Numeric columns whose means and co-moments are kept."""
    duplicates: bool = False
    """Keep a sketch of whole rows, to tell repeated ones."""
    volume: bool = False
    """The reference holds all traffic of its days, so that a window's rows can be laid beside theirs."""
    freshness: bool = False
    """Its rows came as those of the log do, so that its longest silence can be laid beside theirs."""
    most_duplicates: float | None = None
    """Declared: the greatest share of repeated rows."""
