"""Times are shown as times: in tables, sentences and pages; JSON has seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlobs.drift.beyond import beyond_limits
from mlobs.drift.moments import axis_text, said
from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.report.shapes import bars_of
from mlobs.drift.state import merge
from tests.drift.test_check_command import run

MARCH = 1_772_323_200  # 2026-03-01 00:00:00 UTC
ROWS = 500


@pytest.mark.parametrize(
    ("value", "arrow", "text"),
    [
        (MARCH + 43200, "timestamp[us, tz=Europe/Berlin]", "2026-03-01 12:00:00 UTC"),
        (MARCH + 0.25, "timestamp[ns]", "2026-03-01 00:00:00.250"),
        (MARCH, "dictionary<values=timestamp[ms], indices=int32, ordered=0>", "2026-03-01 00:00:00"),
        (-1.0, "timestamp[s, tz=UTC]", "1969-12-31 23:59:59 UTC"),
        (MARCH + 43200, "date32[day]", "2026-03-01"),
        (43200.5, "time64[us]", "12:00:00.500"),
        (90000.0, "duration[s]", "1 d 1 h"),
        (-0.0, "duration[s]", "0 ms"),
        (0.00025, "duration[us]", "0.25 ms"),
        (-1.234567, "duration[ns]", "-1.235 s"),
        (1e300, "timestamp[s]", "1e+300"),
        (float("inf"), "timestamp[s]", "inf"),
        (float("nan"), "date32[day]", "nan"),
        (1234567.0, "double", "1.23457e+06"),
        (5.0, "struct<when: timestamp[us]>", "5"),
    ],
)
def test_a_value_is_said_as_what_it_is(value: float, arrow: str, text: str) -> None:
    assert said(value, arrow) == text


def test_an_axis_has_short_words() -> None:
    kind = "timestamp[us, tz=UTC]"
    assert axis_text(MARCH, 30 * 86400, kind) == "2026-03-01"
    assert axis_text(MARCH + 3600, 7200, kind) == "03-01 01:00"
    assert axis_text(MARCH + 3600, 60, kind) == "2026-03-01 01:00:00"
    assert axis_text(0.123456, 1, "double") == "0.1235"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, start in (("march", MARCH), ("may", MARCH + 61 * 86400)):
        steps = start + np.arange(ROWS) * 5184  # a month
        table = pa.table(
            {
                "at": pa.array(steps * 1000, pa.timestamp("ms", "UTC")),
                "on": pa.array((steps // 86400).astype("int32"), pa.int32()).cast(pa.date32()),
                "for": pa.array(steps - MARCH, pa.duration("s")),
                "first": pa.array(np.full(ROWS, MARCH * 1000), pa.timestamp("ms")),
            }
        )
        pq.write_table(table, f"{name}.parquet")


def test_a_check_says_when_and_not_how_many_seconds(files: None) -> None:
    code, output = run(
        "check", "--reference", "march.parquet", "--current", "may.parquet", "--html", "r.html"
    )
    assert code == 1
    assert "training maximum 2026-03-30 22:33:36 UTC" in output
    assert "training range 2026-03-01 to 2026-03-30" in output
    assert "always 2026-03-01 00:00:00" in output
    assert "e+09" not in output
    page = Path("r.html").read_text()
    assert "e+09" not in page
    assert 'text-anchor="start">2026-03-01</text>' in page
    assert "observed 5/50/95 %: 2026-05-0" in output


def test_values_beyond_the_limits_are_drawn_where_they_lie(files: None) -> None:
    """And not over the quarter of a year that their key of the histogram spans."""
    states = {}
    march = pq.read_table("march.parquet")
    reference = build_reference(march, "march")
    for name in ("march", "may"):
        states[name] = profile(pq.read_table(f"{name}.parquet"), reference.spec)
    bars = bars_of(reference.spec.columns["at"], states["march"], states["may"])
    assert bars is not None
    steps = np.linspace(bars.low, bars.high, len(bars.current) + 1)
    in_may = (steps[1:] > MARCH + 61 * 86400) & (steps[:-1] < MARCH + 91 * 86400)
    assert sum(np.array(bars.current)[in_may]) == pytest.approx(1.0)
    assert bars.high <= MARCH + 91 * 86400
    # Half within the limits: the other half begins where they end.
    both = merge(states["march"], states["may"])
    found = beyond_limits(reference.spec.columns["at"], both)
    assert (found[0][0], sum(rows for _, _, rows in found)) == (MARCH + 499 * 5184, ROWS)


def test_references_are_shown_and_compared_in_times_and_json_has_seconds(files: None) -> None:
    for name in ("march", "may"):
        run("reference", "build", f"{name}.parquet", "-o", f"{name}.mlref", "--checks", f"{name}.yaml")
    shown = run("reference", "show", "march.mlref")[1]
    assert "2026-03-01 00:00:00 UTC to 2026-03-30 22:33:36 UTC" in shown
    told = run("reference", "diff", "march.mlref", "may.mlref")[1]
    assert "on: limits 2026-03-01 to 2026-03-30 -> 2026-05-01 to 2026-05-30" in told
    assert "e+09" not in shown + told
    columns = json.loads(run("reference", "show", "march.mlref", "--json")[1])["columns"]
    assert columns[0]["limits"] == [MARCH, MARCH + 499 * 5184]
    assert "# seconds: 2026-03-01 00:00:00 UTC to" in Path("march.yaml").read_text()
    same = ("--reference", "march.mlref", "--current", "march.parquet")
    assert run("check", *same, "--checks", "march.yaml")[0] == 0
