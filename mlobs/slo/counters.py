"""Counters that never reset, over all targets: each target's process start tells when its own began again.
Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlobs.slo.intake import TOTAL, Broken, Raw, Vector, grown

_FORGOTTEN_AFTER = 86400.0
_JUST_STARTED = 300.0
"""A target that is seen for the first time within so many seconds of its start has shown all that it
counted."""


@dataclass
class TargetState:
    """What is remembered of a target. `raw` is what its counters showed last."""

    up: bool
    at: float
    started: float | None
    raw: Vector
    error: str = ""
    breaches: tuple[Broken, ...] = ()


@dataclass
class Book:
    """Cumulative (bad, total) of every account since the book began.

    `now` enters each call; `began` is the first tick that ever was.
    """

    totals: Vector
    born: NDArray[np.float64]
    """First time at which each account was seen; NaN while it was not."""
    seen: NDArray[np.float64]
    """Last time; NaN while it was not."""
    grew: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Last time at which each account gained an event since this process began; NaN while it did not."""
    targets: dict[str, TargetState] = field(default_factory=dict)
    began: float | None = None

    def take(self, name: str, raw: Raw, now: float) -> None:
        """Add what a target's counters gained since its last good scrape."""
        self._grow(len(raw.counts))
        before = self.targets.get(name)
        gained = self._gain(before, raw, now)
        self.totals += gained
        self.born[raw.seen & np.isnan(self.born)] = now
        self.seen[raw.seen] = now
        self.grew = np.concatenate([self.grew, np.full(len(self.totals) - len(self.grew), np.nan)])
        self.grew[gained[:, TOTAL] > 0] = now
        # A series that a new process does not show yet begins at zero there; only within one life does an
        # account that is not seen keep what it showed last.
        kept = (
            raw.counts
            if before is None or _restarted(before, raw)
            else np.where(raw.seen[:, None], raw.counts, grown(before.raw, len(raw.counts)))
        )
        self.targets[name] = TargetState(True, now, raw.started, kept, raw.missing, raw.breaches)

    def miss(self, name: str, error: str, now: float) -> None:
        """A failed scrape is a state of the target and no zero: its counters wait where they were."""
        before = self.targets.get(name)
        if before is None:
            # No counters, which is not counters at zero: what it shows at last is an unknown past.
            self.targets[name] = TargetState(False, now, None, np.zeros((0, 2)), error)
        else:
            before.up, before.error = False, error

    def count(self, account: int, bad: bool, now: float) -> None:
        """One more event that was looked at and not scraped."""
        self._grow(account + 1)
        self.totals[account] += (float(bad), 1.0)
        if np.isnan(self.born[account]):
            self.born[account] = now
        self.seen[account] = now

    def add(self, account: int, bad: float) -> None:
        """Put bad events down to a part."""
        self._grow(account + 1)
        self.totals[account] += (bad, bad)

    def retire(self, listed: Set[str], now: float) -> None:
        """Targets that are not listed any more are down, and after a day forgotten: until then they may
        return."""
        for name, state in list(self.targets.items()):
            if name not in listed:
                state.up, state.error, state.breaches = False, "no longer listed", ()
                if now - state.at > _FORGOTTEN_AFTER:
                    del self.targets[name]

    def baseline(self, name: str, raw: Raw, now: float) -> None:
        """Take a target's counters as they stand, as the place to count from."""
        self._grow(len(raw.counts))
        self.targets[name] = TargetState(True, now, raw.started, raw.counts)

    def _grow(self, count: int) -> None:
        missing = count - len(self.totals)
        if missing > 0:
            self.totals = grown(self.totals, count)
            self.born = np.concatenate([self.born, np.full(missing, np.nan)])
            self.seen = np.concatenate([self.seen, np.full(missing, np.nan)])

    def _gain(self, before: TargetState | None, raw: Raw, now: float) -> Vector:
        """Difference to the last scrape; all of it after a restart, nothing of an unknown past."""
        if before is None or not before.raw.size:
            young = raw.started is not None and raw.started >= now - _JUST_STARTED
            return raw.counts if young else np.zeros_like(raw.counts)
        last = grown(before.raw, len(raw.counts))
        if _restarted(before, raw):
            return raw.counts
        gained = np.where(raw.seen[:, None], raw.counts - last, 0.0)
        # A total that fell is a restart that nothing announced: what stands there now has been counted since.
        fell = (raw.counts[:, TOTAL] < last[:, TOTAL]) & raw.seen
        gained[fell] = raw.counts[fell]
        return np.maximum(gained, 0.0)


def _restarted(before: TargetState, raw: Raw) -> bool:
    return raw.started is not None and before.started is not None and raw.started > before.started + 1e-3
