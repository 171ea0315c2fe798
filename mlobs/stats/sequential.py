"""Tests that may be looked at whenever one likes: betting on blocks. Pure, stdlib only.

A bettor starts with capital 1 and stakes on every block that the candidate has more events (errors, slow
requests) than its share of the traffic explains. While the null hypothesis holds no stake is favourable, the
capital is a non-negative supermartingale, and by Ville's inequality it ever reaches 1/alpha with a
probability of at most alpha, whenever and however often one looks (Wald 1945 for the likelihood ratio;
Robbins and Siegmund 1972 for mixtures of it; Ramdas, Gruenwald, Vovk and Shafer 2023 for the theory).

The stake on a block is the likelihood ratio of how its events split between the arms, given how many there
were: what moves both arms alike (load, a slow shared store) cancels. The null is no single ratio but a
log-normal law of the ratios that equal versions show because they run on different pods: with few events that
costs nothing, with many it keeps a slow node from looking like a bad version. Two things more make it stand
traffic whose requests depend on each other: the exponent 1/dispersion, measured on the blocks before, and a
cap on what one block may win, so that a single burst on one pod decides nothing. Both only lower the capital.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STEPS: Final = (1.25, 1.6, 2.2, 5.0)
"""Alternatives, as multiples of the null's median ratio of rates, and the capital that each begins with."""
PRIOR: Final = (0.1, 0.2, 0.6, 0.1)
NODES: Final = tuple(0.75 * place for place in range(-4, 5))
"""Where the law of equal versions is evaluated, in its standard deviations."""
MOST: Final = 1.2
"""Log of what one block may multiply the capital by. From 1 to 1/0.005 takes five blocks."""
_EASY = 8.0
"""Blocks that a dispersion of 1 is worth before any is measured."""
_NODE_LOGS = tuple(-0.5 * node * node for node in NODES)
_NODE_TOTAL = math.log(sum(math.exp(log) for log in _NODE_LOGS))


@dataclass(frozen=True, slots=True)
class Bet:
    """The capital of one test after some blocks. All of it is logarithms and sums."""

    null: tuple[float, ...] = tuple(log - _NODE_TOTAL for log in _NODE_LOGS)
    """Likelihood of what was seen under each of `NODES`, times its weight."""
    alternative: tuple[float, ...] = tuple(math.log(weight) for weight in PRIOR)
    log_capital: float = 0.0
    best: float = 0.0
    """Log of the most capital there ever was."""
    blocks: int = 0
    """Blocks with an event."""
    hits: float = 0.0
    events: float = 0.0
    expected: float = 0.0
    """Of the `events` so far on both sides: those that were staked on, and those that the null allows."""
    spread: float = 0.0
    """Sum of Pearson's statistic over the blocks, each about the share of those before it."""

    @property
    def dispersion(self) -> float:
        """Variance of a block's count over that of independent events; 1 unless it is refuted at two
        standard errors."""
        blocks = self.blocks + _EASY
        found = (self.spread + _EASY) / blocks
        return found if found > 1.0 + 2.0 * math.sqrt(2.0 / blocks) else 1.0

    def step(self, hits: float, events: float, share: float, between: float = 0.0) -> Bet:
        """After a block in which `hits` of the `events` fell where the stake lies.

        `share` in (0, 1) of them is what the null expects there, `between` >= 0 the standard deviation of the
        log ratio of two equal versions on different pods. A block without events changes nothing. 10 us.
        """
        if events <= 0 or not 0.0 < share < 1.0:
            return self
        odds = share / (1.0 - share)
        tempered = 1.0 / self.dispersion

        def seen(times: float) -> float:
            there = times * odds
            return tempered * (hits * math.log(there) - events * math.log1p(there))

        null = tuple(log + seen(math.exp(between * node)) for log, node in zip(self.null, NODES, strict=True))
        alternative = tuple(log + seen(times) for log, times in zip(self.alternative, STEPS, strict=True))
        won = (log_sum(alternative) - log_sum(null)) - (log_sum(self.alternative) - log_sum(self.null))
        capital = self.log_capital + min(won, MOST)
        return Bet(
            null,
            alternative,
            capital,
            max(self.best, capital),
            self.blocks + 1,
            self.hits + hits,
            self.events + events,
            self.expected + events * share,
            self.spread + self._pearson(hits, events, share),
        )

    def _pearson(self, hits: float, events: float, share: float) -> float:
        # About the rate that was seen, not that of the null: a real difference is no dispersion.
        tilt = (self.hits + 0.5) / (self.expected + 0.5)
        own = min(max(tilt * share, 1e-6), 1.0 - 1e-6)
        return (hits - events * own) ** 2 / (events * own * (1.0 - own))

    def rejects(self, alpha: float) -> bool:
        """Whether the capital ever reached 1/alpha: the null is refuted at level `alpha` in (0, 1)."""
        return self.best >= -math.log(alpha)


def log_sum(logs: Sequence[float]) -> float:
    """log of the sum of exp(logs), without overflow."""
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs))


def share_under(ratio: float, candidate: float, baseline: float) -> float:
    """The share of all events that falls on the candidate when its rate is `ratio` times the baseline's;
    `candidate` and `baseline` are the arms' exposures (requests). In [0, 1]; 0 without any exposure."""
    weight = ratio * candidate
    total = weight + baseline
    return weight / total if total > 0 else 0.0


def worse(
    bet: Bet,
    ratio: float,
    events: tuple[float, float],
    exposure: tuple[float, float],
    between: float = 0.0,
) -> Bet:
    """A step against "the candidate's rate is `ratio` times the baseline's, but for its pods, or less".

    `events` and `exposure` are (candidate, baseline) counts of the block.
    """
    return bet.step(events[0], sum(events), share_under(ratio, *exposure), between)


def better(
    bet: Bet,
    ratio: float,
    events: tuple[float, float],
    exposure: tuple[float, float],
    between: float = 0.0,
) -> Bet:
    """A step against "the candidate's rate is `ratio` times the baseline's, but for its pods, or more":
    staked on the baseline's part of the events."""
    return bet.step(events[1], sum(events), 1.0 - share_under(ratio, *exposure), between)
