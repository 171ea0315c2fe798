"""Incident -> page. Pure: what burns, whom it hits, what explains it, where to look."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from mlobs.names import PAGE
from mlobs.notify.incident import ACKNOWLEDGED, OPEN, Incident, Tracked
from mlobs.notify.page import (
    FIRING,
    RESOLVED,
    Burn,
    FeatureFinding,
    Page,
    PageParts,
    SegmentHit,
    StageFinding,
    TraceFinding,
)
from mlobs.notify.text import clean, count
from mlobs.settings import Settings

MOST_BURNS, MOST_FEATURES, MOST_SEGMENTS, MOST_TRACES, MOST_NOTES = 5, 4, 4, 5, 2


def compose(incident: Incident, settings: Settings, now: float) -> Page:
    """The page of `incident` as of `now`. Bare as long as no enricher has answered: the rest is then
    empty.
    """
    parts = cleaned_parts(incident.parts)
    tracked = sorted(incident.alerts, key=_importance)
    features = _features(incident, parts)
    state = {OPEN: FIRING, ACKNOWLEDGED: ACKNOWLEDGED}.get(incident.state, RESOLVED)
    return Page(
        incident=incident.id,
        key=incident.key,
        state=state,
        severity=incident.severity,
        title=_title(incident, tracked, features, parts.stage),
        environment=incident.environment,
        service=incident.service,
        model=incident.model,
        at=now,
        since=incident.since,
        cause=incident.cause,
        burns=tuple(_burn(one) for one in tracked[:MOST_BURNS]),
        resolved_at=incident.resolved_at,
        acknowledged_by=incident.acknowledged_by,
        versions=_versions(incident, parts),
        segments=_segments(incident, parts),
        features=features[:MOST_FEATURES],
        stage=parts.stage,
        traces=parts.traces[:MOST_TRACES],
        change=parts.change,
        runbook=_runbook(incident, settings),
        dashboard=parts.dashboard,
        link=link_of(settings, incident.id),
        notes=_notes(tracked, features, parts)[:MOST_NOTES],
    )


def trial_page(settings: Settings, now: float, by: str = "") -> Page:
    """A page that says of itself that it is a test."""
    who = clean(by, 80)
    return Page(
        incident="test",
        key=f"{settings.environment}/{settings.service}//test",
        state=FIRING,
        severity=PAGE,
        title=f"TEST: {settings.service} can reach you" + (f", sent by {who}" if who else ""),
        environment=settings.environment,
        service=settings.service,
        model="",
        at=now,
        since=now,
        notes=("This is a test of the channel. Nothing is wrong, nothing is to be done.",),
        test=True,
    )


def link_of(settings: Settings, incident: str) -> str:
    """Address of the incident on the web page; empty without `public_url`."""
    if not settings.public_url:
        return ""
    return web_link(f"{settings.public_url.rstrip('/')}/incidents/{incident}")


def web_link(text: str) -> str:
    """`text` if it is an http or https address without blanks or markup, else nothing."""
    try:
        parsed = urlsplit(text)
    except ValueError:
        return ""
    fine = parsed.scheme in ("http", "https") and parsed.hostname and not set(text) & set(" <>|\"'`\\\r\n\t")
    return text if fine and text.isprintable() and len(text) <= 2000 else ""


def cleaned_parts(parts: PageParts) -> PageParts:
    """Parts from enrichers with texts cleaned, numbers finite or None, links checked."""
    return PageParts(
        features=tuple(
            FeatureFinding(
                clean(one.feature, 80),
                clean(one.statistic, 40),
                finite(one.value),
                finite(one.threshold),
                clean(one.cause),
                clean(one.repair),
                clean(one.segment, 80),
                finite(one.since),
            )
            for one in parts.features[:50]
        ),
        segments=tuple(
            SegmentHit(clean(one.segment, 80), finite(one.bad), finite(one.total))
            for one in parts.segments[:50]
        ),
        stage=_stage(parts.stage),
        traces=tuple(_trace(one) for one in parts.traces[:50]),
        change=(
            replace(parts.change, kind=clean(parts.change.kind, 40), text=clean(parts.change.text))
            if parts.change is not None and finite(parts.change.at) is not None
            else None
        ),
        versions=tuple(clean(one, 80) for one in parts.versions[:10]),
        dashboard=web_link(parts.dashboard),
        notes=tuple(clean(one) for one in parts.notes[:10]),
    )


def finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None


def _stage(stage: StageFinding | None) -> StageFinding | None:
    if stage is None or not clean(stage.stage):
        return None
    return StageFinding(
        clean(stage.stage, 80),
        finite(stage.p99_s),
        finite(stage.usual_s),
        finite(stage.share),
        clean(stage.measure, 40),
    )


def _trace(one: TraceFinding) -> TraceFinding:
    return TraceFinding(
        clean(one.trace_id, 64),
        clean(one.prediction_id, 80),
        finite(one.duration_s),
        {
            clean(name, 40): value
            for name, seconds in one.stages.items()
            if (value := finite(seconds)) is not None
        },
        web_link(one.url),
        clean(one.segment, 80),
    )


def _importance(one: Tracked) -> tuple[bool, bool, float]:
    """What fires first, then pages, then what burns fastest."""
    return (not one.firing, one.alert.severity != PAGE, -(one.alert.burn_rate or 0.0))


def _burn(one: Tracked) -> Burn:
    alert = one.alert
    return Burn(
        name=alert.slo or alert.name,
        cause=alert.cause,
        severity=alert.severity,
        firing=one.firing,
        since=alert.since,
        burn_rate=alert.burn_rate,
        budget_remaining=alert.budget_remaining,
        exhausted_at=alert.exhausted_at,
        window_s=alert.long_window_s,
        bad=alert.bad,
        total=alert.total,
        summary=alert.summary,
    )


def _title(
    incident: Incident,
    tracked: list[Tracked],
    features: tuple[FeatureFinding, ...],
    stage: StageFinding | None,
) -> str:
    """`fraud: latency burns 14.4 times too fast, inference is slow`: the first line of every channel."""
    what = incident.model or incident.service
    lead = next((one.alert for one in tracked if one.alert.cause == incident.cause), tracked[0].alert)
    pace = f" burns its budget {lead.burn_rate:.3g} times too fast" if lead.burn_rate is not None else ""
    title = f"{what}: {incident.cause.replace('_', ' ')}{pace}"
    if incident.state == RESOLVED:
        title = f"{what}: {incident.cause.replace('_', ' ')} has healed"
    if features:
        names = ", ".join(one.feature for one in features[:3])
        more = f" and {len(features) - 3} more" if len(features) > 3 else ""
        title += f"; broken: {names}{more}"
    elif stage is not None:
        title += f"; slow: {stage.stage}"
    return clean(title, 150)


def _features(incident: Incident, parts: PageParts) -> tuple[FeatureFinding, ...]:
    """What enrichers ranked, then what the alerts themselves name."""
    named = {one.feature for one in parts.features}
    own = [
        FeatureFinding(
            one.alert.feature, cause=one.alert.summary, segment=one.alert.segment, since=one.alert.since
        )
        for one in incident.alerts
        if one.alert.feature and one.alert.feature not in named
    ]
    return PageParts(features=parts.features).join(PageParts(features=tuple(own))).features


def _segments(incident: Incident, parts: PageParts) -> tuple[SegmentHit, ...]:
    own = tuple(
        SegmentHit(one.alert.segment, one.alert.bad, one.alert.total)
        for one in incident.alerts
        if one.alert.segment
    )
    return PageParts(segments=parts.segments).join(PageParts(segments=own)).segments[:MOST_SEGMENTS]


def _versions(incident: Incident, parts: PageParts) -> tuple[str, ...]:
    own: Iterable[str] = (one.alert.model_version for one in incident.alerts if one.alert.model_version)
    return tuple(dict.fromkeys((*parts.versions, *own)))[:4]


def _runbook(incident: Incident, settings: Settings) -> str:
    """Of the objective that burns, else of the model."""
    burning = {one.alert.slo for one in incident.alerts}
    for objective in settings.slo.objectives:
        if objective.name in burning and objective.runbook:
            return clean(objective.runbook, 500)
    return clean(settings.model(incident.model).runbook or "", 500)


def _notes(tracked: list[Tracked], features: tuple[FeatureFinding, ...], parts: PageParts) -> tuple[str, ...]:
    notes = []
    if len(tracked) > MOST_BURNS:
        notes.append(f"{count(len(tracked) - MOST_BURNS)} more alerts of this incident stand on its page")
    if len(features) > MOST_FEATURES:
        notes.append(f"{count(len(features) - MOST_FEATURES)} more features are broken")
    return (*notes, *parts.notes)
