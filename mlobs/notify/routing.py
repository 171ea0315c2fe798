"""Who gets an incident: the first route that matches decides. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mlobs.names import PAGE
from mlobs.notify.incident import Incident
from mlobs.settings import NotifySettings


@dataclass(frozen=True, slots=True)
class Routed:
    """The channels and one sentence on why."""

    to: tuple[str, ...]
    why: str


def route(incident: Incident, settings: NotifySettings) -> Routed:
    """The channels of `incident`.

    Without routes everything goes everywhere. A page that no route wants goes to the fallback, or
    everywhere: when unsure, page. A ticket that no route wants stays in the list of incidents.
    """
    everywhere = tuple(settings.channels)
    if not settings.routes:
        return Routed(everywhere, "no routes are configured: everything goes to every channel")
    for number, one in enumerate(settings.routes):
        missing = [
            f"{name}={value}" for name, value in one.match.items() if value not in _values(incident, name)
        ]
        if not missing:
            text = ", ".join(f"{name}={value}" for name, value in one.match.items()) or "everything"
            return Routed(one.to, f"routes[{number}] matches {text}")
    if incident.severity == PAGE:
        if settings.fallback:
            return Routed((settings.fallback,), "no route matches a page: it goes to the fallback")
        return Routed(everywhere, "no route matches a page: it goes to every channel")
    return Routed((), "no route matches this ticket: it is listed and not sent")


def _values(incident: Incident, name: str) -> tuple[str, ...]:
    """What the incident has under a matched name; segments and causes may be several."""
    if name == "segment":
        return tuple(one.alert.segment for one in incident.alerts)
    if name == "cause":
        return incident.causes
    value = getattr(incident, name, None)
    return (value,) if isinstance(value, str) else ()
