"""What kept calls tell of trouble: plain Python numbers, weighted, the stage that grew."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from mlobs.notify.incident import Incident, Tracked
from mlobs.records import Alert
from mlobs.service.enrichers import burning_since, links
from mlobs.service.evidence import Calls, calls_of, serving_parts, slowest_stage, weighted_quantile
from mlobs.settings import Settings

STAGES = pa.struct([("feature_read", pa.float64()), ("inference", pa.float64())])


def calls(rows: int, slow_every: int | None, threshold: float | None = 0.5) -> Calls:
    slow = [slow_every is not None and row % slow_every == 0 for row in range(rows)]
    table = pa.table(
        {
            "duration_s": [0.702 if one else 0.002 for one in slow],
            "outcome": ["ok"] * rows,
            "weight": [1.0 if one else 10.0 for one in slow],
            "segment": ["EWR" if one else "JFK" for one in slow],
            "model_version": ["v2" if one else "v1" for one in slow],
            "trace_id": [f"t{row}" for row in range(rows)],
            "prediction_id": [f"p{row}" for row in range(rows)],
            "event_time": [1_700_000_000.4 + row for row in range(rows)],
            "stage_durations_s": pa.array(
                [{"feature_read": 0.001, "inference": 0.701 if one else 0.001} for one in slow], STAGES
            ),
        }
    )
    return calls_of(table, threshold)


def test_the_stage_that_grew_is_named_with_its_time_now_and_before() -> None:
    found = slowest_stage(calls(1000, 5), calls(1000, None))
    assert found is not None
    assert found.stage == "inference"
    assert (found.p99_s, found.usual_s) == (0.701, 0.001)
    assert found.share == pytest.approx(0.701 / 0.702)


def test_without_bad_calls_no_stage_is_blamed() -> None:
    assert slowest_stage(calls(100, None), calls(100, None)) is None


def test_parts_name_five_slowest_traces_and_the_worst_segment_and_are_plain_numbers() -> None:
    parts = serving_parts(calls(1000, 20), calls(1000, None), "http://127.0.0.1:9464")
    assert len(parts.traces) == 5
    assert parts.traces[0].url == "http://127.0.0.1:9464/calls/t0?at=1700000000"
    assert [segment.segment for segment in parts.segments] == ["EWR"]
    assert parts.versions == ("v2",)
    json.dumps(asdict(parts))  # no numpy scalar


def test_no_calls_at_all_say_nothing() -> None:
    parts = serving_parts(calls(0, None), calls(0, None), "")
    assert parts.stage is None
    assert not parts.traces


def test_a_weighted_quantile_counts_weights_and_not_rows() -> None:
    values = np.array([1.0, 2.0, np.nan])
    assert weighted_quantile(values, np.array([1.0, 99.0, 5.0]), 0.5) == 2.0
    assert weighted_quantile(values, np.array([99.0, 1.0, 5.0]), 0.5) == 1.0
    assert weighted_quantile(np.array([np.nan]), np.ones(1), 0.5) is None


def incident(since: float, changed: float, long: float | None, short: float | None) -> Incident:
    alert = Alert(
        "SLOBurn",
        "availability",
        "page",
        True,
        since,
        changed,
        "s",
        "m",
        long_window_s=long,
        short_window_s=short,
    )
    tracked = (Tracked(alert, True, since, changed, "engine"),)
    return Incident("i", "k", "", "s", "m", "availability", "page", "open", changed, since, changed, tracked)


def test_a_page_as_young_as_its_alert_looks_back_over_the_window_that_made_it() -> None:
    assert burning_since(incident(1000.0, 1000.0, 3600.0, 300.0)) == -2600.0


def test_an_onset_that_is_known_is_where_the_evidence_begins() -> None:
    assert burning_since(incident(1000.0, 5000.0, 86400.0, 300.0)) == 1000.0


def test_a_burn_that_does_not_say_its_window_is_looked_back_an_hour() -> None:
    assert burning_since(incident(1000.0, 1012.0, None, None)) == 1012.0 - 3600.0


def test_the_link_of_a_page_as_young_as_its_alert_spans_an_hour_at_least() -> None:
    young = incident(9000.0, 9000.0, 60.0, 5.0)
    found = links(Settings("s", public_url="http://127.0.0.1:1/"))(young)
    assert found.dashboard == "http://127.0.0.1:1/?from=5400&to=9000"
