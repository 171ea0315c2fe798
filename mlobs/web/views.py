"""The read models of the stages as view values. Every call reads the store anew: nothing here grows old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from prometheus_client import CollectorRegistry

from mlobs.drift import read as drift_read
from mlobs.durations import format_duration
from mlobs.notify import read as notify_read
from mlobs.objectives import parse_objective
from mlobs.records import FeatureRecord, Ledger, Verdict
from mlobs.secret import without_password
from mlobs.settings import ObjectiveSettings, Settings
from mlobs.slices import DAY
from mlobs.slo import read as slo_read
from mlobs.store import Store
from mlobs.web import words
from mlobs.web.ledgers import ledgers
from mlobs.web.model import (
    BudgetPoint,
    BurnView,
    CallLink,
    Detail,
    DriftCell,
    DriftRow,
    DriftView,
    IncidentView,
    PageView,
    SloView,
    StatusView,
    TargetView,
    TimelineEntry,
)

FindCall = Callable[[str, float | None], FeatureRecord | None]

_HISTORY_POINTS = 300
_SLICE_NAMES = {60.0: "minutes", 3600.0: "hours", float(DAY): "days", 7.0 * DAY: "weeks"}
_SELF = "self"
_COUNTED_IN_DRIFT_WINDOWS = frozenset({"drift"})


class StoreViews:
    """Views over the state store, and over the registry for the pipelines of this process."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: CollectorRegistry,
        find_call: FindCall | None = None,
        now: Callable[[], float | None] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._find_call = find_call
        self._now = now

    # -- the head ---------------------------------------------------------------------------------------

    def status(self) -> StatusView:
        settings = self._settings
        return StatusView(
            settings.service, settings.environment, settings.clock, zone_of(settings), self._reached()
        )

    def _reached(self) -> float | None:
        """The event time of the last evaluation, or of the last scrape where nothing is to be evaluated; what
        was handed in may know of a later tick."""
        told = self._now() if self._now is not None else None
        times = [status.at for status in slo_read.statuses(self._store, points=1)]
        times = times or [target.last_scrape for target in slo_read.targets(self._store)]
        return max([*times, *([told] if told is not None else [])], default=None)

    def targets(self) -> Sequence[TargetView]:
        """What is scraped, the process's own registry aside."""
        return [
            TargetView(without_password(target.name), target.up, target.last_scrape or None, target.error)
            for target in slo_read.targets(self._store)
            if target.name != _SELF
        ]

    # -- objectives -------------------------------------------------------------------------------------

    def slos(self) -> Sequence[SloView]:
        """In the order of the configuration; an objective that was never evaluated is absent."""
        found = {status.name: status for status in slo_read.statuses(self._store, points=_HISTORY_POINTS)}
        incidents = self._incident_of_objective()
        return [
            slo_view(objective, self._settings, found.get(objective.name), incidents.get(objective.name))
            for objective in self._settings.slo.objectives
        ]

    def _incident_of_objective(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in notify_read.incidents(self._store, self._settings, state="open", limit=20):
            story = notify_read.incident(self._store, self._settings, row.id)
            for burn in story.page.burns if story is not None else ():
                found.setdefault(burn.name, row.id)
        return found

    # -- drift ------------------------------------------------------------------------------------------

    def drift(self, windows: int) -> Sequence[DriftView]:
        """A view for each model version that has one of the last windows, the newest version first."""
        return [
            view for model in drift_read.models(self._store) for view in self._model_drift(model, windows)
        ]

    def _model_drift(self, model: str, windows: int) -> list[DriftView]:
        heat = drift_read.heat_map(self._store, model, windows)
        if not heat.windows:
            return []
        said = drift_read.scores(self._store, model, heat.windows[0].start, heat.windows[-1].end)
        versions = dict.fromkeys(window.model_version for window in reversed(heat.windows))
        return [drift_view(heat, said, version) for version in versions]

    # -- incidents --------------------------------------------------------------------------------------

    def incidents(self) -> Sequence[IncidentView]:
        return [incident_row(row) for row in notify_read.incidents(self._store, self._settings)]

    def incident(self, key: str) -> IncidentView | None:
        story = notify_read.incident(self._store, self._settings, key)
        return incident_story(story) if story is not None else None

    # -- the rest ---------------------------------------------------------------------------------------

    def call(self, key: str, at: float | None) -> FeatureRecord | None:
        return self._find_call(key, at) if self._find_call is not None else None

    def pipelines(self) -> Sequence[Ledger]:
        return ledgers(self._registry.collect())


def zone_of(settings: Settings) -> str:
    """The zone in which times are told: that of the slices, which people configured to think in."""
    return settings.slo.zone if settings.slo.zone != "UTC" else settings.drift.zone


def slice_name(length: float) -> str:
    return _SLICE_NAMES.get(length, f"slices of {format_duration(Decimal(str(length)))}")


def slo_view(
    objective: ObjectiveSettings, settings: Settings, status: slo_read.SloStatus | None, incident: str | None
) -> SloView:
    if status is None:
        threshold, sliced = objective.sli.threshold, objective.sli.kind in ("p99", "drift")
        return SloView(
            objective.name,
            objective.model,
            objective.sli.kind,
            objective.objective,
            objective.period,
            "absent",
            threshold_s=None if threshold is None else float(threshold),
            calendar=objective.calendar,
            description=objective.description,
            reason="not evaluated yet",
            unit=_unit("slices" if sliced else "requests", objective, settings),
        )
    return SloView(
        status.name,
        status.model,
        status.kind,
        parse_objective(status.objective),
        status.period_s,
        status.state,
        threshold_s=status.threshold_s,
        calendar=status.calendar,
        description=status.description,
        reason=status.reason,
        severity=status.firing,
        bad=status.bad,
        total=status.total,
        unit=_unit(status.unit, objective, settings),
        remaining=status.remaining,
        exhausted_at=status.exhausted_at,
        since=status.since,
        burn=burn_views(objective, settings, status),
        history=tuple(BudgetPoint(at, left) for at, left in status.history),
        incident=incident,
    )


def _unit(unit: str, objective: ObjectiveSettings, settings: Settings) -> str:
    if unit != "slices":
        return unit
    by_window = objective.sli.kind in _COUNTED_IN_DRIFT_WINDOWS
    return slice_name(settings.drift.window if by_window else settings.slo.slice)


def burn_views(
    objective: ObjectiveSettings, settings: Settings, status: slo_read.SloStatus
) -> tuple[BurnView, ...]:
    def rate(length: float) -> float | None:
        return status.burn_rates.get(format_duration(Decimal(str(length))))

    return tuple(
        BurnView(tier.severity, tier.long, tier.short, float(tier.factor), rate(tier.long), rate(tier.short))
        for tier in slo_read.tiers(objective, settings.slo)
    )


def drift_view(heat: drift_read.HeatMap, said: Sequence[Verdict], version: str) -> DriftView:
    places = [place for place, window in enumerate(heat.windows) if window.model_version == version]
    windows = [heat.windows[place] for place in places]
    worst: dict[tuple[str, float], Verdict] = {}
    for one in said:
        if one.model_version == version and not one.segment and one.verdict == "drifted":
            known = worst.get((one.feature, one.window_start))
            if known is None or _excess(one) > _excess(known):
                worst[one.feature, one.window_start] = one
    rows = []
    for feature, cells in zip(heat.features, heat.cells, strict=True):
        kept = [cells[place] for place in places]
        if any(cell is not None for cell in kept):
            drawn = [
                drift_cell(cell, window, worst.get((feature, window.start)))
                for cell, window in zip(kept, windows, strict=True)
            ]
            scores = tuple(None if cell is None else cell.score for cell in kept)
            off = [
                f"{check}: {text.removeprefix('off: ')}"
                for (name, check), text in heat.notes.items()
                if name == feature
            ]
            rows.append(DriftRow(feature, tuple(drawn), scores, "; ".join(off)))
    references = dict.fromkeys(window.reference for window in reversed(windows) if window.reference)
    return DriftView(
        heat.model,
        version,
        tuple((window.start, window.end) for window in windows),
        tuple(rows),
        tuple(DriftCell(w.verdict, w.status, rows=w.rows, detail=w.detail) for w in windows),
        statistic="psi",
        reference=next(iter(references), ""),
    )


def _excess(one: Verdict) -> float:
    return (one.value or 0.0) - (one.threshold or 0.0)


def drift_cell(
    cell: drift_read.HeatCell | None, window: drift_read.WindowRow, worst: Verdict | None
) -> DriftCell | None:
    if cell is None:
        return None
    if worst is None:
        return DriftCell(cell.verdict, cell.status, rows=window.rows, detail=cell.detail)
    return DriftCell(
        cell.verdict, cell.status, worst.statistic, worst.value, worst.threshold, window.rows, cell.detail
    )


def incident_row(row: notify_read.IncidentRow) -> IncidentView:
    return IncidentView(
        row.id,
        row.title,
        row.state,
        row.severity,
        row.cause,
        row.service,
        row.model,
        row.since,
        ended=row.resolved_at,
        acknowledged_by=row.acknowledged_by,
    )


def incident_story(story: notify_read.IncidentStory) -> IncidentView:
    page = story.page
    return replace(
        incident_row(story.row),
        slos=tuple(dict.fromkeys(burn.name for burn in page.burns)),
        features=tuple(dict.fromkeys(finding.feature for finding in page.features)),
        segments=tuple(hit.segment for hit in page.segments),
        details=details_of(story),
        runbook=page.runbook or None,
        timeline=tuple(TimelineEntry(e.at, e.kind, e.text, e.source) for e in story.timeline),
        pages=tuple(page_view(sent) for sent in story.pages),
        calls=tuple(
            CallLink(trace.trace_id or trace.prediction_id, trace.segment, trace.at)
            for trace in page.traces
            if trace.trace_id or trace.prediction_id
        ),
    )


def details_of(story: notify_read.IncidentStory) -> tuple[Detail, ...]:
    """Features with their causes first, as people can act on them; then the slow stage and what burns."""
    page, found = story.page, []
    for finding in page.features:
        text = finding.cause or finding.statistic.removeprefix("check:")
        where = f" in {finding.segment}" if finding.segment else ""
        sentence = f"{finding.feature}{where}: {text}" if text else f"{finding.feature}{where}"
        found.append(Detail(sentence, finding.since, finding.repair))
    if page.stage is not None:
        stage = page.stage
        slow = f", p99 {words.duration(stage.p99_s)}" if stage.p99_s is not None else ""
        usual = f" where {words.duration(stage.usual_s)} is usual" if stage.usual_s is not None else ""
        found.append(Detail(f"Slowest stage: {stage.stage}{slow}{usual}"))
    if page.change is not None:
        found.append(Detail(f"Shortly before: {page.change.kind} {page.change.text}", page.change.at))
    found += [Detail(burn.summary) for burn in page.burns if burn.summary]
    found += [Detail(note) for note in page.notes]
    return tuple(dict.fromkeys(found))


def page_view(sent: notify_read.SentPage) -> PageView:
    problem = "" if sent.reason in ("", "ok") else sent.reason.replace("_", " ")
    return PageView(
        sent.sent_at if sent.sent_at is not None else sent.wanted_at,
        sent.channel,
        sent.kind,
        sent.state,
        sent.attempts,
        "\n".join(notify_read.lines_of(sent.page)),
        problem,
    )
