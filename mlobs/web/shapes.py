"""From view values to what is drawn: the heat map's cells, the waterfall's bars, the head line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mlobs.records import FeatureRecord
from mlobs.web import words
from mlobs.web.model import (
    ABSENT,
    BURNING,
    DRIFTED,
    EXHAUSTED,
    INSUFFICIENT,
    LOW_TRAFFIC,
    OK,
    SLO_STATES,
    YOUNG,
    DriftCell,
    DriftRow,
    DriftView,
    IncidentView,
    SloView,
)

SCORE_STEPS: Final = (0.1, 0.25, 0.5, 1.0, 3.0)
"""Shades of the score map: below 0.1 is noise to most, 0.25 the customary alarm; beyond it wider steps."""


WHOLE: Final = "whole window"


@dataclass(frozen=True, slots=True)
class HeatCell:
    css: str
    mark: str
    """Two or three characters that say the same as the colour."""
    text: str
    """The whole sentence, for a pointer, a finger or a screen reader."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`rows`: (feature, note, cells); `columns`: (day or time, whole window); `groups`: (name, how many)."""

    columns: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, int], ...]
    rows: tuple[tuple[str, str, tuple[HeatCell, ...]], ...]
    left_out: int = 0
    """Features that are not among the rows."""


def verdict_map(view: DriftView, zone: str, most: int | None = None) -> HeatMap:
    """The verdicts of a model, the worst features first; features with nothing to say keep their order.

    `most` leaves out what lies beyond so many features, but none that has drifted or has no data.
    """
    rows = sorted(view.rows, key=_trouble, reverse=True)
    if most is not None:
        rows = rows[: max(most, sum(_trouble(row) > (0, 0) for row in rows))]
    left_out = len(view.rows) - len(rows)
    if any(cell is not None for cell in view.whole):
        rows.insert(0, DriftRow(WHOLE, view.whole))
    spans = [words.window(*span, zone) for span in view.windows]
    return HeatMap(
        *_columns(view, zone),
        tuple(
            (
                row.feature,
                row.off,
                tuple(
                    _verdict_cell(row, cell, span)
                    for cell, span in zip(_padded(row, view), spans, strict=True)
                ),
            )
            for row in rows
        ),
        left_out,
    )


def within(view: DriftView, start: float, end: float) -> DriftView:
    """The windows of `view` that overlap `[start, end]`, and the five before them to compare with."""
    touched = [place for place, (begins, ends) in enumerate(view.windows) if begins < end and ends > start]
    if not touched:
        return view
    part = slice(max(0, touched[0] - 5), touched[-1] + 1)
    return replace(
        view,
        windows=view.windows[part],
        whole=view.whole[part],
        rows=tuple(replace(row, cells=row.cells[part], scores=row.scores[part]) for row in view.rows),
    )


def score_map(view: DriftView, zone: str) -> HeatMap | None:
    """The distribution scores, the largest first; None when no feature has one."""
    rows = [row for row in view.rows if any(words.known(score) for score in row.scores)]
    if not rows:
        return None
    rows.sort(key=lambda row: max(score or 0.0 for score in row.scores), reverse=True)
    spans = [words.window(*span, zone) for span in view.windows]
    statistic = view.statistic.upper() if len(view.statistic) <= 3 else view.statistic
    return HeatMap(
        *_columns(view, zone),
        tuple(
            (
                row.feature,
                "",
                tuple(
                    _score_cell(row.feature, score, span, statistic)
                    for score, span in zip(_filled(row.scores, len(spans)), spans, strict=True)
                ),
            )
            for row in rows
        ),
    )


def _filled(scores: Sequence[float | None], length: int) -> tuple[float | None, ...]:
    return tuple(scores[:length]) + (None,) * (length - len(scores))


def _padded(row: DriftRow, view: DriftView) -> tuple[DriftCell | None, ...]:
    length = len(view.windows)
    return row.cells[:length] + (None,) * (length - len(row.cells))


def _trouble(row: DriftRow) -> tuple[int, int]:
    verdicts = [cell.verdict for cell in row.cells if cell is not None]
    return verdicts.count(DRIFTED), verdicts.count(ABSENT)


def _columns(view: DriftView, zone: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, int], ...]]:
    """Short label and whole window of each column; above them the month, or the day for shorter windows."""
    columns: list[tuple[str, str]] = []
    groups: list[tuple[str, int]] = []
    for start, end in view.windows:
        day, time = words.short_moment(start, zone).split(", ")
        whole_days = time == "00:00" and end - start > 82_000
        label, group = (day.split()[0], day.split()[1]) if whole_days else (time, day)
        columns.append((label, words.window(start, end, zone)))
        if groups and groups[-1][0] == group:
            groups[-1] = (group, groups[-1][1] + 1)
        else:
            groups.append((group, 1))
    return tuple(columns), tuple(groups)


def _verdict_cell(row: DriftRow, cell: DriftCell | None, span: str) -> HeatCell:
    if cell is None:
        if row.off:
            return HeatCell("off", "", f"{row.feature}, {span}: nothing said; off: {row.off}")
        return HeatCell("off", "", f"{row.feature}, {span}: nothing said")
    mark = {OK: "", DRIFTED: "!", INSUFFICIENT: "·", ABSENT: "–"}.get(cell.verdict, "?")
    if cell.verdict == DRIFTED and cell.value is not None and cell.statistic.startswith("check:"):
        mark = f"{cell.value * 100:.0f}"
    return HeatCell(
        cell.verdict if cell.verdict in words.STATE_WORDS else "none", mark, _sentence(row, cell, span)
    )


