"""Cells: where counts live between the call and the scrape, one block for each set of label values.

A block is a plain sequence of numbers, and a call adds to it without a lock. On CPython with the GIL, from
3.10 on, `cells[i] += 1` on a list is not interrupted by another thread: the interpreter switches threads at
calls and backward jumps alone.

Blocks by kind of family, by position:
    counter, gauge   [value]
    histogram        [sum, count of each fine bucket ..., count above the last bound]
    gauge, last      [value, when it was written]
    newest           [a slot of `exemplars` for each bucket ..., one above the last bound]
    requests         [started, then a histogram for each of ok, error, cancelled]
    spoiled          [value], of the calls that returned and were not good for another reason than slowness
In flight is started minus finished, so that it costs no second write.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

from mlobs import names
from mlobs.featurelog.freetext import veiled
from mlobs.sdk.buckets import Bounds
from mlobs.sdk.exemplars import SLOT

Cells = MutableSequence[float]

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"
REQUESTS = "requests"
SPOILED = "spoiled"
INTERNAL = "internal"
"""What a process says of itself to the others, one cell each; `collector` draws it in its own way."""

MOST_SETS = 200
"""Label sets of one family; what comes later is counted under `__other__`."""
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, kind, label names and help text."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str = field(compare=False)
    over: str = "sum"
    """How several workers' are one: `sum`, `last` written, `max`, `min`; `living`, `living max` without the
    dead; of exemplars the `newest` of each bucket."""

    def __hash__(self) -> int:
        """Of the name, which says it: a look-up at each value must not walk all fields."""
        return hash(self.name)


_MODEL = (names.MODEL, names.MODEL_VERSION)
REQUEST = Family(names.REQUEST_DURATION, REQUESTS, _MODEL, "Duration of a call to its real end.")
STAGE = Family(names.STAGE_DURATION, HISTOGRAM, (*_MODEL, names.STAGE), "Duration of a stage of a call.")
PREDICTIONS = Family(names.PREDICTIONS, COUNTER, (*_MODEL, names.DECISION), "Calls by what was decided.")
GOOD = Family(
    names.GOOD_PREDICTIONS, SPOILED, (*_MODEL, names.RESULT), "Calls by what kept them from being good."
)
GOOD_OK = Family("good_ok", INTERNAL, (*_MODEL, "threshold"), "", "max")
GOOD_SLOW = Family("good_slow", INTERNAL, (*_MODEL, "threshold"), "", "max")
"""The most that any worker has shown of what is a difference of two counts."""

ERRORS = Family(names.INTERNAL_ERRORS, INTERNAL, (names.REASON,), "")
OVERFLOW = Family(names.LABEL_OVERFLOW, INTERNAL, (names.METRIC,), "")
OVERHEAD = Family(names.OVERHEAD, INTERNAL, ("part",), "")
STARTED = Family(names.PROCESS_START, INTERNAL, (), "", "min")
_PART = (names.PIPELINE, "part")
LEDGER = Family("ledger", INTERNAL, _PART, "")
LEDGER_LAST = Family("ledger_last", INTERNAL, _PART, "", "max")
LEDGER_NOW = Family("ledger_now", INTERNAL, _PART, "", "living")
LEDGER_AGE = Family("ledger_age", INTERNAL, _PART, "", "living max")
EXEMPLARS = Family("exemplars", INTERNAL, (*_MODEL, names.OUTCOME), "", "newest")


class Key(NamedTuple):
    """What a block of cells is of."""

    family: Family
    values: tuple[str, ...]
    """Label values in the order of `family.labels`."""


def clean_label(value: object) -> str:
    """A label value that can be written: no lone surrogate, at most 128 characters; `true` for True."""
    text = value if type(value) is str else str(value).lower() if isinstance(value, bool) else str(value)
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode("utf-8")


def data_label(value: object) -> str:
    """A label value out of a call's data: clean, and `[private]` where it holds a card number, an e-mail
    address, an IBAN or a key. 0.3 us for one of the last thousand.
    """
    return _veiled(clean_label(value))


_veiled = lru_cache(maxsize=1024)(veiled)


class Store(Protocol):
    """Where cells live that other processes can read."""

    def cells(self, key: Key, bounds: Bounds | None, size: int, spare: int = 0) -> Cells | None:
        """`size + spare` zeroed cells; None, counted, where none can be had. Never raises."""


StageCells = tuple[Cells, tuple[float, ...], str]


class Shards:
    """One block for each thread that asked: for interpreters on which `cells[i] += 1` can lose a count.

    A request's shard has one more cell at its end: the number of the thread's next call that is due.
    """

    def __init__(self, size: int, make: Callable[[], Cells] | None = None) -> None:
        self._size = size
        self._make = make or (lambda: [0.0] * (size + 1))
        self._local = threading.local()
        self._all: list[Cells] = []
        self._lock = threading.Lock()

    def mine(self) -> Cells:
        """The cells of this thread."""
        try:
            found: Cells = self._local.cells
        except AttributeError:
            found = self._local.cells = self._make()
            with self._lock:
                self._all.append(found)
        return found

    def total(self) -> Cells:
        """The sum over all threads, those that ended too."""
        with self._lock:
            every = [list(cells) for cells in self._all]
        return (
            [sum(values) for values in zip(*every, strict=True)][: self._size]
            if every
            else [0.0] * self._size
        )


class ThreadStages:
    """Cells of a function's stages by name, for each thread its own."""

    def __init__(self, make: Callable[[str], StageCells]) -> None:
        self._local = threading.local()
        self._make = make

    def _mine(self) -> dict[str, StageCells]:
        found: dict[str, StageCells] = self._local.__dict__.setdefault("stages", {})
        return found

    def __getitem__(self, name: str) -> StageCells:
        return self._mine()[name]

    def __setitem__(self, name: str, target: StageCells) -> None:
        self._mine()[name] = target

    def __len__(self) -> int:
        return len(self._mine())


