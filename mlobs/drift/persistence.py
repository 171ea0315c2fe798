"""From windows to breaches: k of the last n judged windows. Pure.

A single bad window is no incident; a finding that is not judged (too few rows, nothing at all) neither makes
nor heals one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlobs.drift.verdicts import WindowVerdict
from mlobs.records import Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that is broken in k of the last n judged windows of a stream."""

    feature: str
    check: str
    since: float
    """Start of the first broken window among the last n."""
    windows: int
    last: Verdict


def persisting(history: Sequence[WindowVerdict], k: int, n: int) -> list[Finding]:
    """Findings of one stream from its windows, oldest first. Cost: n windows."""
    judged = [window for window in history if window.judged][-n:]
    broken: dict[tuple[str, str], list[Verdict]] = {}
    for window in judged:
        for key, verdict in window.failed.items():
            broken.setdefault(key, []).append(verdict)
    return [
        Finding(feature, check, found[0].window_start, len(found), found[-1])
        for (feature, check), found in sorted(broken.items())
        if len(found) >= k
    ]
