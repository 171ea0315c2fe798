"""`mlobs drift reference show` and `diff`: all that a reference judges by, and what of it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drift.test_check_command import run

DAYS, ROWS = 8, 200


def table(**changed: object) -> pa.Table:
    """Eight days of two segments; on day d5 `a` is null in a tenth of the rows, and always in segment fr."""
    rng = np.random.default_rng(4)
    day = np.repeat(np.arange(DAYS), ROWS)
    shop = np.tile(np.array(["de", "fr"]), DAYS * ROWS // 2)
    columns: dict[str, object] = {
        "day": [f"d{one}" for one in day],
        "at": pa.array(
            1_772_323_200_000_000 + np.arange(DAYS * ROWS) * 432_000_000, pa.timestamp("us", "UTC")
        ),
        "shop": shop,
        "a": pa.array(rng.normal(5, 1, DAYS * ROWS), mask=(day == 5) & (np.arange(DAYS * ROWS) % 10 == 1)),
        "b": rng.normal(5, 1, DAYS * ROWS),
    }
    return pa.table(columns | changed)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def made(name: str, data: pa.Table, *options: str) -> None:
        pq.write_table(data, f"{name}.parquet")
        code, output = run("reference", "build", f"{name}.parquet", "-o", f"{name}.mlref", *options)
        assert code == 0, output

    return made


def changes(old: str, new: str) -> dict[tuple[str, str], tuple[object, object]]:
    code, output = run("reference", "diff", f"{old}.mlref", f"{new}.mlref", "--json")
    found = json.loads(output, parse_constant=pytest.fail)
    assert code == (1 if found["changes"] else 0)
    assert len(found["differences"]) == len(found["changes"])
    return {(one["column"], one["what"]): (one["old"], one["new"]) for one in found["changes"]}


def test_nothing_changes_from_a_reference_to_itself(build) -> None:
    build("x", table(), "--day", "day", "--segment", "shop", "--duplicates", "--joint", "a,b")
    assert changes("x", "x") == {}
    assert run("reference", "diff", "x.mlref", "x.mlref") == (0, "no difference\n")


def test_slices_segments_joint_columns_and_checks_of_rows_are_told(build) -> None:
    build("x", table(), "--day", "day", "--segment", "shop", "--duplicates", "--joint", "a,b")
    other = table(shop=["us"] * DAYS * ROWS)
    build("y", other, "--time", "at", "--segment", "shop", "--volume", "--freshness", "--joint", "b,a")
    found = changes("x", "y")
    assert found["", "slices"] == ("by day, segments by shop", "by at, 1d in UTC, segments by shop")
    assert found["", "segments"] == (["de", "fr"], ["us"])
    assert found["", "joint"] == (["a", "b"], ["b", "a"])
    assert found["", "duplicates"][1] is None
    assert found["", "volume"] == (None, {"least": ROWS, "most": ROWS})
    assert found["", "freshness"] == (None, {"longest_silence_seconds": 432.0})
    _, text = run("reference", "diff", "x.mlref", "y.mlref")
    assert "segments gone ['de', 'fr'], come ['us']" in text
    assert "volume: not judged -> 200 to 200 rows a slice" in text
    assert "freshness: not judged -> longest silence 7 min 12 s" in text


def test_worst_days_and_checks_that_went_off_are_told_of_the_whole_and_of_segments(build) -> None:
    rows = np.arange(DAYS * ROWS)
    gone = (rows // ROWS == 3) & (rows % 2 == 1)
    sick = table(a=pa.array(np.full(len(rows), 5.5) + rows % 7, mask=gone), b=pa.array(rows * 1.0, mask=gone))
    options = ("--day", "day", "--segment", "shop")
    build("x", table(), *options)
    build("y", sick, *options)
    found = changes("x", "y")
    assert found["a", "null"][0] == {"share": 0.1, "day": "d5", "off": False}
    assert found["a", "null"][1] == {"share": 0.5, "day": "d3", "off": False}
    assert found["b", "null in segment fr"][1] == {"share": 1.0, "day": "d3", "off": True}
    assert ("b", "null in segment de") not in found
    _, text = run("reference", "diff", "x.mlref", "y.mlref")
    assert "a: null worst day 10.0% (d5) -> worst day 50.0% (d3)" in text
    assert "segment fr: b: null worst day 0.0% (d0) -> off (d3)" in text
    nearly = table(b=pa.array(np.array(table()["b"]), mask=rows == 3))  # half a point on one day
    build("z", nearly, *options)
    assert ("b", "null") not in changes("x", "z")


def test_show_has_worst_days_segments_and_what_is_off_in_them(build) -> None:
    rows = np.arange(DAYS * ROWS)
    gone = pa.array(rows * 1.0, mask=(rows // ROWS == 3) & (rows % 2 == 1))
    build("x", table(b=gone), "--day", "day", "--segment", "shop", "--duplicates", "--joint", "a,b")
    code, text = run("reference", "show", "x.mlref")
    assert code == 0
    assert "null 10.0% (d5)" in text
    assert "segment fr: 8 days, 800 rows; off besides: b null (d3)" in text
    assert "segment de: 8 days, 800 rows\n" in text
    assert "duplicates: worst day" in text
    assert "joint: a, b" in text
    shown = json.loads(run("reference", "show", "x.mlref", "--json")[1])
    assert shown["segments"] == ["de", "fr"]
    assert shown["by_segment"]["fr"]["worst_day"]["b"]["null"] == {"share": 1.0, "day": "d3", "off": True}
    assert shown["slices"] == "by day, segments by shop"


def test_a_name_with_control_characters_paints_no_terminal(build) -> None:
    build("x", table(**{"\x1b[31mred": [1.0] * DAYS * ROWS}))
    build("y", table())
    for words in (("show", "x.mlref"), ("diff", "x.mlref", "y.mlref")):
        assert "\x1b" not in run("reference", *words)[1]
