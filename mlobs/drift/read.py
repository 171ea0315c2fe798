"""What the drift stage has to say, for the web page, the command line and the pages: plain values out of the
store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from mlobs.drift import tables
from mlobs.drift.keep import verdict_of
from mlobs.drift.verdicts import EVERY
from mlobs.records import Breach, Verdict
from mlobs.store import Store


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A closed window of one stream."""

    model: str
    model_version: str
    segment: str
    start: float
    end: float
    rows: int
    verdict: str
    status: str
    reference: str
    detail: str


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One feature in one window: `ok`, `drifted`, `insufficient`, `absent`, and why."""

    verdict: str
    status: str
    detail: str
    score: float | None
    """PSI against the reference, corrected for chance; exported, judges nothing."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Verdicts of a model by feature and window: `cells[f][w]` belongs to `features[f]` and `windows[w]`."""

    model: str
    windows: tuple[WindowRow, ...]
    features: tuple[str, ...]
    cells: tuple[tuple[HeatCell | None, ...], ...]
    notes: dict[tuple[str, str], str]
    """Checks that are off, by (feature, check), with the reason."""


@dataclass(frozen=True, slots=True)
class BreachRow:
    """A breach with its history; open while `closed_at` is None."""

    breach: Breach
    model_version: str
    opened_at: float
    closed_at: float | None
    windows: int


@dataclass(frozen=True, slots=True)
class FeatureCause:
    """One feature that explains an incident."""

    feature: str
    segment: str
    check: str
    value: float | None
    threshold: float | None
    windows_broken: int
    detail: str
    first_window_start: float


def models(store: Store) -> list[str]:
    """Models with a closed window or a note, sorted."""
    with store.read() as connection:
        seen = set(connection.execute(select(tables.windows.c.model).distinct()).scalars())
        return sorted(seen | set(connection.execute(select(tables.notes.c.model).distinct()).scalars()))


def windows(store: Store, model: str, last: int = 60, segment: str = "") -> list[WindowRow]:
    """The last windows of a model, oldest first; every version."""
    table = tables.windows
    with store.read() as connection:
        rows = connection.execute(
            select(table)
            .where(table.c.model == model, table.c.segment == segment)
            .order_by(table.c.start.desc(), table.c.model_version)
            .limit(last)
        ).all()
    return [WindowRow(*row) for row in reversed(rows)]


def heat_map(store: Store, model: str, last: int = 60, segment: str = "") -> HeatMap:
    """Verdicts by feature and window over the last windows; features in alphabetical order."""
    found = windows(store, model, last, segment)
    table = tables.verdicts
    with store.read() as connection:
        notes = {
            (row.feature, row.check): row.text
            for row in connection.execute(select(tables.notes).where(tables.notes.c.model == model))
        }
        rows: Sequence[object] = []
        if found:
            rows = connection.execute(
                select(table).where(
                    table.c.model == model, table.c.segment == segment, table.c.end > found[0].start
                )
            ).all()
    by_place: dict[tuple[str, float, str], list[Verdict]] = {}
    for row in rows:
        one = verdict_of(row)
        for place in _places(one, found):
            by_place.setdefault(place, []).append(one)
    features = tuple(sorted({feature for feature, _, _ in by_place}))
    cells = tuple(
        tuple(_cell(by_place.get((feature, w.start, w.model_version), []), w) for w in found)
        for feature in features
    )
    return HeatMap(model, tuple(found), features, cells, notes)


def _places(one: Verdict, windows: Sequence[WindowRow]) -> list[tuple[str, float, str]]:
    """(feature, window, version) that the verdict is said of; of all versions where it is of their traffic,
    in every window that it reaches into."""
    if one.model_version != EVERY:
        return [(one.feature, one.window_start, one.model_version)]
    return [
        (one.feature, window.start, window.model_version)
        for window in windows
        if one.window_start < window.end and one.window_end > window.start
    ]


