"""How often the default verdicts are wrong: the null, the time and the rows that docs/drift.md states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mlobs.drift.compare import compare
from mlobs.drift.persistence import persisting
from mlobs.drift.profile import profile
from mlobs.drift.reference import Slicing, build_reference
from mlobs.drift.verdicts import Stream, judge
from mlobs.stats.margin import PSI_MARGIN, margin_test

GUIDE = (Path(__file__).parents[2] / "docs" / "drift.md").read_text()
WINDOWS_A_YEAR = 365 * 1440
FEATURES = 50


def at_the_margin(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Two laws whose population stability index is the margin."""
    even = np.full(cells, 1 / cells)
    slope = np.linspace(-1.0, 1.0, cells)

    def index(size: float) -> float:
        other = even * (1 + size * slope)
        return float(((other - even) * np.log(other / even)).sum())

    low, high = 0.0, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if index(middle) < PSI_MARGIN else (low, middle)
    return even, even * (1 + low * slope)


@pytest.mark.parametrize("cells", [2, 20, 100])
@pytest.mark.parametrize(("n", "m"), [(3000, 3000), (100_000, 3000), (200_000, 200_000)])
def test_a_difference_of_the_margin_alarms_at_the_rate_that_was_asked_for(cells: int, n: int, m: int) -> None:
    """Of one column at p < 0.001: 20 expected of 20,000, more than 40 would be a fault of the law."""
    rng = np.random.default_rng(cells + m)
    before, after = at_the_margin(cells)
    p, q = rng.multinomial(m, after, 20_000) / m, rng.multinomial(n, before, 20_000) / n
    _, p_value = margin_test(q, p, np.full(20_000, n), np.full(20_000, m))
    assert (p_value < 0.001).mean() <= 0.002


def fifty(rng: np.random.Generator, rows: int) -> pa.Table:
    columns: dict[str, object] = {f"n{at}": rng.lognormal(0, 1 + at / 40, rows) for at in range(40)}
    words = np.array([f"w{at}" for at in range(30)])
    return pa.table(columns | {f"c{at}": words[rng.integers(0, 30, rows)] for at in range(10)})


def test_tables_of_one_law_have_not_drifted_in_any_of_60_comparisons_of_50_columns() -> None:
    """Against a reference of 20,000 rows; each comparison alarms in fewer than 1 of 1,000."""
    rng = np.random.default_rng(7)
    reference = build_reference(fifty(rng, 20_000), "r")
    found = [compare(reference, [fifty(rng, 3000)], "c").verdict for _ in range(60)]
    assert found == ["ok"] * 60


def breaking(rows: int, worst: float, margin: float = 0.05) -> float:
    """Probability that a window as bad as the worst reference day breaks its check."""
    return float(stats.binom.sf(np.floor(rows * (worst + margin) + 1e-9), rows, worst))


def three_of_five(p: float) -> float:
    """... that three of five windows do: at most so many breaches begin in a window."""
    return float(stats.binom.sf(2, 5, p))


def test_windows_break_a_check_as_often_as_the_binomial_law_says() -> None:
    """With 100 rows and half of them null, as on the worst reference day, often enough to be counted."""
    rng = np.random.default_rng(2)
    half = {
        "x": pa.array(np.ones(1000) * np.arange(1000), mask=np.arange(1000) % 2 == 0),
        "day": ["d"] * 1000,
    }
    reference = build_reference(pa.table(half), "r", slicing=Slicing(day="day"))
    windows = []
    for at in range(1500):
        table = pa.table({"x": pa.array(rng.uniform(0, 999, 100), mask=rng.random(100) < 0.5)})
        state = profile(table, reference.spec)
        windows.append(judge(Stream("m", "v", ""), at, at + 1, state, reference, reference.spec, 50, 0.05))
    p = breaking(100, 0.5)
    assert np.mean([window.verdict == "drifted" for window in windows]) == pytest.approx(p, abs=0.03)
    breaches = [bool(persisting(windows[at : at + 5], 3, 5)) for at in range(0, 1500, 5)]
    assert np.mean(breaches) == pytest.approx(three_of_five(p), abs=0.03)


def test_the_guide_says_how_often_serve_is_wrong() -> None:
    """50 features, in every window as bad as on their worst reference day; 1,000 rows; a year of minutes."""
    per_year = {
        worst: FEATURES * WINDOWS_A_YEAR * three_of_five(breaking(1000, worst)) for worst in (0.02, 0.1, 0.5)
    }
    text = GUIDE.replace("\n", " ")
    said = re.search(r"once in (\d+) years at 50 %, never in a million years at 2 % or 10 %", text)
    assert said is not None
    assert 1 / per_year[0.5] == pytest.approx(float(said[1]), rel=0.1)
    assert max(per_year[0.02], per_year[0.1]) < 1e-6