def _sentence(row: DriftRow, cell: DriftCell, span: str) -> str:
    text = f"{row.feature}, {span}: {words.state(cell.verdict)}"
    if cell.status and cell.status != cell.verdict:
        text += f" ({cell.status.replace('_', ' ')})"
    if cell.detail:
        text += f". {cell.detail}"
    elif words.known(cell.value):
        shown = words.percent if cell.statistic.startswith("check:") else words.number
        text += f". {cell.statistic.removeprefix('check:')} {shown(cell.value)}"
        if words.known(cell.threshold):
            text += f", allowed {shown(cell.threshold)}"
    if cell.rows is not None:
        text += f" · {words.count(cell.rows)} rows"
    return text


def _score_cell(feature: str, score: float | None, span: str, statistic: str) -> HeatCell:
    if not words.known(score) or score is None:
        return HeatCell("none", "", f"{feature}, {span}: {words.UNKNOWN}")
    level = sum(score >= step for step in SCORE_STEPS)
    mark = f"{score:.0f}" if score >= 9.95 else f"{score:.1f}" if score >= 0.095 else ""
    return HeatCell(f"level{level}", mark, f"{feature}, {span}: {statistic} {words.number(score)}")


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the waterfall, in thousandths of the whole call."""

    name: str
    start: float
    width: float
    duration: str
    share: str
    css: str


def waterfall(call: FeatureRecord) -> tuple[Bar, ...]:
    """The call and its stages, one after another; what lies in no stage comes last.

    The record keeps how long each stage took and their order, not when each began: stages that ran side
    by side can sum to more than the call, and are then drawn to the scale of their sum.
    """
    inside = sum(max(0.0, seconds) for seconds in call.stage_durations_s.values())
    whole = max(call.duration_s, inside)
    if not words.known(whole) or whole <= 0:
        return ()

    def bar(name: str, start: float, seconds: float, css: str) -> Bar:
        share = words.percent(seconds / whole, 0)
        begin = min(start / whole * 1000, 998.0)  # the last one is seen even if it took no time
        return Bar(name, begin, seconds / whole * 1000, words.duration(seconds), share, css)

    bars = [bar("whole call", 0.0, call.duration_s, "whole")]
    start = 0.0
    slowest = max(call.stage_durations_s.values(), default=0.0)
    for name, seconds in call.stage_durations_s.items():
        length = max(0.0, seconds)
        bars.append(bar(name, start, length, "slowest" if seconds == slowest else "stage"))
        start += length
    if bars[1:] and call.duration_s - inside > 0.001 * whole:
        bars.append(bar("outside stages", start, call.duration_s - inside, "rest"))
    return tuple(bars)


@dataclass(frozen=True, slots=True)
class Headline:
    css: str
    text: str
    more: str = ""


def headline(slos: Sequence[SloView], incidents: Sequence[IncidentView], ticked: bool) -> Headline:
    """The one line that says how things are. Never good news without data."""
    opened = [incident for incident in incidents if incident.is_open]
    states = count_states(slos)
    budgets = _budget_words(states, len(slos))
    if opened:
        pages = sum(incident.severity == "page" for incident in opened)
        noun = "incident" if len(opened) == 1 else "incidents"
        css = "bad" if pages else "warn"
        return Headline(css, f"{len(opened)} {noun} open", budgets)
    if not ticked:
        return Headline("none", "Nothing evaluated yet", "The first figures come with the first tick.")
    if not slos:
        return Headline("none", "No objectives", "Add some under slo.objectives in mlobs.yaml.")
    if states[BURNING]:
        return Headline("warn", "No incident open, but budget is burning", budgets)
    if states[EXHAUSTED]:
        return Headline("warn", "No incident open, but budget is spent", budgets)
    if states[ABSENT] == len(slos):
        return Headline("none", "No data", "No objective has data to be judged by.")
    if states[ABSENT]:
        return Headline("warn", "No incident open, some objectives have no data", budgets)
    if states[OK] < len(slos):
        return Headline("none", "No incident open", budgets)
    return Headline("good", "All quiet", budgets)


def count_states(slos: Sequence[SloView]) -> Mapping[str, int]:
    return {state: sum(slo.state == state for slo in slos) for state in SLO_STATES}


def _budget_words(states: Mapping[str, int], total: int) -> str:
    if not total:
        return ""
    parts = [f"{states[OK]} of {total} {'objective' if total == 1 else 'objectives'} ok"]
    parts += [
        f"{states[state]} {words.state(state)}"
        for state in (BURNING, EXHAUSTED, ABSENT, LOW_TRAFFIC, YOUNG)
        if states[state]
    ]
    return ", ".join(parts)


def ranked(slos: Sequence[SloView]) -> list[SloView]:
    """Those to look at first, first; within a state as configured: rows must not jump while people read."""
    order = {state: place for place, state in enumerate(SLO_STATES)}
    return sorted(
        slos,
        key=lambda slo: order.get(slo.state, 0),
    )
