"""Rows of the feature log -> blocks of a canary: scores, data quality, and pairs of a request that both
versions answered. Pure: arrays come in, counts go out.

A log is a sample: calls are drawn at a rate (weight 1/rate), and what failed, was slow or came near the
threshold is kept whatever was drawn (weight 1). A row of weight w counts with a probability of w over the
weight of the drawn ones, by a hash of its prediction id: what counts is then a plain sample of all calls,
whole numbers as the tests want them, and a pair counts as often as its rarer half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlobs.slo.canary import FLIPS, OF_ROWS, QUALITY, SCORE, Arm, Block, Canary, Gaps, Rules
from mlobs.slo.canary_bins import count_in, edges_of

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SIDES: Final = ("candidate", "baseline")
WARM: Final = 200
"""Scores of both versions that fix the bins; they are counted nowhere else."""
APART: Final = 60.0
"""Seconds that the two records of a pair may lie apart."""
MOST_WAITING: Final = 20_000
"""Records that wait for their other half; with more a smaller share of the ids is followed."""
_AHEAD: Final = 60.0
"""Seconds that the clock of a writer may be ahead of ours."""
_DUE: Final = 10.0
"""So many rows that did not come are no chance (5 in 100,000)."""
_SPREAD: Final = 100
"""Scores that were counted without any threshold parting them: they hardly vary."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one arm, from one read of the log; every field has one entry a row."""

    times: Floats
    weights: Floats
    drawn: Mask
    ids: Sequence[str]
    scores: Floats
    """NaN where the prediction is no number."""
    decisions: Sequence[str | None]
    judge: Callable[[Mask], tuple[int, int]] | None = None
    """(rows, those that fail a check of data quality) of the chosen ones; None: nobody can say."""


@dataclass(slots=True)
class Open:
    """Counts of a block that is not closed yet; lists hold the candidate's, then the baseline's."""

    rows: list[int] = field(default_factory=lambda: [0, 0])
    bad: list[int] = field(default_factory=lambda: [0, 0])
    scores: list[list[int]] = field(default_factory=lambda: [[], []])
    pairs: int = 0
    flips: int = 0


