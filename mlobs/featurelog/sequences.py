"""Which sequence numbers were seen, as ranges: duplicates are told exactly and gaps counted, in little
memory.

A writer numbers what it is offered 0, 1, 2, ...; what came is nearly all of it and nearly in order, so a few
ranges hold millions of numbers. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Ranges = dict[str, list[tuple[int, int]]]
"""Sequence numbers by writer, as half-open ranges."""


class Seen:
    """A set of numbers as sorted, disjoint, non-adjacent half-open ranges. `add` costs O(log ranges)."""

    __slots__ = ("ends", "starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in ranges:
            self.starts.append(start)
            self.ends.append(end)

    def add(self, number: int) -> bool:
        """Take `number` in; False when it was there."""
        return self.add_range(number, number + 1) == 1

    def add_range(self, start: int, end: int) -> int:
        """Take `[start, end)` in; how many of its numbers were new."""
        starts, ends = self.starts, self.ends
        if ends and start == ends[-1]:  # the usual case: the next ones in order
            ends[-1] = end
            return end - start
        first = bisect_right(ends, start - 1)
        last = bisect_right(starts, end)
        new = end - start - self.overlaps(start, end)
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        return new

    def overlaps(self, start: int, end: int) -> int:
        """How many numbers of `[start, end)` are in the set."""
        starts, ends = self.starts, self.ends
        return sum(
            max(0, min(end, ends[index]) - max(start, starts[index]))
            for index in range(bisect_right(ends, start), bisect_right(starts, end - 1))
        )

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self.starts, number) - 1
        return index >= 0 and number < self.ends[index]

    def covers(self, start: int, end: int) -> bool:
        """Every number of `[start, end)` was seen."""
        index = bisect_right(self.starts, start) - 1
        return start >= end or (index >= 0 and end <= self.ends[index])

    @property
    def count(self) -> int:
        return sum(self.ends) - sum(self.starts)

    @property
    def top(self) -> int:
        """One beyond the largest number; 0 when empty."""
        return self.ends[-1] if self.ends else 0

    def gaps(self, first: int = 0, until: int = 0) -> int:
        """How many of `[first, max(top, until))` are missing."""
        end = max(self.top, until)
        inside = sum(
            max(0, min(stop, end) - max(start, first))
            for start, stop in zip(self.starts, self.ends, strict=True)
        )
        return max(0, end - first) - inside

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, self.ends, strict=True))
