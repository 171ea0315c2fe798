"""A table against itself, or another draw of its law, has not drifted, however many categories it has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.score import score

ROWS = 3000


def words(kind: str, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    if kind == "half numeric":
        return ["oops" if rng.random() < 1 / 3 else repr(rng.random()) for _ in range(ROWS)]
    if kind == "unique":
        return [f"id-{seed}-{number}" for number in range(ROWS)]
    if kind == "zipf":
        return [f"c{number}" for number in rng.zipf(1.3, ROWS)]
    return [f"c{number}" for number in rng.integers(0, int(kind), ROWS)]


KINDS = ["3", "200", "500", "1500", "5000", "100000", "half numeric", "unique", "zipf"]


def psi(reference: list[str], current: list[str]) -> tuple[float, float]:
    """Corrected PSI and its p-value under the margin."""
    built = build_reference(pa.table({"x": reference}), "r")
    found = score(built.state, profile(pa.table({"x": current}), built.spec), built.spec)
    (one,) = [each for each in found if each.statistic == "psi"]
    return one.value or 0.0, 1.0 if one.p_value is None else one.p_value


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_categories_has_not_drifted_from_itself(kind: str) -> None:
    own = words(kind, 1)
    value, p_value = psi(own, own)
    assert value == 0.0
    assert p_value > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_two_draws_of_one_law_have_not_drifted(kind: str) -> None:
    """20 pairs a law at p < 0.001: a false alarm in 2 % of such tests if chance were all; seeded."""
    alarms = sum(psi(words(kind, seed), words(kind, seed + 1000))[1] < 0.001 for seed in range(20))
    assert alarms == 0


def test_new_categories_are_still_seen_where_the_reference_has_rare_ones() -> None:
    reference = words("1500", 1)
    current = ["new" if number % 5 == 0 else word for number, word in enumerate(words("1500", 2))]
    heavy = ["a"] * 2990 + [f"once{number}" for number in range(10)]
    assert psi(heavy, ["a"] * 2500 + ["fresh"] * 500)[1] < 1e-6
    assert psi(reference, current)[0] >= 0.0
