"""What an incident is, and what identifies alerts and incidents. Values only; `grouping` makes them of
alerts.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

from mlobs.names import PAGE, TICKET
from mlobs.notify.page import PageParts
from mlobs.notify.text import clean
from mlobs.records import Alert

OPEN = "open"
ACKNOWLEDGED = "acknowledged"

Identity = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tracked:
    """An alert of an incident, as last heard of."""

    alert: Alert
    firing: bool
    first_at: float
    last_at: float
    source: str
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """What is wrong with one model since when. `key` is the same in either mode and does not change with
    routes.

    `id` is made of the key and the time of opening: the same trouble a month later is another incident.
    """

    id: str
    key: str
    environment: str
    service: str
    model: str
    cause: str
    """Of the first alert: the one that the incident is named by."""
    severity: str
    state: str
    opened_at: float
    since: float
    """When the first of its conditions began to hold."""
    changed_at: float
    alerts: tuple[Tracked, ...] = ()
    parts: PageParts = field(default_factory=PageParts)
    enriched: bool = False
    quiet_since: float | None = None
    resolved_at: float | None = None
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    closed_by: str = ""
    """Who resolved it by hand."""
    flaps: int = 0
    """How often it came back within its hold or shortly after."""
    muted: str = ""
    """Why nobody was told when it was to be told."""
    paged_at: float | None = None
    """When people were first to be told: escalation counts from here."""
    told_at: float | None = None
    """When people were last told that it fires."""
    escalated: int = 0
    """Steps of escalation that were taken."""

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(one.alert for one in self.alerts if one.firing)

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.alert.cause for one in self.alerts))

    @property
    def dedup_key(self) -> str:
        """What channels with an idea of identity are given: the same for every message of the incident."""
        return f"mlobs-{self.id}"


@dataclass(frozen=True, slots=True)
class Change:
    """An incident as it is now, what to tell people (`firing`, `update`, `resolved` or nothing), what
    happened.
    """

    incident: Incident
    notice: str | None
    events: tuple[tuple[str, str], ...] = ()
    """(kind, text) for the timeline."""


def identity(alert: Alert) -> Identity:
    """What makes two alerts the same condition at two times."""
    return (
        alert.environment,
        alert.service,
        alert.model,
        alert.cause,
        alert.name,
        alert.severity,
        alert.slo,
        alert.feature,
        alert.segment,
    )


def incident_key(alert: Alert) -> str:
    """`environment/service/model/cause`; a slash within a part is written `%2F`, so that keys never
    collide.
    """
    parts = (alert.environment, alert.service, alert.model, alert.cause)
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def incident_id(key: str, opened_at: float) -> str:
    """Twelve hex digits of key and time of opening."""
    return hashlib.blake2b(f"{key}|{opened_at:.3f}".encode(), digest_size=6).hexdigest()


def cleaned(alert: Alert) -> Alert:
    """Texts fit for a page and numbers finite; an unknown severity is taken for the louder one."""
    texts = ("name", "cause", "service", "model", "environment", "slo", "model_version", "feature", "segment")
    changed: dict[str, object] = {name: clean(getattr(alert, name)) for name in texts}
    numbers = (
        "burn_rate",
        "budget_remaining",
        "exhausted_at",
        "long_window_s",
        "short_window_s",
        "bad",
        "total",
    )
    for name in numbers:
        value = getattr(alert, name)
        changed[name] = float(value) if value is not None and math.isfinite(value) else None
    changed["at"] = float(alert.at) if math.isfinite(alert.at) else 0.0
    changed["since"] = float(alert.since) if math.isfinite(alert.since) else changed["at"]
    changed["severity"] = alert.severity if alert.severity in (PAGE, TICKET) else PAGE
    changed["summary"] = clean(alert.summary, 300)
    changed["labels"] = {clean(k): clean(v) for k, v in sorted(alert.labels.items())}
    return replace(alert, **changed)  # type: ignore[arg-type]