def scores(store: Store, model: str, start: float, end: float, feature: str | None = None) -> list[Verdict]:
    """Everything said of the windows within `[start, end]`: scores and failed checks, in order of time."""
    table = tables.verdicts
    where = [table.c.model == model, table.c.start >= start, table.c.end <= end]
    if feature is not None:
        where.append(table.c.feature == feature)
    with store.read() as connection:
        rows = connection.execute(
            select(table).where(*where).order_by(table.c.start, table.c.feature, table.c.statistic)
        ).all()
    return [verdict_of(row) for row in rows]


def breaches(store: Store, model: str | None = None, since: float | None = None) -> list[BreachRow]:
    """Breaches, newest first; with `since`, those that were open at that time or later."""
    table = tables.breaches
    where = [] if model is None else [table.c.model == model]
    if since is not None:
        where.append(table.c.closed_at.is_(None) | (table.c.closed_at >= since))
    with store.read() as connection:
        rows = connection.execute(select(table).where(*where).order_by(table.c.opened_at.desc())).all()
    return [
        BreachRow(_breach(row), row.model_version, row.opened_at, row.closed_at, row.windows) for row in rows
    ]


def current_breaches(connection: Connection) -> list[Breach]:
    """What is broken now. A segment is named only where the whole of its model is not, and was not, broken
    alike since the segment broke: its windows are smaller and heal later."""
    rows = connection.execute(select(tables.breaches)).all()
    whole: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if not row.segment:
            key = (row.model, row.feature, row.status)
            whole[key] = max(whole.get(key, 0.0), float("inf") if row.closed_at is None else row.closed_at)
    return [
        _breach(row)
        for row in sorted(rows, key=lambda row: (row.since, row.model, row.feature, row.segment, row.status))
        if row.closed_at is None
        and (not row.segment or whole.get((row.model, row.feature, row.status), 0.0) < row.since)
    ]


def explain(store: Store, model: str, since: float, until: float) -> list[FeatureCause]:
    """What explains an incident on `model` between `since` and `until`: failed checks, the most broken first.

    A segment is named only where the check does not fail on the whole.
    """
    table = tables.verdicts
    with store.read() as connection:
        rows = connection.execute(
            select(table)
            .where(
                table.c.model == model,
                table.c.verdict == "drifted",
                table.c.end > since,
                table.c.start < until,
            )
            .order_by(table.c.start)
        ).all()
    found: dict[tuple[str, str, str], list[Verdict]] = {}
    for row in rows:
        one = verdict_of(row)
        found.setdefault((one.feature, one.segment, one.status), []).append(one)
    whole = {(feature, check) for feature, segment, check in found if not segment}
    causes = [
        FeatureCause(
            feature, segment, check, seen[-1].value, seen[-1].threshold, len(seen), seen[-1].detail,
            seen[0].window_start,
        )
        for (feature, segment, check), seen in found.items()
        if not segment or (feature, check) not in whole
    ]  # fmt: skip
    return sorted(
        causes,
        key=lambda c: (-c.windows_broken, -((c.value or 0.0) - (c.threshold or 0.0)), c.feature, c.segment),
    )


def _cell(found: list[Verdict], window: WindowRow) -> HeatCell | None:
    if not found:
        return None
    score = next((one.value for one in found if one.statistic == "psi"), None)
    failed = [one for one in found if one.verdict == "drifted"]
    if failed:
        worst = max(failed, key=lambda one: (one.value or 0.0) - (one.threshold or 0.0))
        return HeatCell("drifted", worst.status, "; ".join(one.detail for one in failed), score)
    if window.verdict == "insufficient":
        return HeatCell("insufficient", window.status, window.detail, score)
    if all(one.verdict == "absent" for one in found):
        return HeatCell("absent", found[0].status, found[0].detail or "no value in this window", None)
    return HeatCell("ok", "ok", "", score)


def _breach(row: object) -> Breach:
    get = row._mapping  # type: ignore[attr-defined]
    return Breach(
        get["model"],
        get["feature"],
        get["segment"],
        get["severity"],
        get["since"],
        get["status"],
        get["detail"],
    )