def adding_is_safe() -> bool:
    """Whether `cells[i] += 1` on a list loses no count between threads here.

    So on CPython 3.10 to 3.13 with the GIL: an observed detail and no promise, hence by version. Elsewhere
    each thread has cells of its own; on a free-threaded interpreter that path is untested.
    """
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and (3, 10) <= sys.version_info[:2] <= (3, 13) and has_gil()


class Meter:
    """All blocks of this process. Blocks are made under a lock; adding to one takes none."""

    def __init__(self, *, most_sets: int = MOST_SETS, sharded: bool | None = None) -> None:
        self.sharded = not adding_is_safe() if sharded is None else sharded
        self._shards: dict[Key, tuple[Shards, Bounds | None]] = {}
        self.overflow: dict[str, int] = {}
        """Label sets beyond the cap, by metric: how many look-ups ended in `__other__`."""
        self._blocks: dict[Key, tuple[Cells, Bounds | None]] = {}
        self._sets: dict[str, int] = {}
        self._most_sets = most_sets
        self._lock = threading.RLock()  # a signal handler may call within a call
        self._store: Store | None = None
        self._left: list[_Left] = []

    def block(self, family: Family, values: tuple[str, ...], bounds: Bounds | None = None) -> Cells:
        """The cells of this label set, made at the first time. Values must be clean."""
        found = self._blocks.get(cast(Key, (family, values)))  # a Key is this tuple, and dearer to make
        if found is not None:
            return found[0]
        with self._lock:
            key = self._admitted(family, values)
            found = self._blocks.get(key)
            if found is None:
                found = self._blocks[key] = (self._cells(key, bounds), bounds)
        return found[0]

    def _cells(self, key: Key, bounds: Bounds | None, spare: int = 0) -> Cells:
        size = _size(key.family, bounds)
        found = None if self._store is None else self._store.cells(key, bounds, size, spare)
        return [0.0] * (size + spare) if found is None else found

    def move(self, store: Store) -> None:
        """Go on in cells of `store`, counts and all; who holds cells must ask for them again.

        A call under way ends in the cells that it began in: what comes to those later is brought over by
        `catch_up`.
        """
        with self._lock:
            self._store = store
            for key, (cells, bounds) in list(self._blocks.items()):
                fresh = self._cells(key, bounds)
                self._blocks[key] = (fresh, bounds)
                self._left.append(_Left(lambda cells=cells: list(cells), fresh))  # type: ignore[misc]
                shards = self._shards.pop(key, None)
                if shards is not None:
                    self._left.append(_Left(lambda own=shards[0]: list(own.total()), fresh))  # type: ignore[misc]
        self.catch_up()

    def catch_up(self) -> None:
        """Bring over what calls added to cells that were left."""
        with self._lock:
            for left in self._left:
                left.bring_over()

    def _admitted(self, family: Family, values: tuple[str, ...]) -> Key:
        """The key to count under: the values', or `__other__` beyond the cap; under the lock."""
        key = Key(family, values)
        if key in self._blocks or family.kind == INTERNAL:
            return key
        known = self._sets.get(family.name, 0)
        if known >= self._most_sets:
            self.overflow[family.name] = self.overflow.get(family.name, 0) + 1
            return Key(family, (*values[:-1], names.OTHER))
        self._sets[family.name] = known + 1
        return key

    def shards(self, family: Family, values: tuple[str, ...], bounds: Bounds | None = None) -> Shards:
        """Cells of this label set for each thread; read together with its block."""
        self.block(family, values, bounds)
        with self._lock:
            key = Key(family, values)
            key = key if key in self._blocks else Key(family, (*values[:-1], names.OTHER))
            found = self._shards.get(key)
            if found is None:
                shards = Shards(_size(family, bounds), lambda: self._cells(key, bounds, 1))
                found = self._shards[key] = (shards, bounds)
        return found[0]

    def add(self, family: Family, values: tuple[str, ...], amount: float = 1.0) -> None:
        """Add to a counter or set of gauges that is no hot path."""
        if self.sharded:
            self.shards(family, values).mine()[0] += amount
        else:
            self.block(family, values)[0] += amount

    def read(self) -> Iterator[tuple[Key, Cells, Bounds | None]]:
        """Every block as it is now."""
        self.catch_up()
        for key, (cells, bounds) in list(self._blocks.items()):
            shards = self._shards.get(key)
            if shards is None:
                yield key, cells, bounds
            else:
                yield key, [a + b for a, b in zip(cells, shards[0].total(), strict=True)], bounds


class _Left:
    """Cells that were left for others, and how much of them was brought over."""

    def __init__(self, read: Callable[[], list[float]], to: Cells) -> None:
        self._read, self._to = read, to
        self._known = [0.0] * len(read())

    def bring_over(self) -> None:
        now = self._read()
        if now != self._known:
            for place, (value, before) in enumerate(zip(now, self._known, strict=True)):
                if value != before:
                    self._to[place] += value - before
            self._known = now


def _size(family: Family, bounds: Bounds | None) -> int:
    if bounds is None:
        return 2 if family.over == "last" else 1
    if family.over == "newest":
        return SLOT * bounds.size
    if family.kind == REQUESTS:
        return 1 + len(names.OUTCOMES) * (bounds.size + 1)
    return 1 + bounds.size
