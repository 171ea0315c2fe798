"""Blocks of many processes -> one block each, so that counters never go back. Pure.

Counts are whole numbers, exact as floats up to 2**53. Sums of seconds are not: added in another order they
differ by an ulp, and a counter that goes back by an ulp is a reset to Prometheus. Hence their totals are kept
as exact expansions (Shewchuk 1997, as `math.fsum`) and rounded once, at the end.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from mlobs import names
from mlobs.sdk import exemplars
from mlobs.sdk.buckets import Bounds, make_bounds, plain_bounds
from mlobs.sdk.meter import COUNTER, HISTOGRAM, LEDGER, LEDGER_NOW, MOST_SETS, REQUESTS, Family, Key

WORKER_DIED = "worker_died"

Block = tuple[Key, Sequence[float], "Bounds | None"]


class Total:
    """The sum of a key's blocks. `exact` holds the expansions of those cells that are sums of fractions."""

    __slots__ = ("bounds", "cells", "exact")

    def __init__(self, size: int, bounds: Bounds | None) -> None:
        self.cells = [0.0] * size
        self.bounds = bounds
        self.exact: dict[int, list[float]] = {}

    def rounded(self) -> list[float]:
        """The cells, each sum rounded once."""
        cells = list(self.cells)
        for place, parts in self.exact.items():
            cells[place] = math.fsum(parts)
        return cells


Totals = dict[Key, Total]
Sets = frozenset[tuple[str, ...]]


def text_of(key: Key, bounds: Bounds | None, exact: dict[int, list[float]] | None = None) -> bytes:
    """What a record in a file says of its cells."""
    family = key.family
    said: dict[str, object] = {
        "f": [family.name, family.kind, family.labels, family.help, family.over],
        "v": key.values,
    }
    if bounds is not None:
        said["b"] = [bounds.low, bounds.high, bounds.classic]
    if exact:
        said["x"] = list(exact.items())
    return json.dumps(said).encode()


@lru_cache(maxsize=4096)
def _said(text: bytes) -> tuple[Key, Bounds | None, tuple[tuple[int, tuple[float, ...]], ...]]:
    said = json.loads(text)
    name, kind, labels, help_text, over = said["f"]
    key = Key(_family(name, kind, tuple(labels), help_text, over), tuple(said["v"]))
    bounds = None if "b" not in said else _bounds(said["b"][0], said["b"][1], tuple(said["b"][2]))
    return key, bounds, tuple((place, tuple(parts)) for place, parts in said.get("x", ()))


@lru_cache(maxsize=1024)
def _family(name: str, kind: str, labels: tuple[str, ...], help_text: str, over: str) -> Family:
    return Family(name, kind, labels, help_text, over)


@lru_cache(maxsize=256)
def _bounds(low: int, high: int, classic: tuple[float, ...]) -> Bounds:
    return plain_bounds(classic) if low == high else make_bounds(classic, low=low, high=high)


def key_of(text: bytes) -> Key:
    """Whose cells a record has."""
    return _said(text)[0]


def add_record(totals: Totals, text: bytes, cells: list[float], *, alive: bool) -> None:
    """Add a record of a file. Raises ValueError, KeyError or TypeError for a text that is none of ours."""
    key, bounds, exact = _said(text)
    add(totals, (key, cells, bounds), alive=alive, exact=exact)


def add(
    totals: Totals,
    block: Block,
    *,
    alive: bool,
    exact: Iterable[tuple[int, tuple[float, ...]]] = (),
) -> None:
    """Add a block by its family's rule; of a dead process what only the living have is left off."""
    key, cells, bounds = block
    family = key.family
    if not alive:
        if family.over.startswith("living"):
            if family == LEDGER_NOW and cells[0]:  # what waited in it is lost
                lost = Key(LEDGER, (key.values[0], f"dropped {WORKER_DIED}"))
                _total(totals, lost, 1, None).cells[0] += cells[0]
            return
        if family.kind == REQUESTS and bounds is not None:
            cells = [finished(cells, bounds), *cells[1:]]
    known = totals.get(key)
    total = _total(totals, key, len(cells), bounds)
    own = total.cells
    if family.over == "last":
        if cells[1] >= own[1]:
            own[:] = cells
        return
    if family.over == "newest":
        _add_exemplars(total, cells)
        return
    if family.over in ("max", "living max", "min"):
        pick = min if family.over == "min" else max
        own[0] = cells[0] if known is None else pick(own[0], cells[0])
        return
    carried = dict(exact)
    for old, place in zip(sum_places(family, bounds), sum_places(family, total.bounds), strict=True):
        grow(total.exact.setdefault(place, []), carried.get(old) or (cells[old],))
    if bounds is not None and total.bounds is not None and bounds != total.bounds:
        cells = moved(family, cells, bounds, total.bounds)
    total.cells = [a + b for a, b in zip(own, cells, strict=True)]


