"""Rows of the feature log become blocks of a canary: weights, pairs, late rows, what is not compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mlobs.slo.canary import Block, Canary, Rules
from mlobs.slo.canary_bins import count_in, edges_of
from mlobs.slo.canary_rows import MOST_WAITING, WARM, Rows, Sheet

T = 1000.0
CANDIDATE, BASELINE = 0, 1
RULES = Rules()


def rows(
    ids: Sequence[str],
    *,
    at: float | Sequence[float] = T,
    weight: float | Sequence[float] = 1.0,
    drawn: bool | Sequence[bool] = True,
    score: float | Sequence[float] = 0.5,
    decision: Any = None,
    bad: Sequence[bool] | None = None,
) -> Rows:
    size = len(ids)
    fails = np.zeros(size, bool) if bad is None else np.array(bad)
    return Rows(
        times=np.broadcast_to(np.asarray(at, float), size),
        weights=np.broadcast_to(np.asarray(weight, float), size),
        drawn=np.broadcast_to(np.asarray(drawn), size),
        ids=list(ids),
        scores=np.broadcast_to(np.asarray(score, float), size),
        decisions=list(decision) if isinstance(decision, list) else [decision] * size,
        judge=lambda chosen: (int(chosen.sum()), int((chosen & fails).sum())),
    )


def closed(sheet: Sheet, now: float = T + 100) -> list[Block]:
    return list(sheet.close(now, 0.0, 10.0))


def sample(size: int, rate: float, seed: int) -> tuple[list[str], Any, Any, Any]:
    """Of `size` calls those that a log keeps: drawn at `rate`, and all of the slow (5 %), of which half are
    bad; of the others 1 %. Returns ids, weights, drawn, bad."""
    rng = np.random.default_rng(seed)
    slow = rng.random(size) < 0.05
    bad = np.where(slow, rng.random(size) < 0.5, rng.random(size) < 0.01)
    kept = slow | (rng.random(size) < rate)
    ids = [f"r{number}" for number in np.flatnonzero(kept)]
    return ids, np.where(slow, 1.0, 1.0 / rate)[kept], ~slow[kept], bad[kept]


def test_what_is_always_kept_weighs_what_its_weight_says() -> None:
    """3.45 % of all calls are bad; of the kept ones 18 %. Four standard errors of a share of 2,000 rows."""
    ids, weights, drawn, bad = sample(40_000, 0.05, seed=1)
    sheet = Sheet(0.0)
    sheet.take(CANDIDATE, rows(ids, weight=weights, drawn=drawn, bad=bad), T, 10.0)
    [block] = closed(sheet)
    assert block.candidate is not None
    assert block.candidate.rows == pytest.approx(2000, abs=4 * 44)
    assert block.candidate.bad_rows / block.candidate.rows == pytest.approx(0.0345, abs=0.0165)
    assert bad.mean() > 0.1


def test_rows_that_are_always_kept_are_no_sample_until_one_was_drawn() -> None:
    sheet = Sheet(0.0)
    sheet.take(CANDIDATE, rows(["a", "b"], drawn=False), T, 10.0)
    assert sheet.seen == [0, 0]
    sheet.take(CANDIDATE, rows(["c"], weight=100.0), T, 10.0)
    sheet.take(CANDIDATE, rows([f"k{number}" for number in range(1000)], drawn=False), T, 10.0)
    assert 1 <= sheet.seen[CANDIDATE] <= 1 + 30  # ten of a thousand are expected


def test_a_block_closes_once_and_what_comes_after_is_late() -> None:
    sheet = Sheet(0.0)
    sheet.take(CANDIDATE, rows(["a"], at=T), T, 10.0)
    assert closed(sheet, T + 9) == []
    assert list(sheet.close(T + 14, 5.0, 10.0)) == []
    assert [(one.start, one.end) for one in sheet.close(T + 15, 5.0, 10.0)] == [(T, T + 10)]
    sheet.take(BASELINE, rows(["b", "c"], at=[T + 9, T + 10]), T + 15, 10.0)
    assert (sheet.late, sheet.seen) == (1, [1, 1])
    assert [one.start for one in closed(sheet)] == [T + 10]


@pytest.mark.parametrize("at", [T - 1, T + 1e6, float("nan")], ids=["before the trial", "ahead", "undated"])
def test_rows_of_no_usable_time_count_nowhere(at: float) -> None:
    sheet = Sheet(T)
    sheet.take(CANDIDATE, rows(["a"], at=at), T, 10.0)
    assert (sheet.seen, sheet.open) == ([0, 0], {})


def test_scores_are_counted_in_bins_that_the_first_of_both_versions_fixed() -> None:
    sheet = Sheet(0.0)
    rng = np.random.default_rng(2)
    for place in range(3):
        for side in (CANDIDATE, BASELINE):
            ids = [f"{place}-{side}-{number}" for number in range(WARM)]
            sheet.take(side, rows(ids, at=T + 10 * place, score=rng.random(WARM)), T + 10 * place, 10.0)
    counts = [(sum(one.candidate.scores), sum(one.baseline.scores)) for one in closed(sheet)]  # type: ignore[union-attr]
    assert counts == [(0, WARM), (WARM, WARM), (WARM, WARM)]
    assert len(sheet.edges) == 19


def test_bins_hold_as_many_each_and_a_value_on_an_edge_lies_below_it() -> None:
    edges = edges_of(float(number) for number in range(1, 101))
    assert count_in(map(float, range(1, 101)), edges) == [5] * 20
    assert edges_of([0.0] * 90 + [1.0] * 10) == (0.0, 1.0)
    assert count_in([0.0, 0.5, 1.0, 2.0], (0.0, 1.0)) == [1, 2, 1]


def test_a_pair_is_a_prediction_id_of_both_versions_whatever_comes_first() -> None:
    sheet = Sheet(0.0)
    sheet.take(BASELINE, rows(["a", "b", "c", "d"], decision=["deny", "deny", "pass", None]), T, 10.0)
    sheet.take(
        CANDIDATE, rows(["b", "a", "x", "d"], at=T + 10, decision=["pass", "deny", "pass", "pass"]), T, 10.0
    )
    last = closed(sheet)[-1]
    assert (last.start, last.pairs, last.flips) == (T + 10, 2, 1)
    assert (sheet.pairs, sheet.undecided) == (3, 1)


def test_an_id_that_comes_again_much_later_or_of_the_same_version_is_no_pair() -> None:
    sheet = Sheet(0.0)
    sheet.take(BASELINE, rows(["a", "b", "b"], decision="deny"), T, 10.0)
    sheet.take(CANDIDATE, rows(["a"], at=T + 61, decision="pass"), T + 61, 10.0)
    assert sheet.pairs == 0


def test_pairs_that_are_kept_for_lying_near_the_threshold_do_not_count_for_all() -> None:
    """2 % of the pairs lie near it, and half of these flip: 1 % of all. In the log they are most."""
    size, rate = 60_000, 0.05
    rng = np.random.default_rng(3)
    near = rng.random(size) < 0.02
    flip = near & (rng.random(size) < 0.5)
    kept = near | (rng.random(size) < rate)  # by the id: the same in both versions
    ids = [f"r{number}" for number in np.flatnonzero(kept)]
    weights = np.where(near, 1.0, 1.0 / rate)[kept]
    sheet = Sheet(0.0)
    for side in (CANDIDATE, BASELINE):
        words = ["deny" if one and side == CANDIDATE else "pass" for one in flip[kept]]
        sheet.take(side, rows(ids, weight=weights, drawn=~near[kept], decision=words), T, 10.0)
    [block] = closed(sheet)
    assert block.pairs == pytest.approx(3000, abs=4 * 55)
    assert block.flips / block.pairs == pytest.approx(0.01, abs=0.0075)
    assert flip[kept].mean() > 0.1


def test_of_too_many_ids_that_wait_a_share_is_followed_on_both_sides() -> None:
    sheet = Sheet(0.0)
    ids = [f"r{number}" for number in range(3 * MOST_WAITING)]
    sheet.take(BASELINE, rows(ids, decision="deny"), T, 10.0)
    assert (sheet.followed, len(sheet.waiting) <= MOST_WAITING) == (0.25, True)
    sheet.take(CANDIDATE, rows(ids, decision="deny"), T, 10.0)
    [block] = closed(sheet)
    assert block.pairs == pytest.approx(len(ids) / 4, rel=0.05)


def test_one_writer_whose_clock_is_ahead_does_not_end_the_wait_of_the_others() -> None:
    sheet = Sheet(0.0)
    ids = [f"r{number}" for number in range(MOST_WAITING)]
    sheet.take(CANDIDATE, rows(["early"], at=T + 59), T, 10.0)
    for side in (BASELINE, CANDIDATE):
        sheet.take(side, rows(ids, at=T - 2, decision="deny"), T, 10.0)
    assert sheet.pairs >= len(ids) / 4


def test_a_sheet_is_the_same_after_it_was_written_and_read_in_the_middle_of_a_block() -> None:
    sheets = [Sheet(0.0), Sheet(0.0)]
    rng = np.random.default_rng(4)
    parts = [rng.random(150) for _ in range(6)]
    found: list[list[Block]] = [[], []]
    for which in (0, 1):
        sheet = sheets[which]
        for place, scores in enumerate(parts):
            ids = [f"{place}-{number}" for number in range(150)]
            sheet.take(place % 2, rows(ids, at=T + 4 * place, weight=2.0, score=scores), T + 4 * place, 10.0)
            found[which] += sheet.close(T + 4 * place, 0.0, 10.0)
            if which:
                text = json.dumps(sheet.to_plain(), allow_nan=False)
                sheet = Sheet.from_plain(json.loads(text))
        found[which] += closed(sheet)
    assert found[0] == found[1]
    assert len(found[0]) == 3


# --- what is not compared, and what is waited for ---------------------------------------------------------


def gaps(sheet: Sheet, canary: Canary | None = None, spec: str = "", rate: float = 0.1) -> dict[str, str]:
    found = sheet.gaps(canary or Canary(), RULES, T, 5.0, spec, rate)
    assert not set(found.never) & set(found.awaited)
    return {metric: f"never: {why}" for metric, why in found.never.items()} | dict(found.awaited)


def test_where_nothing_is_drawn_nothing_is_waited_for() -> None:
    assert set(gaps(Sheet(0.0), rate=0.0).values()) == {
        "never: no call is drawn for the feature log: `sample` is 0"
    }


def test_before_any_row_scores_and_quality_are_waited_for_and_pairs_are_not() -> None:
    found = gaps(Sheet(T - 5))
    assert {metric: why.startswith("never") for metric, why in found.items()} == {
        "score": False,
        "quality": False,
        "flips": True,
    }
    assert gaps(Sheet(T - 5), spec="no reference")["quality"] == "never: no reference"


def test_predictions_that_are_no_numbers_are_not_waited_for() -> None:
    sheet = Sheet(0.0)
    ids = [f"r{number}" for number in range(30)]
    sheet.take(CANDIDATE, rows(ids, score=np.full(30, np.nan)), T, 10.0)
    assert gaps(sheet)["score"] == "never: the predictions in the feature log are no numbers"


def test_rows_that_were_due_and_did_not_come_are_said_and_waited_for() -> None:
    sheet = Sheet(T - 500)
    both = Canary(requests=(1000, 1000), harm={"quality": (), "score": ()})
    for side in (CANDIDATE, BASELINE):
        sheet.take(
            side, rows([f"a{side}"], at=T - 200 if side == CANDIDATE else T - 10, weight=10.0), T, 10.0
        )
    sheet.told(both, (-np.inf, -np.inf))
    assert "due" not in str(gaps(sheet, both))
    later = Canary(requests=(1090, 2000), harm=both.harm)
    assert "due" not in str(gaps(sheet, later))  # nine rows may be missing by chance
    later = Canary(requests=(1400, 2000), harm=both.harm)
    why = "some 40 rows of the candidate were due in the feature log, and none came"
    assert {metric: said for metric, said in gaps(sheet, later).items() if metric != "flips"} == {
        "score": why,
        "quality": why,
    }
