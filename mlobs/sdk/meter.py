"""Cells: where counts live between the call and the scrape, one block for each set of label values.

A block is a plain sequence of numbers, and a call adds to it without a lock. On CPython with the GIL, from
3.10 on, `cells[i] += 1` on a list is not interrupted by another thread: the interpreter switches threads at
calls and backward jumps alone.

Blocks by kind of family, by position:
    counter, gauge   [value]
    histogram        [sum, count of each fine bucket ..., count above the last bound]
    requests         [started, then a histogram for each of ok, error, cancelled]
In flight is started minus finished, so that it costs no second write.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from typing import NamedTuple

from mlobs import names
from mlobs.sdk.buckets import Bounds

Cells = MutableSequence[float]

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"
REQUESTS = "requests"

MOST_SETS = 200
"""Label sets of one family; what comes later is counted under `__other__`."""
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, kind, label names and help text."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


_MODEL = (names.MODEL, names.MODEL_VERSION)
REQUEST = Family(names.REQUEST_DURATION, REQUESTS, _MODEL, "Duration of a call to its real end.")
STAGE = Family(names.STAGE_DURATION, HISTOGRAM, (*_MODEL, names.STAGE), "Duration of a stage of a call.")
PREDICTIONS = Family(names.PREDICTIONS, COUNTER, (*_MODEL, names.DECISION), "Calls by what was decided.")


class Key(NamedTuple):
    """What a block of cells is of."""

    family: Family
    values: tuple[str, ...]
    """Label values in the order of `family.labels`."""


def clean_label(value: object) -> str:
    """A label value that can be written: no lone surrogate, at most 128 characters; `true` for True."""
    text = value if type(value) is str else str(value).lower() if isinstance(value, bool) else str(value)
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode("utf-8")


class Meter:
    """All blocks of this process. Blocks are made under a lock; adding to one takes none."""

    def __init__(self, *, most_sets: int = MOST_SETS) -> None:
        self.overflow: dict[str, int] = {}
        """Label sets beyond the cap, by metric: how many look-ups ended in `__other__`."""
        self._blocks: dict[Key, tuple[Cells, Bounds | None]] = {}
        self._sets: dict[str, int] = {}
        self._most_sets = most_sets
        self._lock = threading.Lock()

    def block(self, family: Family, values: tuple[str, ...], bounds: Bounds | None = None) -> Cells:
        """The cells of this label set, made at the first time. Values must be clean."""
        found = self._blocks.get(Key(family, values))
        if found is not None:
            return found[0]
        with self._lock:
            if self._sets.get(family.name, 0) >= self._most_sets:
                self.overflow[family.name] = self.overflow.get(family.name, 0) + 1
                values = (*values[:-1], names.OTHER)
            key = Key(family, values)
            found = self._blocks.get(key)
            if found is None:
                found = (self._new(family, bounds), bounds)
                self._blocks[key] = found
                self._sets[family.name] = self._sets.get(family.name, 0) + 1
        return found[0]

    def _new(self, family: Family, bounds: Bounds | None) -> Cells:
        if bounds is None:
            return [0.0]
        if family.kind == REQUESTS:
            return [0.0] * (1 + len(names.OUTCOMES) * (bounds.size + 1))
        return [0.0] * (1 + bounds.size)

    def read(self) -> Iterator[tuple[Key, Cells, Bounds | None]]:
        """Every block as it is now."""
        for key, (cells, bounds) in list(self._blocks.items()):
            yield key, cells, bounds