def by_edges(family: Family, total: Total, bounds: Bounds) -> Total:
    """The total counted by other edges."""
    if total.bounds is None or total.bounds == bounds:
        return total
    if family.over == "newest":
        found = Total(exemplars.SLOT * bounds.size, bounds)
        _add_exemplars(found, total.cells)
        return found
    found = Total(0, bounds)
    found.cells = moved(family, total.cells, total.bounds, bounds)
    places = zip(sum_places(family, total.bounds), sum_places(family, bounds), strict=True)
    found.exact = {place: total.exact[old] for old, place in places if old in total.exact}
    return found


def _add_exemplars(total: Total, cells: Sequence[float]) -> None:
    """Each into its bucket of the total, where an older one or none is."""
    assert total.bounds is not None
    edges = total.bounds.fine
    both = [*exemplars.read(total.cells), *exemplars.read(cells)]
    for place, noted in exemplars.by_bucket(both, edges).items():
        exemplars.write(total.cells, place, noted)


def _total(totals: Totals, key: Key, size: int, bounds: Bounds | None) -> Total:
    """The key's total, made at need; sets beyond the cap are one, as within a process."""
    found = totals.get(key)
    if found is None:
        found = totals[key] = Total(size, bounds)
    return found


Admit = Callable[[str, Sets], Sets]
"""(family name, sets that could be shown) -> those that are shown, the same whoever asks and whenever."""


def capped(totals: Totals, admit: Admit, most: int = MOST_SETS) -> Totals:
    """At most `most` label sets a family; the rest is added up under `__other__`.

    `admit` is asked about the first ones of a family that has more. It must stay with what it said: a set
    that went in and out with who asks, or with who has died, would make `__other__` go back.
    """
    sets: dict[str, list[Key]] = {}
    for key in totals:
        if key.values and key.values[-1] != names.OTHER:
            sets.setdefault(key.family.name, []).append(key)
    over: set[Key] = set()
    for name, keys in sets.items():
        # Three series to a set of exemplars; those of sets beyond the cap are not shown.
        room = most * (len(names.OUTCOMES) if keys[0].family.over == "newest" else 1)
        if len(keys) > room:
            shown = admit(name, frozenset(key.values for key in keys[:room]))
            over.update(key for key in keys if key.values not in shown)
    if not over:
        return totals
    found: Totals = {}
    for key, total in totals.items():
        if key not in over:
            if key in found:
                _join(found, key, total)
            else:
                found[key] = total
        elif key.family.over != "newest":
            _join(found, Key(key.family, (*key.values[:-1], names.OTHER)), total)
    return found


def _join(totals: Totals, key: Key, total: Total) -> None:
    parts = [(place, tuple(parts)) for place, parts in total.exact.items()]
    add(totals, (key, total.cells, total.bounds), alive=True, exact=parts)


def sum_places(family: Family, bounds: Bounds | None) -> tuple[int, ...]:
    """Where a block has sums of fractions."""
    if family.kind == REQUESTS and bounds is not None:
        return tuple(1 + place * (bounds.size + 1) for place in range(len(names.OUTCOMES)))
    return (0,) if family.kind in (COUNTER, HISTOGRAM) or family.over == "sum" else ()


def grow(parts: list[float], values: Iterable[float]) -> None:
    """Add `values` to an expansion, exactly: its parts do not overlap, and few they stay."""
    for value in values:
        x, kept = value, 0
        for y in parts:
            if abs(x) < abs(y):
                x, y = y, x
            high = x + y
            low = y - (high - x)
            if low:
                parts[kept] = low
                kept += 1
            x = high
        parts[kept:] = [x]


def finished(cells: Sequence[float], bounds: Bounds) -> float:
    """Calls that ended, whatever their outcome, in a block of requests."""
    width = bounds.size + 1
    return sum(
        sum(cells[2 + place * width : 1 + (place + 1) * width]) for place in range(len(names.OUTCOMES))
    )


def moved(family: Family, cells: Sequence[float], old: Bounds, new: Bounds) -> list[float]:
    """A block counted by other edges (workers of an older configuration): each bucket goes where its upper
    edge lies; exact where the edge is one of the new ones too.
    """
    found = list(cells[:1]) if family.kind == REQUESTS else []
    for start in sum_places(family, old):
        counts = [0.0] * new.size
        for place, count in enumerate(cells[start + 1 : start + 1 + old.size]):
            edge = old.fine[place] if place < len(old.fine) else math.inf
            counts[bisect_left(new.fine, edge)] += count
        found = [*found, cells[start], *counts]
    return found
