"""Betting on blocks: the capital is fair at the null, whatever the exposure, and finds what is there."""

import math
from itertools import product

import numpy as np
import pytest

from mlobs.stats.sequential import Bet, better, share_under, worse


def test_a_stake_is_fair_under_the_law_of_equal_versions() -> None:
    """The capital's mean over every way that the events can fall is 1, also for arms of different size."""
    share = share_under(1.0, 100, 900)
    assert share == pytest.approx(0.1)
    mean = 0.0
    for falls in product((0, 1), repeat=6):
        bet = Bet().step(sum(falls[:3]), 3, share).step(sum(falls[3:]), 3, share)
        chance = share ** sum(falls) * (1 - share) ** (6 - sum(falls))
        mean += chance * math.exp(bet.log_capital)
    assert mean <= 1.0 + 1e-12
    assert mean > 0.5  # the cap on a block takes the rest


def test_a_better_candidate_is_no_evidence_against_it() -> None:
    bet = Bet()
    for _ in range(100):
        bet = worse(bet, 1.0, (1, 4), (1000, 1000))
    assert bet.log_capital < -20


def test_load_that_both_arms_share_is_no_evidence() -> None:
    bet = Bet()
    for trouble in (1, 50, 3, 200, 0, 80):
        bet = worse(bet, 1.0, (trouble, trouble), (1000, 1000))
    assert bet.best < 1.0


def test_one_block_decides_nothing_however_bad() -> None:
    bet = worse(Bet(), 1.0, (500, 0), (1000, 1000))
    assert bet.best == pytest.approx(1.2)
    assert not bet.rejects(0.005)
    for _ in range(5):
        bet = worse(bet, 1.0, (500, 0), (1000, 1000))
    assert bet.rejects(0.005)


def test_a_rollback_stays_when_the_candidate_recovers() -> None:
    bet = Bet()
    for count in [20] * 5 + [0] * 50:
        bet = worse(bet, 1.0, (count, 2), (1000, 1000))
    assert bet.log_capital < 0
    assert bet.rejects(0.005)


def test_blocks_without_events_or_with_one_arm_change_nothing() -> None:
    bet = Bet()
    assert worse(bet, 1.0, (0, 0), (1000, 1000)) is bet
    assert worse(bet, 1.0, (5, 0), (1000, 0)) is bet
    assert worse(bet, 1.0, (0, 0), (0, 0)) is bet


def test_promotion_takes_evidence_and_equal_arms_give_it() -> None:
    bet = Bet()
    rng = np.random.default_rng(3)
    for _ in range(60):
        candidate, baseline = rng.poisson(10, 2)
        bet = better(bet, 1.5, (int(candidate), int(baseline)), (1000, 1000))
    assert bet.rejects(0.05)
    same = Bet()
    for _ in range(60):
        candidate, baseline = rng.poisson(15), rng.poisson(10)
        same = better(same, 1.5, (int(candidate), int(baseline)), (1000, 1000))
    assert not same.rejects(0.05)


def test_clustered_errors_are_measured_and_cost_no_false_alarm() -> None:
    """Errors in bursts of 20: as independent events, one run in five would be an alarm. 200 runs at level
    1 %: more than six alarms have a probability below 0.5 %."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        bet = Bet()
        for _ in range(150):
            bursts = rng.poisson(0.5, 2) * 20
            bet = worse(bet, 1.0, (int(bursts[0]), int(bursts[1])), (1000, 1000))
        alarms += bet.rejects(0.01)
    assert alarms <= 6


def test_pods_that_differ_are_no_evidence_even_after_a_day() -> None:
    """Two million events in arms 8 % apart, where pods differ by 5 %: the law of equal versions covers it."""
    bet = Bet()
    for _ in range(8640):
        bet = worse(bet, 1.0, (108, 100), (1000, 1000), between=0.05)
    assert not bet.rejects(0.005)


@pytest.mark.parametrize("count", [1, 2**53, 2**60])
def test_counts_of_any_size_stay_finite(count: int) -> None:
    bet = Bet()
    for _ in range(20):
        bet = worse(bet, 1.0, (count, count), (count, count))
    assert math.isfinite(bet.log_capital)
    assert math.isfinite(bet.dispersion)
