"""A counter that many threads add to without a lock: `next` on an `itertools.count` is one step in C."""

from __future__ import annotations

from itertools import count


class Tally:
    """`add()` returns the number before it, so it also hands out sequence numbers: each once, none twice."""

    __slots__ = ("_count", "add")

    def __init__(self) -> None:
        self._count = count()
        self.add = self._count.__next__

    @property
    def value(self) -> int:
        """How often `add` was called. Read from the repr: the only view that does not advance it in all
        versions.
        """
        return int(repr(self._count)[6:-1])
