"""From view values to cells, bars and the head line."""

from dataclasses import replace

import pytest

from mlobs.web import shapes
from mlobs.web.model import DriftCell, DriftRow
from mlobs.web.plain import plain
from tests.web import figures


def test_the_worst_feature_comes_first_and_every_row_has_a_cell_for_each_window() -> None:
    view = figures.drift()
    heat = shapes.verdict_map(view, figures.ZONE)
    assert [feature for feature, _, _ in heat.rows][:3] == ["temp", "dewp", "pressure"]
    assert {len(cells) for _, _, cells in heat.rows} == {len(view.windows)} == {len(heat.columns)}
    assert heat.groups == (("Mar", 24),)


def test_a_drifted_cell_shows_its_share_and_tells_the_whole_story() -> None:
    heat = shapes.verdict_map(figures.drift(), figures.ZONE)
    cell = heat.rows[0][2][15]
    assert (cell.css, cell.mark) == ("drifted", "93")
    assert cell.text.startswith("temp, Sat 16 Mar: drifted (range). 93% of rows below")
    assert cell.text.endswith("915 rows")


def test_nothing_said_and_no_data_and_too_few_rows_never_look_ok() -> None:
    view = figures.drift()
    short = replace(view, rows=(DriftRow("late_feature", view.rows[5].cells[:2]),))
    cells = shapes.verdict_map(short, figures.ZONE).rows[0][2]
    assert [cell.css for cell in cells[:3]] == ["insufficient", "ok", "off"]
    off = next(row for row in shapes.verdict_map(view, figures.ZONE).rows if row[0] == "precip")
    assert {cell.css for cell in off[2]} == {"off"}
    unknown = replace(view, rows=(DriftRow("x", (DriftCell("from_a_newer_version", ""),) * 24),))
    assert {cell.css for cell in shapes.verdict_map(unknown, figures.ZONE).rows[0][2]} == {"none"}


def test_what_was_said_of_a_whole_window_stands_above_the_features() -> None:
    view = replace(
        figures.drift(), rows=(), whole=(DriftCell("insufficient", "no_reference", rows=930),) * 24
    )
    ((feature, _, cells),) = shapes.verdict_map(view, figures.ZONE).rows
    assert feature == "whole window"
    assert cells[0].text == "whole window, Fri 1 Mar: not judged (no reference) · 930 rows"


def test_a_long_list_of_features_is_cut_but_never_by_one_in_trouble() -> None:
    heat = shapes.verdict_map(figures.drift(), figures.ZONE, most=2)
    assert [feature for feature, _, _ in heat.rows] == ["temp", "dewp", "pressure"]
    assert heat.left_out == 11


def test_windows_within_a_day_are_grouped_by_day() -> None:
    view = replace(
        figures.drift(),
        windows=tuple((figures.START + h * 21600, figures.START + (h + 1) * 21600) for h in range(6)),
    )
    heat = shapes.verdict_map(view, figures.ZONE)
    assert heat.groups == (("1 Mar", 4), ("2 Mar", 2))
    assert heat.columns[1] == ("06:00", "1 Mar, 06:00 – 12:00")


@pytest.mark.parametrize(
    ("score", "css", "mark"),
    [
        (0.0, "level0", ""), (0.0999, "level0", "0.1"), (0.1, "level1", "0.1"), (0.25, "level2", "0.2"),
        (9.94, "level5", "9.9"), (9.96, "level5", "10"), (None, "none", ""), (float("nan"), "none", ""),
    ],
)  # fmt: skip
def test_a_score_has_its_shade_and_its_number(score: float | None, css: str, mark: str) -> None:
    view = replace(figures.drift(), rows=(DriftRow("a", (), (1.0, score)),))
    heat = shapes.score_map(view, "UTC")
    assert heat is not None
    assert (heat.rows[0][2][1].css, heat.rows[0][2][1].mark) == (css, mark)


def test_without_any_score_there_is_no_score_map() -> None:
    assert shapes.score_map(replace(figures.drift(), rows=(DriftRow("a", (), (None,)),)), "UTC") is None


def test_the_waterfall_fills_the_call_to_its_end() -> None:
    bars = shapes.waterfall(figures.CALL)
    names = ["whole call", "feature_read", "preprocess", "inference", "postprocess", "outside stages"]
    assert [bar.name for bar in bars] == names
    assert sum(bar.width for bar in bars[1:]) == pytest.approx(1000)
    assert [bar.css for bar in bars if bar.css == "slowest"] == ["slowest"]
    assert bars[-1].start + bars[-1].width == pytest.approx(1000)


def test_stages_that_ran_side_by_side_are_drawn_to_their_sum() -> None:
    call = figures.CALL._replace(duration_s=0.1, stage_durations_s={"a": 0.1, "b": 0.1})
    bars = shapes.waterfall(call)
    assert [bar.name for bar in bars] == ["whole call", "a", "b"]
    assert bars[0].width == pytest.approx(500)


@pytest.mark.parametrize("duration", [0.0, float("nan"), -1.0])
def test_a_call_without_a_duration_has_no_waterfall(duration: float) -> None:
    assert shapes.waterfall(figures.CALL._replace(duration_s=duration, stage_durations_s={})) == ()


def test_the_head_line_is_good_only_with_data_and_without_trouble() -> None:
    slos = figures.slos()
    ok = slos[0]
    absent = slos[3]
    assert shapes.headline([ok], [], True).css == "good"
    assert shapes.headline([ok], [], False).css == "none"
    assert shapes.headline([], [], True).css == "none"
    assert shapes.headline([absent], [], True).css == "none"
    assert shapes.headline([ok, absent], [], True).css == "warn"
    assert shapes.headline(slos, [], True).css == "warn"
    assert shapes.headline([ok], figures.incidents(), True).css == "bad"
    ticket = replace(figures.incidents()[0], severity="ticket")
    assert shapes.headline([ok], [ticket], True).css == "warn"


def test_objectives_in_trouble_come_first_and_others_keep_their_order() -> None:
    names = [slo.name for slo in shapes.ranked(figures.slos())]
    assert names == ["late-p99", "late-data", "late-drift", "late-available"]


def test_plain_values_hold_nothing_that_strict_json_refuses() -> None:
    value = {"a": float("nan"), 1: [float("inf"), {"b"}], "\ud800": "x\udfff", "call": figures.CALL}
    found = plain(value)
    assert found["a"] is None
    assert found["1"] == [None, ["b"]]
    assert found["?"] == "x?"
    assert found["call"]["prediction_id"] == "UA-1545-2013-03-24"
