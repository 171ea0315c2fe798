"""Ground truth in the drift stage: predictions wait for their labels, and days of predictions are measured.

Only models with a `model_quality` objective are kept. Rows stand in the stage's own tables and are written in
the transaction of the cursor, so each record and label counts once. A measure belongs to the UTC day in which
the predictions were made, whenever their labels came: exported is the newest day of which enough is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from mlobs import names
from mlobs.drift import tables
from mlobs.records import BY_ENTITY, draw_of
from mlobs.settings import Settings
from mlobs.stats.quality import quality

DAY: Final = 86400.0
KEPT_DAYS: Final = 60
LEAST_LABELLED: Final = 100
MATURE: Final = 0.8
"""Share of a day's predictions, by weight, that must have a label before the day is measured."""
AGES: Final = (("1h", 3600.0), ("1d", DAY), ("7d", 7 * DAY), ("30d", 30 * DAY))
_MANY = 500


class Truth:
    """One per drift stage; `take` within its transaction, `measure` after it."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        asked = [one.model for one in settings.slo.objectives if one.sli.kind == "model_quality"]
        named = [model.name for model in settings.models]
        self.models = frozenset(named if "" in asked else asked)
        rates = [settings.sample, *(model.sample or 0.0 for model in settings.models)]
        by_entity = BY_ENTITY in (settings.sample_by, *(model.sample_by for model in settings.models))
        # Drawn by entity, a label's id says nothing of whether its record may still come: all wait.
        self._limit = 2**32 if by_entity else round(max(rates) * 2**32)
        self._thresholds = {model.name: model.decision_threshold for model in settings.models}
        self._quality = Gauge(
            names.MODEL_QUALITY,
            "Of the newest day of predictions of which enough labels are known.",
            [names.MODEL, names.METRIC],
            registry=registry,
        )
        self._day = Gauge(
            names.MODEL_QUALITY_DAY,
            "Start of the day of predictions that the quality is of.",
            [names.MODEL],
            registry=registry,
        )
        self._maturity = Gauge(
            names.LABEL_MATURITY,
            "Share of the predictions up to that age that have a label, weighted.",
            [names.MODEL, names.WINDOW],
            registry=registry,
        )

    def take(self, connection: Connection, records: Mapping[str, pa.Table], labels: pa.Table | None) -> None:
        """Remember new predictions and give labels to those that wait for one."""
        for model in self.models & records.keys():
            rows = list(_predictions(model, records[model]))
            if rows:
                connection.execute(insert(tables.predictions), rows)
                early = _labels_of(connection, [row["prediction_id"] for row in rows])
                _apply(connection, early.items())
        if self.models and labels is not None and len(labels):
            self._take_labels(connection, labels)

    def _take_labels(self, connection: Connection, labels: pa.Table) -> None:
        told: dict[str, tuple[float, float]] = {}
        columns = (labels.column(name).to_pylist() for name in ("prediction_id", "label", "event_time"))
        for ident, value, at in zip(*columns, strict=True):
            number = _number(value)
            when = at if at is not None else -math.inf
            if ident is not None and number is not None and when >= told.get(ident, (0.0, -math.inf))[1]:
                told[ident] = (number, when)
        known = _known(connection, list(told))
        _apply(connection, ((ident, told[ident]) for ident in known))
        # Ids that hash out at every rate were never kept; of the others the record may still come.
        waiting: list[dict[str, Any]] = [
            {"prediction_id": ident, "label": value, "label_time": at}
            for ident, (value, at) in told.items()
            if ident not in known and draw_of(ident) < self._limit
        ]
        before = _labels_of(connection, [str(row["prediction_id"]) for row in waiting])
        for row in waiting:
            value, at = before.get(str(row["prediction_id"]), (0.0, -math.inf))
            if at > float(row["label_time"]):
                row["label"], row["label_time"] = value, at
        if waiting:
            connection.execute(insert(tables.early_labels), waiting)

    def prune(self, connection: Connection, now: float) -> None:
        oldest = now - KEPT_DAYS * DAY
        connection.execute(delete(tables.predictions).where(tables.predictions.c.event_time < oldest))
        connection.execute(delete(tables.early_labels).where(tables.early_labels.c.label_time < oldest))

    def measure(self, connection: Connection, now: float) -> None:
        """Set the gauges from what is known at `now`."""
        for model in self.models:
            rows = _rows_of(connection, model, now)
            if not len(rows["time"]):
                continue
            self._mature(model, rows, now)
            day = newest_mature_day(rows)
            if day is None:
                continue
            known = (np.floor(rows["time"] / DAY) == day) & ~np.isnan(rows["label"])
            found = quality(
                rows["score"][known], rows["label"][known], rows["weight"][known], self._thresholds.get(model)
            )
            for metric, value in found.items():
                self._quality.labels(model, metric).set(value)
            self._day.labels(model).set(day * DAY)

    def _mature(self, model: str, rows: Mapping[str, Any], now: float) -> None:
        for name, age in AGES:
            own = rows["time"] > now - age
            weight = float(rows["weight"][own].sum())
            if weight > 0:
                done = float(rows["weight"][own & ~np.isnan(rows["label"])].sum())
                self._maturity.labels(model, name).set(done / weight)


def newest_mature_day(rows: Mapping[str, Any]) -> int | None:
    """The last day since the epoch with enough labels and a large enough share of them."""
    days = np.floor(rows["time"] / DAY).astype(np.int64)
    known = ~np.isnan(rows["label"])
    for day in np.unique(days)[::-1].tolist():
        own = days == day
        weight = rows["weight"][own].sum()
        if np.count_nonzero(own & known) < LEAST_LABELLED or weight <= 0:
            continue
        if rows["weight"][own & known].sum() >= MATURE * weight:
            return int(day)
    return None


def _predictions(model: str, records: pa.Table) -> Iterator[dict[str, Any]]:
    columns = (
        records.column(name).to_pylist() for name in ("prediction_id", "event_time", "prediction", "weight")
    )
    for ident, at, value, weight in zip(*columns, strict=True):
        score = _number(value)
        if ident is not None and at is not None and math.isfinite(at) and score is not None:
            row = {"model": model, "prediction_id": ident, "event_time": at, "score": score}
            yield {**row, "weight": 1.0 if weight is None else weight, "label": None, "label_time": None}


def _number(value: Any) -> float | None:
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(value)


def _pieces(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _MANY):
        yield ids[start : start + _MANY]


def _known(connection: Connection, ids: list[str]) -> set[str]:
    column = tables.predictions.c.prediction_id
    return {
        row.prediction_id
        for part in _pieces(ids)
        for row in connection.execute(select(column).where(column.in_(part)))
    }


def _labels_of(connection: Connection, ids: list[str]) -> dict[str, tuple[float, float]]:
    """The early labels of these ids, which leave their table."""
    table = tables.early_labels
    found = {}
    for part in _pieces(ids):
        for row in connection.execute(select(table).where(table.c.prediction_id.in_(part))):
            found[row.prediction_id] = (row.label, row.label_time)
        connection.execute(delete(table).where(table.c.prediction_id.in_(part)))
    return found


def _apply(connection: Connection, told: Iterable[tuple[str, tuple[float, float]]]) -> None:
    """The latest label by its own time counts, whatever the order in which they come."""
    table = tables.predictions
    rows = [{"ident": ident, "value": value, "at": at} for ident, (value, at) in told]
    if rows:
        newer = (table.c.label_time.is_(None)) | (table.c.label_time <= bindparam("at"))
        connection.execute(
            update(table)
            .where(table.c.prediction_id == bindparam("ident"), newer)
            .values(label=bindparam("value"), label_time=bindparam("at")),
            rows,
        )


def _rows_of(connection: Connection, model: str, now: float) -> dict[str, Any]:
    table = tables.predictions
    asked = select(table.c.event_time, table.c.score, table.c.weight, table.c.label).where(
        table.c.model == model, table.c.event_time > now - KEPT_DAYS * DAY
    )
    rows = connection.execute(asked).all()
    whole = np.array([tuple(row) for row in rows], dtype=float).reshape(-1, 4)
    return {name: whole[:, place] for place, name in enumerate(("time", "score", "weight", "label"))}
