"""Alertmanager's webhook (version 4) and its API's alerts as our alerts. Pure.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from mlobs.durations import parse_duration
from mlobs.names import PAGE, SEVERITIES, TICKET
from mlobs.notify.incident import Identity, cleaned, identity
from mlobs.records import Alert
from mlobs.settings import Settings

WATCHDOG = "Watchdog"
"""Name of the alert that always fires: while we hear it, the way from Prometheus to us is open."""

_OWN = frozenset(
    "alertname severity service model cause environment slo kind feature segment model_version".split()
)
_QUIET = frozenset({"warning", "warn", "info", "low", "ticket", "none"})


class MalformedError(ValueError):
    """The body is not what Alertmanager sends."""


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook's content: alerts, and whether the watchdog was among them."""

    alerts: tuple[Alert, ...]
    watchdog: bool


class _Posted(msgspec.Struct):
    """One alert of the webhook, in Alertmanager's spelling."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    status: Any = "firing"
    startsAt: str = ""
    endsAt: str = ""


class _Body(msgspec.Struct):
    alerts: list[_Posted]
    version: str = "4"


def parse_webhook(body: bytes, settings: Settings, now: float) -> Received:
    """Alerts of a webhook's body. Raises MalformedError."""
    try:
        posted = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise MalformedError(str(problem)[:200]) from None
    alerts = [one for one in posted.alerts if one.labels.get("alertname") != WATCHDOG]
    watchdog = any(
        one.labels.get("alertname") == WATCHDOG and one.status == "firing" for one in posted.alerts
    )
    return Received(
        tuple(
            to_alert(
                one.labels, one.annotations, one.status == "firing", one.startsAt, one.endsAt, settings, now
            )
            for one in alerts
        ),
        watchdog,
    )


def to_alert(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    firing: bool,
    starts: str,
    ends: str,
    settings: Settings,
    now: float,
) -> Alert:
    """Our alert of Alertmanager's labels. Missing service and environment are ours; an unknown severity
    pages.
    """
    name = labels.get("alertname", "")
    burn, left = _number(annotations.get("burn_rate")), _number(annotations.get("budget_remaining"))
    since = _onset(moment_of(starts), annotations) if firing else moment_of(ends)
    return Alert(
        name=name,
        cause=labels.get("cause") or name.lower() or "unknown",
        severity=severity_of(labels.get("severity", "")),
        firing=firing,
        since=since if since is not None else now,
        at=now,
        service=labels.get("service") or settings.service,
        model=labels.get("model", ""),
        environment=labels.get("environment") or settings.environment,
        kind=labels.get("kind", "burn"),
        slo=labels.get("slo", ""),
        model_version=labels.get("model_version", ""),
        feature=labels.get("feature", ""),
        segment=labels.get("segment", ""),
        burn_rate=burn,
        budget_remaining=left,
        bad=_number(annotations.get("bad")),
        total=_number(annotations.get("total")),
        long_window_s=_seconds(annotations.get("window")),
        exhausted_at=_exhausted_at(labels.get("slo", ""), burn, left, settings, now) if firing else None,
        summary=annotations.get("summary") or annotations.get("description") or "",
        labels={key: value for key, value in labels.items() if key not in _OWN},
    )


def _exhausted_at(
    slo: str, burn: float | None, left: float | None, settings: Settings, now: float
) -> float | None:
    """When the budget left is gone at this pace: a burn rate of 1 spends it in one period."""
    period = next((one.period for one in settings.slo.objectives if one.name == slo), None)
    if period is None or left is None or burn is None or burn <= 0:
        return None
    return now + max(left, 0.0) * period / burn


def severity_of(word: str) -> str:
    """`page` or `ticket`; what others call a warning is a ticket, what nobody knows is a page."""
    if word in SEVERITIES:
        return word
    return TICKET if word.lower() in _QUIET else PAGE


