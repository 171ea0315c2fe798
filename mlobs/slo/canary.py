"""Canary: is the candidate as good as the baseline? Two arms, blocks of 10 s, a verdict at any time. Pure.

Each metric has an e-process (`stats.sequential`) against "no worse than the baseline, but for its pods"; the
levels of all metrics sum to 1 %, so that a harmless candidate is rolled back with a probability of at most
1 % however long and often one looks. A block in which an arm is missing counts nothing and is no evidence:
the verdict is hold. What the counters say and what the rows of the feature log say come in blocks of their
own: the levels add up whatever the order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from mlobs.slo.canary_bins import pooled, tail_cut
from mlobs.stats.binomial import upper_tail
from mlobs.stats.sequential import Bet, better, log_sum, worse

PROMOTE: Final = "promote"
HOLD: Final = "hold"
ROLLBACK: Final = "rollback"
VERDICTS: Final = (PROMOTE, HOLD, ROLLBACK)

ERRORS: Final = "errors"
LATENCY: Final = "latency"
DECISIONS: Final = "decisions"
SCORE: Final = "score"
FLIPS: Final = "flips"
QUALITY: Final = "quality"
METRICS: Final = (ERRORS, LATENCY, DECISIONS, SCORE, FLIPS, QUALITY)
OF_ROWS: Final = (SCORE, FLIPS, QUALITY)
"""What counters do not tell: it takes rows of the feature log, or blocks that hold them."""

QUANTILES: Final = (0.9, 0.99)
"""Latency is judged by the share of requests slower than these of the pooled past, at a bucket's edge."""
CUTS: Final = (0.25, 0.5, 0.75)
"""Scores and decisions are judged by the shares above these quantiles, both ways."""
_TESTS: Final = {
    ERRORS: 1, LATENCY: len(QUANTILES), DECISIONS: 2 * len(CUTS), SCORE: 2 * len(CUTS), FLIPS: 1, QUALITY: 1
}  # fmt: skip
_NOT_SEEN: Final = "nothing of it was seen"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a candidate. Levels are probabilities; `between_*` are standard deviations of the log
    ratio that two arms of equal versions show because of their pods."""

    alphas: Mapping[str, float] = field(
        default_factory=lambda: {
            ERRORS: 0.005,
            LATENCY: 0.002,
            DECISIONS: 0.0005,
            SCORE: 0.0005,
            FLIPS: 0.001,
            QUALITY: 0.001,
        }
    )
    between_errors: float = 0.05
    between_latency: float = 0.1
    """Of the share of slow requests: pods 2 % apart in time are some 10 % apart in what lies above p99."""
    between_score: float = 0.05
    """Of scores and of decisions."""
    between_quality: float = 0.05
    flips: float = 0.02
    """Share of shadow pairs that may decide otherwise."""
    advisory: frozenset[str] = frozenset({DECISIONS, SCORE})
    """Metrics whose finding is a hold and not a rollback: a new model may well score and decide otherwise."""
    tolerance: float = 1.5
    """Promotion takes evidence that errors and slow requests are below so many times the baseline's."""
    promote_alpha: float = 0.05
    error_budget: float = 0.001
    """Where errors are too few to compare, a candidate below this share of errors is fine."""
    row_budget: float = 0.01
    """The same of rows that fail a check of data quality."""
    min_requests: int = 1000
    """Of each arm, before a promotion."""
    min_blocks: int = 30
    block: float = 10.0
    stale: float = 3.0
    """Blocks without data after which nothing is judged."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm within one block. Histograms are counts per bin, the same bins on both sides."""

    requests: int
    errors: int = 0
    durations: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()
    rows: int = 0
    bad_rows: int = 0
    decisions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Ten seconds of both arms; None for an arm that could not be read."""

    start: float
    end: float
    candidate: Arm | None
    baseline: Arm | None
    pairs: int = 0
    flips: int = 0
    """Shadow pairs, and those whose decisions differ."""


@dataclass(frozen=True, slots=True)
class Canary:
    """All that is known after some blocks."""

    harm: Mapping[str, tuple[Bet, ...]] = field(default_factory=dict)
    safe: Mapping[str, tuple[Bet, ...]] = field(default_factory=dict)
    """Stakes that the candidate is not much worse: what a promotion takes."""
    totals: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """By metric: events and exposure of the candidate, then of the baseline."""
    durations: tuple[int, ...] = ()
    decisions: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()
    """Pooled histograms of the past: they choose the thresholds of the next block."""
    requests: tuple[int, int] = (0, 0)
    blocks: int = 0
    missing: int = 0
    last: float = -math.inf
    """End of the last block with both arms."""
    rows_until: float = -math.inf
    """End of the last block of rows."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """Metrics that cannot be compared, and those whose data are yet to come, with the reason in words."""

    never: Mapping[str, str] = field(default_factory=dict)
    awaited: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One metric: how often per unit on each side, and the odds against "no worse" (`e_value`; a rollback
    takes `needed`)."""

    metric: str
    candidate: float | None
    baseline: float | None
    e_value: float
    needed: float
    harmful: bool
    safe: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`promote`, `hold` or `rollback`, the reason in a sentence, and the evidence by metric."""

    verdict: str
    reason: str
    at: float
    blocks: int
    missing: int
    requests: tuple[int, int]
    evidence: tuple[Evidence, ...]
    not_compared: Mapping[str, str] = field(default_factory=dict)
    """Metrics without any evidence, and why."""


def observe(canary: Canary, block: Block, rules: Rules) -> Canary:
    """The canary after one more block. Blocks come in order; one that is not newer is ignored."""
    if block.start < canary.last:
        return canary
    candidate, baseline = block.candidate, block.baseline
    if candidate is None or baseline is None or not candidate.requests or not baseline.requests:
        return replace(canary, missing=canary.missing + 1)
    work = _Work(dict(canary.harm), dict(canary.safe), dict(canary.totals))
    exposure = (candidate.requests, baseline.requests)
    work.compare(ERRORS, 0, (candidate.errors, baseline.errors), exposure, rules.between_errors, rules)
    work.total(ERRORS, (candidate.errors, baseline.errors), exposure)
    _latency(work, canary, candidate, baseline, rules)
    _shares(work, DECISIONS, canary.decisions, candidate.decisions, baseline.decisions, rules)
    served = replace(
        canary,
        harm=work.harm, safe=work.safe, totals=work.totals,
        durations=pooled(canary.durations, candidate.durations, baseline.durations),
        decisions=pooled(canary.decisions, candidate.decisions, baseline.decisions),
        requests=(canary.requests[0] + exposure[0], canary.requests[1] + exposure[1]),
        blocks=canary.blocks + 1, last=block.end,
    )  # fmt: skip
    return _rows(served, block, candidate, baseline, rules)


def observe_rows(canary: Canary, block: Block, rules: Rules) -> Canary:
    """The canary after a block of rows of the feature log alone: scores, rows, pairs; requests are not looked
    at. Such blocks come in an order of their own; one that is not newer is ignored."""
    if block.start < canary.rows_until or block.candidate is None or block.baseline is None:
        return canary
    after = _rows(canary, block, block.candidate, block.baseline, rules)
    return replace(after, rows_until=block.end)


def _rows(canary: Canary, block: Block, candidate: Arm, baseline: Arm, rules: Rules) -> Canary:
    work = _Work(dict(canary.harm), dict(canary.safe), dict(canary.totals))
    _shares(work, SCORE, canary.scores, candidate.scores, baseline.scores, rules)
    if candidate.rows and baseline.rows:
        bad, rows = (candidate.bad_rows, baseline.bad_rows), (candidate.rows, baseline.rows)
        work.compare(QUALITY, 0, bad, rows, rules.between_quality, rules)
        work.total(QUALITY, bad, rows)
    if block.pairs:
        work.put(
            work.harm, FLIPS, 0, work.bet(work.harm, FLIPS, 0).step(block.flips, block.pairs, rules.flips)
        )
        work.total(FLIPS, (block.flips, rules.flips * block.pairs), (block.pairs, block.pairs))
    return replace(
        canary,
        harm=work.harm, safe=work.safe, totals=work.totals,
        scores=pooled(canary.scores, candidate.scores, baseline.scores),
    )  # fmt: skip


class _Work:
    """The books of one step."""

    def __init__(
        self,
        harm: dict[str, tuple[Bet, ...]],
        safe: dict[str, tuple[Bet, ...]],
        totals: dict[str, tuple[float, float, float, float]],
    ) -> None:
        self.harm, self.safe, self.totals = harm, safe, totals

    def bet(self, book: dict[str, tuple[Bet, ...]], metric: str, place: int) -> Bet:
        bets = book.get(metric, ())
        return bets[place] if place < len(bets) else Bet()

    def put(self, book: dict[str, tuple[Bet, ...]], metric: str, place: int, bet: Bet) -> None:
        bets = [*book.get(metric, ())]
        bets += [Bet()] * (place + 1 - len(bets))
        bets[place] = bet
        book[metric] = tuple(bets)

    def compare(
        self,
        metric: str,
        place: int,
        events: tuple[int, int],
        exposure: tuple[int, int],
        between: float,
        rules: Rules,
    ) -> None:
        harm = worse(self.bet(self.harm, metric, place), 1.0, events, exposure, between)
        self.put(self.harm, metric, place, harm)
        safe = better(self.bet(self.safe, metric, place), rules.tolerance, events, exposure)
        self.put(self.safe, metric, place, safe)

    def total(self, metric: str, events: tuple[float, float], exposure: tuple[float, float]) -> None:
        before = self.totals.get(metric, (0.0, 0.0, 0.0, 0.0))
        added = (events[0], exposure[0], events[1], exposure[1])
        a, b, c, d = (one + more for one, more in zip(before, added, strict=True))
        self.totals[metric] = (a, b, c, d)


def _latency(work: _Work, canary: Canary, candidate: Arm, baseline: Arm, rules: Rules) -> None:
    if not len(candidate.durations) == len(baseline.durations) == len(canary.durations) != 0:
        return
    counted = (sum(candidate.durations), sum(baseline.durations))
    for place, quantile in enumerate(QUANTILES):
        cut = tail_cut(canary.durations, quantile)
        if cut is None:
            continue
        slow = (sum(candidate.durations[cut:]), sum(baseline.durations[cut:]))
        work.compare(LATENCY, place, slow, counted, rules.between_latency, rules)
        if place == len(QUANTILES) - 1:
            work.total(LATENCY, slow, counted)


def _shares(
    work: _Work, metric: str, past: tuple[int, ...], candidate: tuple[int, ...], baseline: tuple[int, ...],
    rules: Rules,
) -> None:  # fmt: skip
    if not len(candidate) == len(baseline) == len(past) != 0:
        return
    counted = (sum(candidate), sum(baseline))
    for place, quantile in enumerate(CUTS):
        cut = tail_cut(past, quantile)
        if cut is None:
            continue
        above = (sum(candidate[cut:]), sum(baseline[cut:]))
        below = (counted[0] - above[0], counted[1] - above[1])
        for side, events in enumerate((above, below)):
            at = 2 * place + side
            bet = worse(work.bet(work.harm, metric, at), 1.0, events, counted, rules.between_score)
            work.put(work.harm, metric, at, bet)
        if quantile == 0.5:
            work.total(metric, above, counted)


def verdict(canary: Canary, rules: Rules, now: float, gaps: Gaps = Gaps()) -> Verdict:
    """The verdict at time `now`. A rollback stays one: the odds count that were reached at any time."""
    evidence = tuple(_evidence(canary, metric, rules) for metric in METRICS if metric in canary.harm)
    why = {**gaps.awaited, **gaps.never}
    lacking = {metric: why.get(metric, _NOT_SEEN) for metric in METRICS if metric not in canary.harm}
    found, reason = _decide(canary, evidence, rules, now, gaps, lacking)
    return Verdict(found, reason, now, canary.blocks, canary.missing, canary.requests, evidence, lacking)


def _decide(
    canary: Canary, evidence: tuple[Evidence, ...], rules: Rules, now: float, gaps: Gaps,
    lacking: Mapping[str, str],
) -> tuple[str, str]:  # fmt: skip
    harmful = [one for one in evidence if one.harmful and one.metric not in rules.advisory]
    if harmful:
        return ROLLBACK, "; ".join(one.text for one in harmful)
    if not canary.blocks:
        return HOLD, "no block yet in which both versions served requests"
    if now - canary.last > rules.stale * rules.block:
        return HOLD, f"no data of both versions for {now - canary.last:.0f} s"
    noted = [one for one in evidence if one.harmful]
    if noted:
        return HOLD, "for a person to look at: " + "; ".join(one.text for one in noted)
    if gaps.awaited:
        return HOLD, "; ".join(
            f"{', '.join(metric for metric, own in gaps.awaited.items() if own == why)}: {why}"
            for why in dict.fromkeys(gaps.awaited.values())
        )
    if canary.blocks < rules.min_blocks or min(canary.requests) < rules.min_requests:
        return HOLD, (
            f"{canary.blocks} of at least {rules.min_blocks} blocks, {min(canary.requests)} of at least "
            f"{rules.min_requests} requests of each version"
        )
    open_yet = [one for one in evidence if one.metric in (ERRORS, LATENCY, QUALITY) and not one.safe]
    if open_yet:
        return HOLD, "not yet shown to be as good: " + ", ".join(one.metric for one in open_yet)
    compared = ", ".join(one.metric for one in evidence)
    said = f"; not compared: {', '.join(lacking)}" if lacking else ""
    return PROMOTE, f"no worse than {rules.tolerance:g} times the baseline; compared: {compared}{said}"


def _evidence(canary: Canary, metric: str, rules: Rules) -> Evidence:
    bets = canary.harm[metric]
    # The mean of the capitals of a metric's tests is an e-process; each one's most, over their number, is at
    # most the most of the mean.
    logs = [bet.log_capital for bet in bets] + [0.0] * (_TESTS[metric] - len(bets))
    share = math.log(_TESTS[metric])
    peak = max(max(bet.best for bet in bets) - share, log_sum(logs) - share)
    needed = 1.0 / rules.alphas[metric]
    harmful = peak >= math.log(needed)
    events, exposure, others, over = canary.totals.get(metric, (0.0, 0.0, 0.0, 0.0))
    candidate = events / exposure if exposure else None
    baseline = others / over if over else None
    safe = _safe(canary, metric, rules, int(events), int(exposure))
    text = f"{metric}: {_share(candidate)} of the candidate, {_share(baseline)} " + (
        "allowed" if metric == FLIPS else "of the baseline"
    )
    return Evidence(metric, candidate, baseline, math.exp(min(peak, 700.0)), needed, harmful, safe, text)


def _safe(canary: Canary, metric: str, rules: Rules, events: int, exposure: int) -> bool:
    bets = canary.safe.get(metric, ())
    if metric in (DECISIONS, SCORE, FLIPS):
        return True
    staked = [bet for bet in bets if bet.blocks]
    if staked and all(bet.rejects(rules.promote_alpha) for bet in staked):
        return True
    budget = {ERRORS: rules.error_budget, QUALITY: rules.row_budget}.get(metric)
    if budget is None or not exposure:
        return False
    # Too few to compare: below the budget by themselves?
    return 1.0 - upper_tail(events + 1, exposure, budget) < rules.promote_alpha


def _share(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3%}"
