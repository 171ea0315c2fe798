"""Incident -> page. Pure: what burns, whom it hits, what explains it, where to look."""

from __future__ import annotations

import math
from collections.abc import Iterable
from urllib.parse import urlsplit

from mlobs.names import PAGE
from mlobs.notify.grouping import DATA, FAMILIES, SERVING
from mlobs.notify.incident import ACKNOWLEDGED, OPEN, Incident, Tracked
from mlobs.notify.page import (
    FIRING,
    RESOLVED,
    Burn,
    ChangeFinding,
    FeatureFinding,
    Page,
    PageParts,
    SegmentHit,
    StageFinding,
    TraceFinding,
)
from mlobs.notify.text import clean, count
from mlobs.records import Alert
from mlobs.settings import Settings

MOST_BURNS, MOST_FEATURES, MOST_SEGMENTS, MOST_TRACES, MOST_NOTES = 5, 4, 4, 5, 2


def compose(incident: Incident, settings: Settings, now: float) -> Page:
    """The page of `incident` as of `now`. Bare as long as no enricher has answered: the rest is then
    empty.
    """
    parts = incident.parts
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
        zone=settings.slo.zone,
        burns=_burns(tracked)[:MOST_BURNS],
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


def bare_page(incident: Incident, settings: Settings, now: float) -> Page:
    """The least that can be said, should `compose` fail: nobody stays unwarned for a fault of ours."""
    return Page(
        incident=incident.id,
        key=incident.key,
        state=FIRING if incident.state == OPEN else incident.state,
        severity=incident.severity,
        title=f"{incident.model or incident.service}: {incident.cause.replace('_', ' ')}",
        environment=incident.environment,
        service=incident.service,
        model=incident.model,
        at=now,
        since=incident.since,
        cause=incident.cause,
        link=link_of(settings, incident.id),
        notes=("the page could not be composed: look at the incident itself",),
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
                clean(one.cause, 400),
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
            ChangeFinding(float(parts.change.at), clean(parts.change.kind, 40), clean(parts.change.text))
            if parts.change is not None and finite(parts.change.at) is not None
            else None
        ),
        versions=tuple(clean(one, 80) for one in parts.versions[:10]),
        dashboard=web_link(parts.dashboard),
        notes=tuple(clean(one) for one in parts.notes[:10]),
    )


def findings(now: PageParts, before: PageParts) -> list[str]:
    """What enrichers found that was not known: a line for the timeline each, features by rank, then the
    stage.
    """
    known = {(one.feature, one.cause) for one in before.features}
    lines = [
        f"{one.feature}: {one.cause or one.statistic or 'broken'}"
        for one in now.features[:MOST_FEATURES]
        if (one.feature, one.cause) not in known
    ]
    if now.stage is not None and now.stage != before.stage:
        lines.append(f"slow stage: {now.stage.stage}")
    return lines


def news_of(now: PageParts, before: PageParts) -> tuple[str, ...]:
    """What an update is about that brings `now` where `before` was known: findings, else what there is more
    of."""
    found = findings(now, before)
    if now.traces != before.traces:
        found.append(f"{count(min(len(now.traces), MOST_TRACES))} traces")
    if now.segments != before.segments:
        found.append(f"hits {now.segments[0].segment}")
    if now.change is not None and now.change != before.change:
        found.append(f"suspected: {now.change.kind} {now.change.text}")
    return tuple(clean(one, 120) for one in found) or ("more is known",)


def finite(number: float | None) -> float | None:
    """A plain float, or None for what is none; numpy's numbers become Python's."""
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
        clean(one.shows, 80),
        finite(one.at),
    )


def _importance(one: Tracked) -> tuple[bool, bool, float]:
    """What fires first, then pages, then what burns fastest."""
    return (not one.firing, one.alert.severity != PAGE, -(one.alert.burn_rate or 0.0))


def _burns(tracked: list[Tracked]) -> tuple[Burn, ...]:
    """One line an objective: of its tiers the most important speaks."""
    lines: dict[tuple[str, str], Burn] = {}
    for one in tracked:
        burn = _burn(one)
        lines.setdefault((burn.name, burn.cause), burn)
    return tuple(lines.values())


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
        # of a burn the numbers have said it; of a feature its own section says it
        summary="" if alert.burn_rate is not None or alert.feature else alert.summary,
    )


def _title(
    incident: Incident,
    tracked: list[Tracked],
    features: tuple[FeatureFinding, ...],
    stage: StageFinding | None,
) -> str:
    """`fraud: latency burns its budget 14.4 times too fast; slow: inference`: the first line of every
    channel.

    Named by what pages: tickets of the same incident stand in the list.
    """
    what = incident.model or incident.service
    lead = _lead(incident, tracked)
    cause = lead.cause.replace("_", " ")
    if incident.state == RESOLVED and incident.closed_by:
        title = f"{what}: {cause} was resolved by {incident.closed_by}"  # it may well fire on
    elif incident.state == RESOLVED:
        title = f"{what}: {cause} has healed"
    elif lead.burn_rate is not None:
        title = f"{what}: {cause} burns its budget {lead.burn_rate:.3g} times too fast"
    else:
        title = f"{what}: {cause}"
    if features:
        names = ", ".join(one.feature for one in features[:3])
        more = f" and {len(features) - 3} more" if len(features) > 3 else ""
        title += f"; broken: {names}{more}"
    elif stage is not None:
        title += f"; slow: {stage.stage}"
    elif lead.burn_rate is None and lead.summary and incident.state != RESOLVED:
        title += f": {lead.summary}"
    return clean(title, 150)


def _lead(incident: Incident, tracked: list[Tracked]) -> Alert:
    """The alert that names the page: of the incident's severity, firing; trouble in serving before trouble in
    the data, for it hurts now; then of its first cause if it can."""
    loud = [one for one in tracked if one.alert.severity == incident.severity] or tracked
    loud = [one for one in loud if one.firing] or loud
    if FAMILIES.get(incident.cause) == DATA:
        loud = [one for one in loud if FAMILIES.get(one.alert.cause) == SERVING] or loud
    own = [one for one in loud if one.alert.cause == incident.cause]
    return (own or loud)[0].alert


def _features(incident: Incident, parts: PageParts) -> tuple[FeatureFinding, ...]:
    """What enrichers ranked, then what the alerts themselves name."""
    named = {one.feature for one in parts.features}
    own = [
        FeatureFinding(
            one.alert.feature, cause=_said_of(one.alert), segment=one.alert.segment, since=one.alert.since
        )
        for one in incident.alerts
        if one.alert.feature and one.alert.feature not in named
    ]
    return PageParts(features=parts.features).join(PageParts(features=tuple(own))).features


def _said_of(alert: Alert) -> str:
    """The alert's summary without the model and the feature, which stand before it anyway."""
    return alert.summary.removeprefix(f"{alert.model}: ").removeprefix(f"{alert.feature} ")


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
    lines = len(_burns(tracked))
    if lines > MOST_BURNS:
        notes.append(f"{count(lines - MOST_BURNS)} more alerts of this incident stand on its page")
    if len(features) > MOST_FEATURES:
        notes.append(f"{count(len(features) - MOST_FEATURES)} more features are broken")
    return (*notes, *parts.notes)
