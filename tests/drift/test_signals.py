"""Data-quality signals beyond those of single values: repeated rows, volume, zeros, signs, cardinality."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.checks import table_shares
from mlobs.drift.mlref import dump_reference, load_reference
from mlobs.drift.profile import profile
from mlobs.drift.reference import Reference, Slicing, build_reference
from mlobs.drift.state import merge
from mlobs.drift.verdicts import Stream, WindowVerdict, judge
from tests.drift.test_check_command import run

DAY = 86400.0
ROWS = 400


def day(seed: int, rows: int = ROWS, **changed: object) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {
        "items": np.where(rng.random(rows) < 0.1, 0.0, rng.poisson(5, rows) + 1.0),
        "balance": rng.normal(0, 10, rows),
        "weight": rng.lognormal(0, 1, rows),
        "country": pa.array(np.array(["de", "fr", "us"])[rng.integers(0, 3, rows)]),
    }
    return pa.table(columns | changed)


def history(days: int = 14) -> pa.Table:
    parts = [day(100 + place, ROWS + 40 * (place % 5)) for place in range(days)]
    return pa.concat_tables(
        [
            part.append_column("day", pa.array([f"d{place:02d}"] * part.num_rows))
            for place, part in enumerate(parts)
        ]
    )


@pytest.fixture(scope="module")
def reference() -> Reference:
    made = build_reference(
        history(), "r", slicing=Slicing(day="day"), duplicates=True, volume=True, block=("balance", "weight")
    )
    return load_reference(dump_reference(made), "here")


def judged(reference: Reference, table: pa.Table, start: float = 0.0, length: float = DAY) -> WindowVerdict:
    state = profile(table, reference.spec)
    return judge(Stream("m", "v", ""), start, start + length, state, reference, reference.spec, 100, 0.05)


def test_forty_ordinary_days_fail_no_check(reference: Reference) -> None:
    assert [judged(reference, day(seed, 440)).detail for seed in range(40)] == [""] * 40


WIDE = np.random.default_rng(8).normal(0, 10, ROWS)
CASES = {
    "zeros": ({"items": np.where(np.arange(ROWS) % 3, 0.0, 4.0)}, ("items", "zero")),
    "negative": ({"weight": -np.random.default_rng(1).lognormal(0, 1, ROWS)}, ("weight", "range")),
    "cardinality": (
        {"country": pa.array([f"u{row * 7919}" for row in range(ROWS)])},
        ("country", "cardinality"),
    ),
    "a few new ones": ({"country": pa.array([f"u{row % 9}" for row in range(ROWS)])}, ("country", "unseen")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_column_is_one_finding_of_its_cause(reference: Reference, name: str) -> None:
    changed, finding = CASES[name]
    found = judged(reference, day(5, **changed))
    assert found.failed.keys() == {finding}
    assert f"({finding[1]}" in found.detail


def test_the_cardinality_of_new_values_is_told_within_a_quarter_or_so(reference: Reference) -> None:
    rows = 20_000
    table = day(5, rows, country=pa.array([f"u{row % 5000}" for row in range(rows)]))
    (detail,) = [
        one.detail for key, one in judged(reference, table).failed.items() if key[1] == "cardinality"
    ]
    assert 2000 < float(detail.split()[1].replace(",", "")) < 12_000


def test_negative_values_within_declared_limits_are_found_where_no_day_had_any() -> None:
    made = build_reference(history(), "r", slicing=Slicing(day="day"))
    columns = dict(made.spec.columns)
    columns["weight"] = replace(columns["weight"], limits=(-1e9, 1e9), declared=True)
    spec = replace(made.spec, columns=columns)
    table = day(5, weight=-np.random.default_rng(1).lognormal(0, 1, ROWS))
    found = judge(Stream("m", "v", ""), 0, DAY, profile(table, spec), made, spec, 100, 0.05)
    assert ("weight", "negative") in found.failed


def test_repeated_rows_are_found(reference: Reference) -> None:
    half = day(5, ROWS // 2)
    found = judged(reference, pa.concat_tables([half, half]))
    assert found.failed.keys() == {("(rows)", "duplicates")}
    assert "repeat another row" in found.detail


def test_rows_of_which_not_all_were_sketched_are_not_called_repeated(reference: Reference) -> None:
    without = replace(reference.spec, duplicates=False)
    for weights in (None, np.full(ROWS, 10.0)):  # one stratum, and two
        state = merge(profile(day(1), reference.spec), profile(day(2), without, weights))
        assert table_shares(state) == {}


def test_a_reference_of_an_older_mlobs_knows_no_signs_and_judges_none() -> None:
    made = build_reference(history(), "r", slicing=Slicing(day="day"))
    days = {
        segment: replace(
            found,
            shares={
                name: {check: each for check, each in checks.items() if check not in ("zero", "negative")}
                for name, checks in found.shares.items()
            },
        )
        for segment, found in made.days.items()
    }
    old = replace(made, days=days)
    assert judged(old, day(5, items=np.where(np.arange(ROWS) % 3, 0.0, 4.0))).failed == {}


def test_what_is_judged_of_rows_is_shown_for_review(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(history(), "days.parquet")
    options = ("--duplicates", "--volume", "--joint", "balance,weight")
    assert run("reference", "build", "days.parquet", "--day", "day", "-o", "r.mlref", *options)[0] == 0
    shown = json.loads(run("reference", "show", "r.mlref", "--json")[1])
    assert shown["rows_judged"]["volume"] == {"least": 400, "most": 560}
    assert shown["rows_judged"]["duplicates"]["worst"] < 0.05
    assert shown["joint"] == ["balance", "weight"]
    items = next(column for column in shown["columns"] if column["name"] == "items")
    assert 0.1 < items["worst_day"]["zero"]["share"] < 0.2
    half = day(5, 200)
    pq.write_table(pa.concat_tables([half, half]), "twice.parquet")
    code, output = run("check", "--reference", "r.mlref", "--current", "twice.parquet")
    assert code == 1
    assert "repeat another row" in output
    assert run("reference", "build", "days.parquet", "-o", "s.mlref", "--joint", "country")[0] == 2
