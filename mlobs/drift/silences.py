"""The longest silence of each slice of a reference: how long no row came. Pure, in constant memory.

Times fall into steps of a 1440th of a slice (a minute of a day), of which the first and last time are kept: a
silence longer than a step is exact, whatever order the rows stand in, and a shorter one counts as a step.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlobs.drift.grid import Floats
from mlobs.slices import slice_at

STEPS = 1440


class Silences:
    """Event times, batch by batch."""

    def __init__(self, window: float, zone: str) -> None:
        self._window, self._zone, self._step = window, zone, window / STEPS
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}

    def add(self, times: Floats) -> None:
        """Seconds since the epoch, in any order; what is not finite is left out."""
        ordered = np.sort(times[np.isfinite(times)])
        if not len(ordered):
            return
        steps, begins = np.unique(np.floor(ordered / self._step), return_index=True)
        ends = np.append(begins[1:], len(ordered)) - 1
        for step, first, last in zip(
            steps.tolist(), ordered[begins].tolist(), ordered[ends].tolist(), strict=True
        ):
            key = int(step)
            self._first[key] = min(self._first.get(key, first), first)
            self._last[key] = max(self._last.get(key, last), last)

    def longest(self, starts: Iterable[float]) -> tuple[float, ...]:
        """Of the slices that begin at `starts` the longest silence that ended in each, seconds."""
        found = dict.fromkeys(starts, self._step)
        before: float | None = None
        for step in sorted(self._first):
            if before is not None and self._first[step] - before > self._step:
                start = slice_at(self._first[step], self._window, self._zone).start
                found[start] = max(found.get(start, 0.0), self._first[step] - before)
            before = self._last[step]
        return tuple(found.values())
