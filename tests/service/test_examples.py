"""Calls that show a drift: the least usual ones, each with the record that it resolves to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlobs.config import parse_settings
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.featurelog.opening import open_log
from mlobs.featurelog.reader import reader_of
from mlobs.notify import read
from mlobs.notify.drawing import plain
from mlobs.records import FeatureRecord
from mlobs.service.examples import Broken, drifted_calls, unlikeness
from mlobs.service.serve import SCHEMAS, wire
from mlobs.store import open_store
from tests.drift.traffic import day_table, reference_table

LINK = "http://127.0.0.1:9464"


def calls(features: Mapping[str, Any], **more: Any) -> pa.Table:
    rows = len(next(iter(features.values())))
    columns = {
        "event_time": [float(row) for row in range(rows)],
        "trace_id": [f"t{row}" for row in range(rows)],
        "prediction_id": [f"p{row}" for row in range(rows)],
        "segment": [None] * rows,
        "duration_s": [0.01] * rows,
        "stage_durations_s": pa.array(
            [{"inference": 0.008}] * rows, pa.struct([("inference", pa.float64())])
        ),
        "features": pa.StructArray.from_arrays([pa.array(one) for one in features.values()], list(features)),
    } | more
    return pa.table(columns)


def test_the_least_usual_calls_come_first_with_the_value_that_shows_it() -> None:
    before = calls({"temp": list(np.linspace(20.0, 60.0, 101))})
    now = calls({"temp": [41.0, -8.9, 38.0, 30.0, -3.0, 55.0, 44.0]})
    found = drifted_calls(now, before, [Broken("temp")], LINK)
    assert len(found) == 5
    assert [one.trace_id for one in found[:2]] == ["t1", "t4"]
    assert (found[0].shows, found[0].url, found[0].prediction_id) == (
        "temp -8.9",
        f"{LINK}/calls/t1?at=1",
        "p1",
    )
    assert found[0].stages == {"inference": 0.008}
    json.dumps([asdict(one) for one in found])  # no numpy scalar


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        (["de", "fr"], ["de", "xx", "fr"], "country"),  # a category is not written on a page
        ([1.0, 2.0], [1.0, None, 2.0], "country missing"),
        ([1.0, 2.0], [1.0, float("nan"), 2.0], "country missing"),
        ([True, True], [True, False, True], "country"),
    ],
)
def test_what_was_never_there_and_what_is_missing_are_unlike(before: list, now: list, shown: str) -> None:  # type: ignore[type-arg]
    found = drifted_calls(calls({"country": now}), calls({"country": before}), [Broken("country")], "")
    assert (found[0].trace_id, found[0].shows, found[0].url) == ("t1", shown, "")


def test_only_calls_of_the_broken_segment_show_what_broke_in_it() -> None:
    before, values = calls({"temp": [10.0, 11.0, 12.0]}), {"temp": [500.0, 400.0, 11.0]}
    now = calls(values, segment=["JFK", "EWR", "EWR"])
    assert [one.trace_id for one in drifted_calls(now, before, [Broken("temp", "EWR")], "")] == ["t1"]


def test_a_call_without_a_trace_is_none_and_one_without_stage_times_comes_last() -> None:
    some = [{"inference": None}, {"inference": 0.1}, {"inference": 0.1}]
    stages = pa.array(some, pa.struct([("inference", pa.float64())]))
    now = calls({"temp": [900.0, 800.0, 20.0]}, trace_id=["a", None, "c"], stage_durations_s=stages)
    found = drifted_calls(now, calls({"temp": [10.0, 11.0]}), [Broken("temp")], "")
    assert [one.trace_id for one in found] == ["c", "a"]


def test_odd_columns_are_no_obstacle() -> None:
    nothing = calls({"temp": pa.array([], pa.float64())})
    assert drifted_calls(nothing, nothing, [Broken("temp")], "") == ()
    now = calls({"temp": [1.0]})
    assert drifted_calls(now, nothing, [Broken("temp")], "") == ()  # nothing is known to be usual
    assert drifted_calls(now, now, [Broken("gone")], "") == ()
    huge = unlikeness(pa.array([2**62, -1, None]), pa.array([1, 1, 1]))
    assert huge[0] == pytest.approx(1.0)
    assert huge[2] == 1.0
    assert unlikeness(pa.array([float("inf"), 1.0]), pa.array([1.0, 2.0, 3.0])).tolist()[0] == pytest.approx(
        1
    )
    assert unlikeness(pa.array([["x"]]), pa.array([["x"]])).tolist() == [0.0]
    assert unlikeness(pa.array(["a"]), pa.array([1.0])).tolist() == [1.0]


YAML = """
service: fraud-api
public_url: http://127.0.0.1:9464
clock: driven
feature_log: ./featurelog
drift: {window: 5m, min_rows: 10, persistence: 2 of 3}
models: [{name: fraud, reference: m.mlref, features: {temp: {type: number, critical: true}}}]
notify: {channels: {screen: {console: }}}
"""
START = 1_700_006_400.0 // 3600 * 3600


def logged(folder: Path, window: int, celsius: bool) -> None:
    """Five minutes of calls in the feature log, each with a trace and a stage."""
    columns = day_table(0, rows=40, seed=window).to_pydict()
    log = open_log(str(folder / "featurelog"), service="fraud-api")
    for row in range(40):
        values = {name: column[row] for name, column in columns.items()}
        values["temp"] = (values["temp"] - 32) / 1.8 if celsius else values["temp"]
        at = START + 300 * window + 7 * row
        name = f"{window:02}{row:02}"
        log.offer(
            FeatureRecord(
                "",
                f"p{name}",
                at,
                "fraud-api",
                "fraud",
                "1",
                values,
                0.5,
                None,
                "ok",
                0.01,
                {"inference": 0.008},
                trace_id=name.rjust(32, "a"),
                span_id="b" * 16,
            )
        )
    assert log.close(10)


def test_a_drift_page_shows_traces_that_resolve_to_their_records(tmp_path: Path) -> None:
    save_reference(
        build_reference(reference_table(), "ref", slicing=Slicing(day="day")), tmp_path / "m.mlref"
    )
    settings = parse_settings(YAML, tmp_path)
    store = open_store(settings.store, SCHEMAS)
    service = wire(settings, store, lambda url: b"")  # type: ignore[arg-type]
    for window in range(16):
        logged(tmp_path, window, celsius=window >= 8)
        service.tick(START + 300 * window + 330)
    [page] = [one.page for one in read.pages(store, kind="firing")]
    assert "temp" in [one.feature for one in page.features]
    assert 0 < len(page.traces) <= 5
    reader = reader_of(settings)
    assert reader is not None
    for trace in page.traces:
        [record] = reader.find(trace_ids=[trace.trace_id])
        assert (record.prediction_id, dict(record.stage_durations_s)) == (trace.prediction_id, trace.stages)
        assert record.features["temp"] < 20  # of the Celsius ones, the far ones
        assert f"temp {record.features['temp']:.4g}" in trace.shows
        assert trace.at == record.event_time
        assert trace.url == f"{LINK}/calls/{trace.trace_id}?at={trace.at:.0f}"
    assert "Traces" in plain(page)
    service.close()
