"""A reference of raw text beside a log of keyed hashes: said, and nobody is woken."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.state import State
from mlobs.drift.verdicts import Stream, WindowVerdict, judge
from tests.drift.traffic import day_table, reference_table

ROWS = 400


def window(country: pa.Array) -> tuple[WindowVerdict, State]:
    reference = build_reference(reference_table().drop_columns("day"), "r")
    state = profile(day_table(3, ROWS, country=country), reference.spec)
    stream = Stream("m", "v1", "")
    return judge(stream, 0.0, 60.0, state, reference, reference.spec, 100, 0.05), state


def test_keyed_hashes_against_raw_text_are_masked_and_no_breach() -> None:
    words = np.random.default_rng(1).integers(0, 3, ROWS)
    found, state = window(pa.array([f"0badcafe:{word:032x}" for word in words]))
    assert found.verdict == "ok"
    assert "country" in found.detail
    assert "keyed hashes" in found.detail
    assert {one.status for one in found.verdicts if one.feature == "country"} == {"masked"}
    assert sum(stratum.bad_rows.get("unseen", 0) for stratum in state.strata.values()) == 0


def test_other_new_words_are_unseen_as_ever() -> None:
    found, state = window(pa.array([f"x{row % 3}:{row % 3:032x}" for row in range(ROWS)]))
    assert found.failed.keys() == {("country", "unseen")}
    assert state.strata[1.0].bad_rows["unseen"] == ROWS
