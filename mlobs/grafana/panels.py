"""Grafana panels as plain dicts, in the classic dashboard schema: what one looks like, not what it asks.

Absent data is drawn as absent: lines are not joined over a gap and an empty panel says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
GOOD, WARN, BAD, NONE = "green", "orange", "red", "text"
NO_DATA: Final = "no data"
_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` on (None: from the start) it is `color`."""

    value: float | None
    color: str


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[Json]:
    return [
        {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "instant": instant,
            "legendFormat": query.legend,
            "range": not instant,
            "refId": chr(ord("A") + place),
        }
        for place, query in enumerate(queries)
    ]


def _thresholds(steps: Sequence[Step]) -> Json:
    return {"mode": "absolute", "steps": [{"value": step.value, "color": step.color} for step in steps]}


def _panel(
    kind: str, title: str, size: Size, queries: Sequence[Query], defaults: Json, options: Json, **more: Any
) -> Json:
    return {
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": size.height, "w": size.width, "x": 0, "y": 0},
        "targets": _targets(queries),
        "fieldConfig": {"defaults": {"noValue": NO_DATA, **defaults}, "overrides": []},
        "options": options,
        **more,
    }


_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}


def lines(
    title: str,
    size: Size,
    queries: Sequence[Query],
    unit: str,
    *,
    about: str = "",
    limits: Sequence[Step] = (),
    stacked: bool = False,
    least: float | None = 0,
) -> Json:
    """Lines over time; `limits` are drawn as dashed lines."""
    defaults: Json = {
        "unit": unit,
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 2,
            "fillOpacity": 25 if stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if limits else "off"},
        },
    }
    if limits:
        defaults["thresholds"] = _thresholds([Step(None, "transparent"), *limits])
    if least is not None:
        defaults["min"] = least
    options = {"legend": _LEGEND, "tooltip": _TOOLTIP}
    return _panel("timeseries", title, size, queries, defaults, options, description=about)


def figures(
    title: str, size: Size, queries: Sequence[Query], unit: str, steps: Sequence[Step], about: str
) -> Json:
    """One figure a series, coloured by `steps`."""
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": _thresholds(steps)}
    options = {
        "graphMode": "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "value_and_name",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel("stat", title, size, queries, defaults, options, description=about)


def history(title: str, size: Size, queries: Sequence[Query], steps: Sequence[Step], about: str) -> Json:
    """A row a series and a cell a moment, coloured by `steps`: a heat map with names."""
    defaults = {
        "unit": "none",
        "decimals": 1,
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(steps),
        "custom": {"fillOpacity": 85, "lineWidth": 0},
    }
    options = {"rowHeight": 0.9, "colWidth": 0.9, "showValue": "auto", "legend": _LEGEND, "tooltip": _TOOLTIP}
    return _panel(
        "status-history", title, size, queries, defaults, options, description=about, maxDataPoints=60
    )


def states(
    title: str, size: Size, queries: Sequence[Query], words: Mapping[str, tuple[str, str]], about: str
) -> Json:
    """A row a series with its states as bars; `words` gives each value its text and colour."""
    mapping = {
        value: {"text": text, "color": color, "index": place}
        for place, (value, (text, color)) in enumerate(words.items())
    }
    defaults = {
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds([Step(None, NONE)]),
        "mappings": [{"type": "value", "options": mapping}],
        "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False},
    }
    options = {
        "alignValue": "left",
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "auto",
        "legend": _LEGEND,
        "tooltip": _TOOLTIP,
    }
    return _panel("state-timeline", title, size, queries, defaults, options, description=about)


def row(title: str) -> Json:
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": 0},
        "panels": [],
    }


def laid_out(panels: Sequence[Json]) -> list[Json]:
    """The panels with ids and places: left to right, a new line where one does not fit or a row begins."""
    placed, x, y, line = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > _WIDTH or panel["type"] == "row":
            x, y, line = 0, y + line, 0
        placed.append({"id": number, **panel, "gridPos": {"h": height, "w": width, "x": x, "y": y}})
        x, line = x + width, max(line, height)
    return placed