@dataclass(slots=True)
class Sheet:
    """What is known of a trial's rows. All but `waiting` is kept over a restart."""

    since: float
    """Rows from before are not looked at: the trial began then."""
    until: float = -math.inf
    """End of the last block that was closed: what comes later for an earlier one is late."""
    weights: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of the rows drawn last; 0 before any was."""
    edges: tuple[float, ...] = ()
    warm: list[float] = field(default_factory=list)
    open: dict[float, Open] = field(default_factory=dict)
    seen: list[int] = field(default_factory=lambda: [0, 0])
    """Rows that count."""
    newest: list[float] = field(default_factory=lambda: [-math.inf, -math.inf])
    served: list[int] = field(default_factory=lambda: [0, 0])
    """Requests that the counters had told of when the newest rows came."""
    late: int = 0
    pairs: int = 0
    undecided: int = 0
    """Pairs without a decision on both sides."""
    followed: float = 1.0
    """Share of the prediction ids that are followed for pairs."""
    waiting: dict[bytes, tuple[int, float, float, str | None]] = field(default_factory=dict)

    def take(self, side: int, rows: Rows, now: float, block: float) -> None:
        """Count `rows` of side 0 (candidate) or 1 into the blocks of `block` seconds that they fall in."""
        usable = np.isfinite(rows.times) & (rows.times >= self.since) & (rows.times <= now + _AHEAD)
        if not usable.any():
            return
        drawn = rows.weights[usable & rows.drawn]
        if len(drawn):
            self.weights[side] = float(drawn.max())
        if self.weights[side] <= 0:  # nothing but what is always kept: that is no sample of anything
            return
        hashes = [blake2b(one.encode("utf-8", "surrogatepass"), digest_size=16).digest() for one in rows.ids]
        chances = np.array([int.from_bytes(one[:7], "big") / 2**56 for one in hashes])
        counts = usable & (chances * self.weights[side] < rows.weights)
        starts = np.floor(rows.times / block) * block
        in_time = starts + block > self.until
        self.late += int(np.count_nonzero(counts & ~in_time))
        counts &= in_time
        for start in np.unique(starts[counts]):
            self._count(side, float(start), rows, counts & (starts == start))
        self.seen[side] += int(np.count_nonzero(counts))
        if counts.any():
            self.newest[side] = max(self.newest[side], float(rows.times[counts].max()))
        self._warm(rows.scores[counts])
        for at in np.flatnonzero(usable & in_time):
            self._pair(side, rows, int(at), hashes[at], float(chances[at]), block)
        self._forget(now)

    def close(self, now: float, late: float, block: float) -> Iterator[Block]:
        """The blocks that ended `late` seconds ago or earlier, in order; each once."""
        for start in sorted(self.open):
            if start + block + late > now:
                return
            found = self.open.pop(start)
            self.until = start + block
            arms = [
                Arm(0, scores=tuple(found.scores[side]), rows=found.rows[side], bad_rows=found.bad[side])
                for side in (0, 1)
            ]
            yield Block(start, start + block, arms[0], arms[1], found.pairs, found.flips)

    def _count(self, side: int, start: float, rows: Rows, chosen: Mask) -> None:
        into = self.open.setdefault(start, Open())
        if rows.judge is not None:
            counted, bad = rows.judge(chosen)
            into.rows[side] += counted
            into.bad[side] += bad
        if not self.edges:
            return
        own = rows.scores[chosen]
        added = count_in(own[np.isfinite(own)].tolist(), self.edges)
        for each in (0, 1):  # both sides have all bins as soon as one has a row
            into.scores[each] = into.scores[each] or [0] * len(added)
        into.scores[side] = [one + more for one, more in zip(into.scores[side], added, strict=True)]

    def _warm(self, scores: Floats) -> None:
        if self.edges:
            return
        self.warm += scores[np.isfinite(scores)].tolist()
        if len(self.warm) >= WARM:
            self.edges, self.warm = edges_of(self.warm), []

    def _pair(self, side: int, rows: Rows, at: int, key: bytes, chance: float, block: float) -> None:
        if int.from_bytes(key[8:], "big") >= self.followed * 2**64:
            return
        time, weight, decision = float(rows.times[at]), float(rows.weights[at]), rows.decisions[at]
        other = self.waiting.get(key)
        if other is None or other[0] == side:
            self.waiting[key] = (side, time, weight, decision)
            return
        del self.waiting[key]
        if chance * max(self.weights) >= max(weight, other[2]) or abs(time - other[1]) > APART:
            return
        self.pairs += 1
        start = math.floor(max(time, other[1]) / block) * block
        if decision is None or other[3] is None:
            self.undecided += 1
        else:
            into = self.open.setdefault(start, Open())
            into.pairs += 1
            into.flips += decision != other[3]

    def _forget(self, now: float) -> None:
        if len(self.waiting) <= MOST_WAITING // 2:
            return
        newest = max(self.newest)
        before = (min(newest, now) if math.isfinite(newest) else now) - APART  # a writer's clock may be ahead
        self.waiting = {key: one for key, one in self.waiting.items() if one[1] >= before}
        while len(self.waiting) > MOST_WAITING:
            self.followed /= 2
            least = self.followed * 2**64
            self.waiting = {
                key: one for key, one in self.waiting.items() if int.from_bytes(key[8:], "big") < least
            }

    def gaps(self, canary: Canary, rules: Rules, now: float, late: float, spec: str, rate: float) -> Gaps:
        """What cannot be compared, and what is waited for. `spec`: why rows cannot be judged, "" if they can;
        `rate`: share of calls that is drawn, by the settings."""
        if rate <= 0 and not any(self.weights):
            return Gaps(dict.fromkeys(OF_ROWS, "no call is drawn for the feature log: `sample` is 0"))
        never, awaited = {}, {}
        if spec:
            never[QUALITY] = spec
        elif QUALITY not in canary.harm:
            awaited[QUALITY] = "no rows of both versions in the feature log yet"
        if SCORE not in canary.harm:
            if sum(canary.scores) >= _SPREAD:
                never[SCORE] = "the predictions hardly vary"
            elif sum(self.seen) >= 2 * _DUE and not self.edges and not self.warm:
                never[SCORE] = "the predictions in the feature log are no numbers"
            else:
                awaited[SCORE] = "too few predictions of both versions in the feature log yet"
        if FLIPS not in canary.harm:
            never[FLIPS] = (
                "the pairs have no decision, and the model no `decision_threshold`"
                if self.undecided
                else "no prediction id was answered by both versions"
            )
        for side, name in enumerate(SIDES):
            silent = self._silent(side, canary, now - late - rules.stale * rules.block, rate)
            if silent:
                own = f"{silent} of the {name} were due in the feature log, and none came"
                awaited.update({metric: own for metric in (SCORE, QUALITY) if metric not in never})
        return Gaps(never, awaited)

    def _silent(self, side: int, canary: Canary, before: float, rate: float) -> str:
        """How many rows should have come since the newest ones; "" while that may be chance."""
        if self.newest[side] >= before and math.isfinite(self.newest[side]):
            return ""
        weight = self.weights[side] or (1.0 / rate if rate > 0 else math.inf)
        due = (canary.requests[side] - self.served[side]) / weight
        return f"some {due:,.0f} rows" if due >= _DUE and self.since < before else ""

    def told(self, canary: Canary, before: Sequence[float]) -> None:
        """After a read: `before` is what `newest` was; of a side that has newer rows none is due any more."""
        for side in (0, 1):
            if self.newest[side] > before[side]:
                self.served[side] = canary.requests[side]

    def to_plain(self) -> dict[str, Any]:
        """Strict JSON takes all of it."""
        waiting, self.waiting = self.waiting, {}
        plain = asdict(self)
        self.waiting = waiting
        del plain["waiting"]
        plain["open"] = [[start, counts] for start, counts in plain["open"].items()]
        plain["until"] = _finite(self.until)
        plain["newest"] = [_finite(one) for one in self.newest]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Sheet:
        """Raises ValueError, TypeError or KeyError for anything that `to_plain` did not make."""
        own = dict(plain)
        own["open"] = {start: Open(**counts) for start, counts in own["open"]}
        own["until"] = -math.inf if own["until"] is None else own["until"]
        own["newest"] = [-math.inf if one is None else one for one in own["newest"]]
        own["edges"] = tuple(own["edges"])
        return cls(**own)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