def moment_of(text: str) -> float | None:
    """Seconds of an RFC 3339 time with up to nine digits of a second; None for Go's zero time and for what
    is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None and moment.year > 1 else None


# -- reconciliation ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upstream:
    """What Prometheus and Alertmanager say at one time; None where one did not answer."""

    prometheus: tuple[Mapping[str, Any], ...] | None
    """`data.alerts` of /api/v1/alerts."""
    alertmanager: tuple[Mapping[str, Any], ...] | None
    """The list of /api/v2/alerts."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What should be firing here, and why some of it was taken up on our own account."""

    alerts: tuple[Alert, ...]
    complete: bool
    """False when too little was heard to call anything healed."""
    lost: tuple[str, ...]
    """One sentence for each alert that never reached us."""
    quiet: frozenset[Identity] = frozenset()
    """What Alertmanager holds as silenced or inhibited."""


def reconcile(
    upstream: Upstream,
    known: Iterable[Identity],
    settings: Settings,
    now: float,
    quiet: Collection[Identity] | None = (),
) -> Reconciled:
    """Compare upstream with the identities of the alerts that we hold as firing.

    Taken up: firing in Prometheus for longer than the wait and absent from Alertmanager; active in
    Alertmanager, routed to us, older than group wait and interval, and unknown here. What is silenced or
    inhibited there never pages; if it is known here already, it stays. While Alertmanager does not answer,
    `quiet` tells what it held as silenced or inhibited when it last did; None: it never answered, so nothing
    new is taken up on the word of Prometheus alone.
    """
    held = set(known)
    options = settings.notify.alertmanager
    if options is None:
        return Reconciled((), False, ())
    wait = options.group_wait + options.group_interval
    found: dict[Identity, Alert] = {}
    lost: list[str] = []
    listed: set[Identity] = set()
    hushed: set[Identity] = set()
    deaf = upstream.alertmanager is None
    for one in upstream.alertmanager or ():
        alert = _upstream_alert(one, "startsAt", settings, now)
        key = identity(alert)
        listed.add(key)
        receivers = {str(each.get("name")) for each in one.get("receivers", ())}
        active = one.get("status", {}).get("state") == "active"
        if not active:
            hushed.add(key)
        if alert.name == WATCHDOG or options.receiver not in receivers or not (active or key in held):
            continue
        if key not in held:
            if _younger(one, "startsAt", wait, now):
                continue
            lost.append(f"{alert.name} is active in Alertmanager and never reached us")
        found[key] = alert
    for one in upstream.prometheus or ():
        alert = _upstream_alert(one, "activeAt", settings, now)
        key = identity(alert)
        ours = one.get("state") == "firing" and alert.name != WATCHDOG and is_ours(one.get("labels", {}))
        if not ours or key in listed or key in found:
            continue
        if key not in held:
            if _younger(one, "activeAt", wait, now) or (deaf and (quiet is None or key in quiet)):
                continue
            lost.append(f"{alert.name} fires in Prometheus and Alertmanager does not know it")
        found[key] = alert
    heard = upstream.prometheus is not None and upstream.alertmanager is not None
    return Reconciled(tuple(found.values()), heard, tuple(lost), frozenset(hushed))


def _upstream_alert(one: Mapping[str, Any], since: str, settings: Settings, now: float) -> Alert:
    labels = {str(name): str(value) for name, value in one.get("labels", {}).items()}
    annotations = {str(name): str(value) for name, value in one.get("annotations", {}).items()}
    return cleaned(to_alert(labels, annotations, True, str(one.get(since, "")), "", settings, now))


def _younger(one: Mapping[str, Any], starts: str, wait: float, now: float) -> bool:
    """Whether the alert, not what it tells of, is too young to be missed."""
    began = moment_of(str(one.get(starts, "")))
    return now - (began if began is not None else now) < wait


def _onset(began: float | None, annotations: Mapping[str, str]) -> float | None:
    """What the alert tells of may have begun before the alert: its rule says so in `since`, seconds."""
    told = _number(annotations.get("since"))
    return told if told is not None and 0 < told < (began or math.inf) else began


def is_ours(labels: Mapping[str, str]) -> bool:
    """Rules of others, which Alertmanager may route elsewhere, are not ours to page."""
    return bool(labels.get("service")) and labels.get("severity") in SEVERITIES


def _seconds(text: str | None) -> float | None:
    """`1h` as seconds; None for what is no duration."""
    try:
        return float(parse_duration(text)) if text else None
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
