"""What pages are enriched with: drift's causes, and what the kept calls of the feature log show.

Plain callables, each run in a thread of its own with 2 s to answer; a page leaves without one that fails.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from mlobs.drift import read as drift_read
from mlobs.featurelog.reader import LogReader, reader_of
from mlobs.notify.enrich import Enricher
from mlobs.notify.incident import Incident
from mlobs.notify.page import FeatureFinding, PageParts
from mlobs.records import Alert
from mlobs.service.evidence import calls_of, serving_parts
from mlobs.service.examples import Broken, drifted_calls
from mlobs.settings import Settings
from mlobs.store import Store

SERVING = frozenset({"latency", "p99", "availability", "errors", "good_prediction"})
DATA = frozenset({"drift", "data_quality", "freshness", "range", "null", "unseen", "constant", "schema"})
CALLS = 20_000
"""Newest kept calls that are looked at, on either side of the onset."""
USUAL = 5_000
"""Newest kept calls from before a drift."""
SHOWN = 3600.0
"""Seconds that a link's time range spans at least."""
BEFORE = 86400.0
"""Seconds before the onset that tell what is usual, at least."""

REPAIRS = {
    "range": "check the unit and the upstream feed; the training range is in the reference",
    "null": "check the upstream join or feed that fills it",
    "unseen": "check for a renamed or new category upstream",
    "constant": "check for a stuck sensor or a default that is always sent",
    "schema": "check which release stopped sending the column",
    "type": "check the producer's serialisation",
}


def enrichers(settings: Settings, store: Store) -> list[Enricher]:
    """In the order in which their parts count."""
    found: list[Enricher] = [links(settings), features(settings, store)]
    reader = reader_of(settings)
    if reader is not None:
        found += [calls(settings, reader), examples(settings, store, reader)]
    return found


def features(settings: Settings, store: Store) -> Callable[[Incident], PageParts]:
    """Ranked features with the check that broke, its named cause and what to look at."""

    def ask(incident: Incident) -> PageParts:
        if not DATA & set(incident.causes):
            return PageParts()
        causes = drift_read.explain(store, incident.model, _onset(settings, incident), incident.changed_at)
        return PageParts(
            features=tuple(
                FeatureFinding(
                    feature=cause.feature,
                    statistic=f"check:{cause.check}",
                    value=cause.value,
                    threshold=cause.threshold,
                    cause=cause.detail,
                    repair=REPAIRS.get(cause.check, ""),
                    segment=cause.segment,
                    since=cause.first_window_start,
                )
                for cause in causes
            )
        )

    return ask


def calls(settings: Settings, reader: LogReader) -> Callable[[Incident], PageParts]:
    """Slowest stage, segments and traces, from the calls since the onset beside those before it."""

    def ask(incident: Incident) -> PageParts:
        if not SERVING & set(incident.causes):
            return PageParts()
        thresholds = settings.latency_thresholds(incident.model)
        threshold = thresholds[0] if thresholds else None
        onset, until = burning_since(incident), incident.changed_at
        usual = max(BEFORE, until - onset)
        now = reader.scan(onset, until, incident.model, CALLS)
        before = reader.scan(onset - usual, onset, incident.model, CALLS)
        link = settings.public_url or ""
        return serving_parts(calls_of(now, threshold), calls_of(before, threshold), link.rstrip("/"))

    return ask


def examples(settings: Settings, store: Store, reader: LogReader) -> Callable[[Incident], PageParts]:
    """Calls whose broken features are least like those of before the drift: what to look at first."""

    def ask(incident: Incident) -> PageParts:
        if not DATA & set(incident.causes):
            return PageParts()
        onset, until = _onset(settings, incident), incident.changed_at
        causes = drift_read.explain(store, incident.model, onset, until)
        if not causes:
            return PageParts()
        onset = min(onset, *(cause.first_window_start for cause in causes))
        now = reader.scan(onset, until, incident.model, CALLS)
        before = reader.scan(onset - BEFORE, onset, incident.model, USUAL)
        link = (settings.public_url or "").rstrip("/")
        broken = [Broken(cause.feature, cause.segment) for cause in causes]
        return PageParts(traces=drifted_calls(now, before, broken, link))

    return ask


def burning_since(incident: Incident) -> float:
    """The onset, where it lies a short window back or more. Else the alert is as young as its page: a burn
    fires when its windows have filled, by calls of up to a long window before."""
    short = max((one.alert.short_window_s or 0.0 for one in incident.alerts), default=0.0)
    long = max((one.alert.long_window_s or _unsaid(one.alert) for one in incident.alerts), default=0.0)
    known = incident.changed_at - incident.since >= short > 0
    return incident.since if known else min(incident.since, incident.changed_at - long)


def _unsaid(alert: Alert) -> float:
    """Alertmanager's burns do not say over which window they burn: an hour is the shortest long one."""
    return 3600.0 if alert.kind == "burn" else 0.0


def _onset(settings: Settings, incident: Incident) -> float:
    """A breach says when what broke it began; a burn is heard of windows later."""
    if any(one.alert.kind == "breach" for one in incident.alerts):
        return incident.since
    return incident.since - settings.drift.persistence[1] * settings.drift.window


def links(settings: Settings) -> Callable[[Incident], PageParts]:
    """The web page with the incident's time range filled in."""

    def ask(incident: Incident) -> PageParts:
        if not settings.public_url:
            return PageParts()
        page = "drift" if DATA & set(incident.causes) else ""
        onset = _onset(settings, incident) if page else burning_since(incident)
        onset = min(onset, incident.changed_at - SHOWN)  # a span of nothing shows nothing
        query = urlencode({"from": f"{onset:.0f}", "to": f"{incident.changed_at:.0f}"})
        return PageParts(dashboard=f"{settings.public_url.rstrip('/')}/{page}?{query}")

    return ask
