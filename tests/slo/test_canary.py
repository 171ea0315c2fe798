"""The canary on made-up traffic with shared load and pods that differ; the whole simulation is nightly."""

from dataclasses import replace

import pytest

from mlobs.slo.canary import (
    HOLD,
    PROMOTE,
    ROLLBACK,
    Arm,
    Block,
    Canary,
    Rules,
    observe,
    verdict,
)
from mlobs.slo.canary_bins import tail_cut
from tests.slo.canary_world import World, blocks, ends, share_found, share_of

RULES = Rules()


def seen(items: list[Block], rules: Rules = RULES) -> Canary:
    canary = Canary()
    for block in items:
        canary = observe(canary, block, rules)
    return canary


def even(count: int, candidate: Arm, baseline: Arm) -> list[Block]:
    return [Block(10.0 * place, 10.0 * place + 10, candidate, baseline) for place in range(count)]


# --- by simulation: the slice of it that is quick ---------------------------------------------------------


def test_doubled_errors_are_found_within_60_000_requests_an_arm() -> None:
    """The share is 0.81 (nightly); of 50 runs fewer than 34 have a probability of 1 %."""
    assert share_of(ROLLBACK, ends(World(errors_times=2.0), 60, 50, seed=1)) >= 0.68


def test_a_p99_that_grows_by_a_fifth_is_found_within_5_000_requests_an_arm() -> None:
    """The share is 0.96 (nightly); of 20 runs fewer than 17 have a probability of 1 %."""
    assert share_of(ROLLBACK, ends(World(per_block=100, slower=1.2), 50, 20, seed=2)) >= 0.85


def test_a_harmless_candidate_is_promoted_and_not_rolled_back() -> None:
    """At 1 % a run, two false rollbacks among 20 have a probability of 1.7 %."""
    canaries = ends(World(), 180, 20, seed=3)
    assert share_of(ROLLBACK, canaries) <= 0.05
    assert share_of(PROMOTE, canaries) >= 0.7


@pytest.mark.nightly
def test_the_whole_simulation_of_harmless_candidates() -> None:
    """400 canaries of an hour, looked at after every block; a fortieth of them a day long. At a rate of 1 %
    ten or more false findings of 400 have a probability of 0.8 %; those that would only hold count too."""
    assert share_found(ends(World(), 360, 400, seed=13)) <= 9 / 400
    assert share_found(ends(World(), 8640, 10, seed=15)) == 0
    assert share_found(ends(World(per_block=5000, errors=0.01), 720, 100, seed=14)) <= 0.04


@pytest.mark.nightly
def test_the_whole_simulation_of_harmful_candidates() -> None:
    assert share_of(ROLLBACK, ends(World(errors_times=2.0), 60, 500, seed=11)) >= 0.8
    assert share_of(ROLLBACK, ends(World(per_block=100, slower=1.2), 50, 300, seed=12)) >= 0.8


# --- one thing at a time ----------------------------------------------------------------------------------


def test_the_evidence_of_a_rollback_names_the_metric_and_both_sides() -> None:
    bad, good = Arm(1000, errors=20), Arm(1000, errors=1)
    found = verdict(seen(even(10, bad, good)), RULES, 100.0)
    assert found.verdict == ROLLBACK
    assert found.reason == "errors: 2.000% of the candidate, 0.100% of the baseline"
    evidence = {one.metric: one for one in found.evidence}
    assert evidence["errors"].e_value > evidence["errors"].needed == 200


def test_a_rollback_stays_one_when_data_go_missing() -> None:
    canary = seen(even(10, Arm(1000, errors=20), Arm(1000, errors=1)))
    assert verdict(canary, RULES, 1e6).verdict == ROLLBACK


@pytest.mark.parametrize("candidate", [None, Arm(0)])
def test_missing_data_is_hold_and_no_evidence(candidate: Arm | None) -> None:
    good = even(100, Arm(1000, errors=1), Arm(1000, errors=1))
    canary = seen(good)
    after = canary
    for place in range(100, 110):
        after = observe(after, Block(10.0 * place, 10.0 * place + 10, candidate, Arm(1000)), RULES)
    assert (after.blocks, after.missing, after.harm) == (100, 10, canary.harm)
    found = verdict(after, RULES, 1100.0)
    assert (found.verdict, found.reason) == (HOLD, "no data of both versions for 100 s")


def test_nothing_seen_is_hold() -> None:
    assert verdict(Canary(), RULES, 0.0).verdict == HOLD


def test_a_promotion_takes_its_time() -> None:
    found = verdict(seen(even(29, Arm(1000), Arm(1000))), RULES, 290.0)
    assert (found.verdict, "29 of at least 30 blocks" in found.reason) == (HOLD, True)


def test_without_any_error_a_candidate_below_the_budget_is_promoted() -> None:
    assert verdict(seen(even(40, Arm(1000), Arm(1000))), RULES, 400.0).verdict == PROMOTE
    few = verdict(seen(even(40, Arm(50), Arm(50))), RULES, 400.0)
    assert (few.verdict, few.reason) == (HOLD, "not yet shown to be as good: errors")


def test_a_small_arm_beside_a_large_one_is_judged_by_rates() -> None:
    equal = seen(even(60, Arm(100, errors=1), Arm(1900, errors=19)))
    assert verdict(equal, RULES, 600.0).verdict != ROLLBACK
    worse = seen(even(60, Arm(100, errors=3), Arm(1900, errors=19)))
    assert verdict(worse, RULES, 600.0).verdict == ROLLBACK


def test_decision_flips_beyond_what_is_allowed_roll_back() -> None:
    good = Arm(1000)
    few = [replace(block, pairs=100, flips=2) for block in even(60, good, good)]
    many = [replace(block, pairs=100, flips=6) for block in even(60, good, good)]
    assert verdict(seen(few), RULES, 600.0).verdict == PROMOTE
    found = verdict(seen(many), RULES, 600.0)
    assert (found.verdict, found.reason) == (ROLLBACK, "flips: 6.000% of the candidate, 2.000% allowed")


def test_bad_rows_roll_back() -> None:
    world = World(quality_times=3.0, errors=0.0)
    assert share_of(ROLLBACK, ends(world, 60, 5, seed=4)) == 1.0


def test_other_scores_and_decisions_are_for_a_person_to_look_at() -> None:
    canary = ends(World(score_shift=0.5), 60, 1, seed=5)[0]
    found = verdict(canary, RULES, canary.last)
    assert (found.verdict, found.reason.startswith("for a person to look at: decisions: ")) == (HOLD, True)
    assert "; score: " in found.reason
    strict = replace(RULES, advisory=frozenset())
    assert verdict(canary, strict, canary.last).verdict == ROLLBACK


def test_a_block_that_is_not_newer_counts_once() -> None:
    items = even(5, Arm(1000, errors=3), Arm(1000, errors=1))
    assert seen([*items, items[-1], items[0]]) == seen(items)


def test_the_threshold_of_a_tail_is_of_the_past_alone() -> None:
    assert tail_cut([], 0.99) is None
    assert tail_cut([500, 400, 99], 0.99) is None  # fewer than ten beyond
    assert tail_cut([5000, 4000, 900, 90, 10], 0.99) == 3
    assert tail_cut([0, 10_000, 0], 0.99) is None


def test_the_levels_of_all_metrics_sum_to_one_percent() -> None:
    assert sum(RULES.alphas.values()) == pytest.approx(0.01)


def test_the_order_of_blocks_from_a_seed_is_the_same_every_time() -> None:
    import numpy as np

    once, again = (list(blocks(World(), 3, np.random.default_rng(1))) for _ in range(2))
    assert once == again
