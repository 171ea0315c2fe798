"""Tables of the drift stage: open windows and the cursor, windows judged, verdicts, breaches.

Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

from mlobs.store import Schema

_meta = MetaData()

cursors = Table(
    "drift_cursor",
    _meta,
    Column("source", String, primary_key=True),
    Column("cursor", LargeBinary, nullable=False),
    # The ledger of rows: offered = delivered + late + unusable + queued (in open windows).
    Column("offered", Integer, nullable=False),
    Column("delivered", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("unusable", Integer, nullable=False),
    Column("event_time", Float),
)

open_windows = Table(
    "drift_open",
    _meta,
    Column("model", String, primary_key=True),
    Column("model_version", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("start", Float, primary_key=True),
    Column("end", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

windows = Table(
    "drift_windows",
    _meta,
    Column("model", String, primary_key=True),
    Column("model_version", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("start", Float, primary_key=True),
    Column("end", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("verdict", String, nullable=False),
    Column("status", String, nullable=False),
    Column("reference", String, nullable=False),
    Column("detail", Text, nullable=False),
    Index("drift_windows_by_end", "model", "end"),
)

verdicts = Table(
    "drift_verdicts",
    _meta,
    Column("model", String, primary_key=True),
    Column("model_version", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("start", Float, primary_key=True),
    Column("feature", String, primary_key=True),
    Column("statistic", String, primary_key=True),
    Column("end", Float, nullable=False),
    Column("verdict", String, nullable=False),
    Column("status", String, nullable=False),
    Column("value", Float),
    Column("threshold", Float),
    Column("p_value", Float),
    Column("rows", Integer, nullable=False),
    Column("reference", String, nullable=False),
    Column("detail", Text, nullable=False),
    Index("drift_verdicts_by_feature", "model", "feature", "end"),
)

breaches = Table(
    "drift_breaches",
    _meta,
    Column("model", String, primary_key=True),
    Column("feature", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("status", String, primary_key=True),
    Column("since", Float, primary_key=True),
    Column("model_version", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("windows", Integer, nullable=False),
    Column("detail", Text, nullable=False),
)

notes = Table(
    "drift_notes",
    _meta,
    # What is off and why, by the reference in force; rewritten when `serve` starts.
    Column("model", String, primary_key=True),
    Column("feature", String, primary_key=True),
    Column("check", String, primary_key=True),
    Column("reference", String, nullable=False),
    Column("text", Text, nullable=False),
)

totals = Table(
    "drift_totals",
    _meta,
    # What the exported counters have counted since ever, kept with the windows that they count: a counter
    # that began again at zero would lose what nobody had scraped yet.
    Column("metric", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("part", String, primary_key=True),
    Column("result", String, primary_key=True),
    Column("value", Float, nullable=False),
)

predictions = Table(
    "drift_predictions",
    _meta,
    # Of models with a model_quality objective: scores that wait for their truth, or have it.
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("prediction_id", String, nullable=False, index=True),
    Column("event_time", Float, nullable=False),
    Column("score", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("label", Float),
    Column("label_time", Float),
    Index("drift_predictions_by_time", "model", "event_time"),
)

early_labels = Table(
    "drift_early_labels",
    _meta,
    # Labels that came before their record.
    Column("prediction_id", String, primary_key=True),
    Column("label", Float, nullable=False),
    Column("label_time", Float, nullable=False),
)


arrivals = Table(
    "drift_arrivals",
    _meta,
    # Of each model the newest event time, for how old the newest row is.
    Column("model", String, primary_key=True),
    Column("newest", Float, nullable=False),
)


def _truth(connection: Connection) -> None:
    predictions.create(connection)
    early_labels.create(connection)


SCHEMA = Schema("drift", 4, _meta, {2: totals.create, 3: _truth, 4: arrivals.create})
