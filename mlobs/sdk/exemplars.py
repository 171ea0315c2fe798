"""Exemplars: kept calls by the bucket they fell into, so that a metric leads to a trace that exists.

Taken from kept calls alone, and while tracing from those whose spans were handed over: metric to trace to
feature record always resolves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from mlobs.sdk.trace import TraceContext


class Noted(NamedTuple):
    """One exemplar: the observed seconds, whose trace, at what time (seconds since the epoch)."""

    value: float
    trace_id: str
    span_id: str
    at: float


class Exemplars:
    """The last few kept calls of each series, newest first; a scrape picks one for each bucket."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._noted: dict[tuple[str, ...], list[Noted]] = {}

    def note(self, series: tuple[str, ...], value: float, context: TraceContext, at: float) -> None:
        """Remember a kept call; about 0.5 us."""
        found = self._noted.get(series)
        if found is None:
            found = self._noted.setdefault(series, [])
        found.append(Noted(value, context.trace_id, context.span_id, at))
        if len(found) > self._most:
            del found[: self._most // 2]

    def by_bucket(self, series: tuple[str, ...], edges: Sequence[float]) -> dict[int, Noted]:
        """The newest of each bucket, by the place of its upper edge; `len(edges)` is everything above."""
        return {bisect_left(edges, noted.value): noted for noted in self.of(series)}

    def of(self, series: tuple[str, ...]) -> list[Noted]:
        """Oldest first."""
        return list(self._noted.get(series, ()))
